"""Embedding shards and pair tables of many rows: written, indexed, read by training, and swept as a memory.

    python -m benchmarks.embedding_columns [--rows 1000000 10000000] [--width 128] [--quick]

For every size, in a process of its own: a table of pairs (four float16 vectors per row) is written as `mmpretrain pair`
writes it; then its index is opened, batches of 10,240 are read in training's order (data.window=16), and one of its
columns is swept as a memory by 256 queries, read from the files. The same is done with one file per sample and modality
(`--form samples`) for 20,000 rows. Vectors are drawn once and written again
and again, because their values change no time. Nothing is compared between runs; sizes show how times grow.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import MIB, finish, show, status
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.data.column_shards import Column, Table
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.stream import Stream
from mmpretrain.embedding.jobs import ShardForm
from mmpretrain.embedding.output import Output, SplitOrigin
from mmpretrain.embedding.soft_retrieval import soft_retrieve
from mmpretrain.embedding.vectors import MappedRows, Vectors
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor

NAMES = ("first_shared", "second_shared", "first_partner", "second_partner")
PER_SHARD, BATCH, BATCHES, QUERIES = 8192, 10_240, 20, 256


def write(folder: Path, rows: int, width: int, form: ShardForm) -> None:
    """The table, in shards, with its index."""
    vectors = np.random.default_rng(0).normal(size=(PER_SHARD, width)).astype("<f2")
    entry = {"kind": "vector", "size": [width]}
    info = DatasetInfo("rows", "Drawn rows", "drawn by this project", "Apache-2.0", dict.fromkeys(NAMES, entry))
    output = Output(folder, "train", info, SplitOrigin({}, rows, PER_SHARD, form))
    for number in output.missing():
        numbers = output.rows(number)
        columns = {f"{name}.f16": Column(vectors[: len(numbers)]) for name in NAMES}
        output.write(number, Table([f"text-{row:09d}" for row in numbers], columns))
    output.finish(changed=True)


def stream(folder: Path, width: int) -> Stream:
    """What training reads."""
    modalities = {name: ModalityConfig(Kind.vector, [width]) for name in NAMES}
    config = DataConfig("rows", str(folder), modalities=modalities, global_batch=BATCH, window=16, record_keys=False)
    processor = MMPretrainProcessor({name: {"kind": "vector", "size": [width]} for name in NAMES})
    return Stream(config, "train", 0, 0, 1, processor)


def batches(opened: Stream) -> None:
    """Some steps, spread over the epoch, so that shards are opened as well."""
    steps = max(1, len(opened.index) // BATCH)
    for step in np.linspace(0, steps - 1, min(BATCHES, steps)).astype(int).tolist():
        for _ in opened.batches(step, step + 1):
            pass


def sweep(folder: Path, width: int) -> None:
    """One column as a memory that stays in its files."""
    vectors = Vectors(str(folder), "train", NAMES[0])
    queries = torch.randn(QUERIES, width, generator=torch.Generator().manual_seed(0))
    soft_retrieve(queries, MappedRows(vectors, vectors.ordinals), temperature=0.01)


def measured(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds by the clock, of the processor, and what came of it."""
    clock, cpu = time.perf_counter(), time.process_time()
    found = work()
    return time.perf_counter() - clock, time.process_time() - cpu, found


def child(folder: Path, rows: int, width: int, form: ShardForm) -> dict[str, Any]:
    """All readings of one size."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {"rows": rows, "form": form.value}
    own = []
    found["write"] = measured(lambda: write(folder, rows, width, form))[:2]
    own.append(own_bytes())
    found["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    *found["open"], opened = measured(lambda: stream(folder, width))
    found["batches"] = measured(lambda: batches(opened))[:2]
    own.append(own_bytes())
    found["steps"] = min(BATCHES, max(1, rows // BATCH))
    found["sweep"] = measured(lambda: sweep(folder, width))[:2]
    found["own"] = max([*own, own_bytes()])
    return found


def own_bytes() -> int:
    """This process's own memory now, without what is mapped from files."""
    return status("RssAnon")


def lines(found: list[dict[str, Any]]) -> list[list[str]]:
    """A line per size: seconds by the clock (of the processor)."""
    made = []
    for entry in found:
        batch = [value / entry["steps"] for value in entry["batches"]]
        times = [f"{clock:.3g} ({cpu:.3g})" for clock, cpu in (entry["write"], entry["open"], batch, entry["sweep"])]
        own = f"{entry['own'] / MIB:.0f}"
        made.append([entry["form"], f"{entry['rows']:,}", f"{entry['bytes'] / 1e9:.3g}", *times, own])
    return made


def main() -> None:
    """Measure every size in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: a temporary one)")
    parser.add_argument("--quick", action="store_true", help="20,000 rows, no claims")
    parser.add_argument("--child", choices=list(ShardForm), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.folder, options.rows[0], options.width, ShardForm(options.child))))
        return
    rows = [20_000] if options.quick else options.rows
    jobs = [*((count, ShardForm.columns) for count in rows), (20_000, ShardForm.samples)]
    found = []
    for count, form in jobs:
        folder = Path(tempfile.mkdtemp(prefix="mmpretrain-columns-", dir=options.folder))
        try:
            size = ["--rows", str(count), "--width", str(options.width), "--folder", str(folder / "rows")]
            command = [sys.executable, "-m", "benchmarks.embedding_columns", "--child", form.value, *size]
            found.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
            print(f"  {found[-1]}", file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    columns = ["form", "rows", "GB", "written, s", "opened, s", "a batch, s", "swept, s", "own MiB"]
    show(f"Pair tables of {options.width} float16 numbers, by the clock (of the processor)", columns, lines(found))
    finish({"embedding_columns": found})


if __name__ == "__main__":
    main()
