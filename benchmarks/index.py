"""Start, resume and memory of one rank by the number of samples: 1e6, 1e7 and 1e9 of them.

    python -m benchmarks.index [--quick] [--repeats 3] [--folder FOLDER]

Every shard has 10,000 samples (a JPEG of 32 pixels and a caption) and all of them are the same bytes: one tar and its
file of columns, under as many names as there are shards, by hard links. Of a billion samples, 100,000 shards stand in
the manifest, whose lines differ by the name, and only those have files that the first batches read. So what is measured
is what a rank does by shard (reading the manifest, its fingerprint, the plan), and real reading of the first batches
with hashing of every shard that they touch; what is not measured is a cold disk. Each reading is a new process: the
seconds are those after its imports, its memory is the most that was resident, imports and mapped files included.

``version 1`` is the index of 0.1, one JSON of all keys and spans, of the same million samples, read by today's code,
which keeps it in arrays: 0.1 itself needed more memory. The last line is JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measure import MIB, finish, reset_peak, show, status
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.data.index import Index, build_index, load_index
from mmpretrain.data.index_build import INDEX_NAME
from mmpretrain.data.index_earlier import canonical_json, earlier_fingerprint
from mmpretrain.data.index_store import FOLDER, file_of
from mmpretrain.data.index_text import to_text
from mmpretrain.data.plan import Plan
from mmpretrain.data.stream import Stream
from mmpretrain.data.writing import RawSample, write_shard

PER_SHARD, PIXELS, BATCH, STEPS, SEED = 10_000, 32, 256, 4, 0
SIZES = {"1e6": 10**6, "1e7": 10**7, "1e9": 10**9}
EARLIER = "1e6, version 1"
RESUMED_AT = 0.7  # of an epoch
TARGETS = {"first_batch_s": 2.0, "rss_mb": 1000.0}


def settings(folder: Path) -> DataConfig:
    """Defaults but for what is read."""
    modalities = {"image": ModalityConfig(Kind.image, [PIXELS, PIXELS]), "caption": ModalityConfig(Kind.text)}
    return DataConfig(name="synthetic", path=str(folder), modalities=modalities, global_batch=BATCH, workers=0)


def make_one(folder: Path) -> Index:
    """The shard that all others are links of."""
    folder.mkdir()
    random = np.random.default_rng(SEED)
    images = []
    for pixels in random.integers(0, 256, (64, PIXELS, PIXELS, 3), dtype=np.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG")
        images.append(file.getvalue())
    rows: Iterator[RawSample] = (
        {"__key__": f"{n:09d}", "image.jpg": images[n % 64], "caption.txt": b"number %d" % n} for n in range(PER_SHARD)
    )
    write_shard(folder / "one.tar", rows)
    return build_index(folder)


def make_many(root: Path, one: Index, samples: int) -> Path:
    """A data set of so many samples: its manifest, and links for the shards that :func:`read` touches."""
    train, count = root / "train", samples // PER_SHARD
    (train / FOLDER).mkdir(parents=True)
    (shard,) = one.shards
    index = Index(train, [replace(shard, name=f"shard-{number:06d}.tar") for number in range(count)])
    (train / INDEX_NAME).write_text(to_text(index))
    plan = Plan((PER_SHARD,) * count, SEED, settings(root).window, BATCH)
    used = {number for start in (0, resumed(samples)) for number in plan.shards_ahead(start * BATCH, windows=1)}
    for number in sorted(used) if count > 1000 else range(count):
        name = index.shards[number].name
        os.link(one.path(shard), train / name)
        os.link(f"{one.folder}/{file_of(shard.name)}", train / file_of(name))
    return root


def make_earlier(root: Path, made: Path) -> Path:
    """The same data set with an index of version 1."""
    train = root / "train"
    train.mkdir(parents=True)
    index = load_index(made / "train")
    for shard in index.shards:
        os.link(index.path(shard), train / shard.name)
    lines = ",\n".join(map(canonical_json, index.shards))
    head = f'"version":1,"fingerprint":"{earlier_fingerprint(index.shards)}"'
    (train / INDEX_NAME).write_text(f'{{{head},"shards":[\n{lines}\n]}}\n')
    return root


def resumed(samples: int) -> int:
    """The step at which a run goes on."""
    return int(samples * RESUMED_AT) // BATCH


def read(root: Path, step: int) -> dict[str, float]:
    """In a new process: open the stream as training does, compare the fingerprint, and read a few steps."""
    data = settings(root)
    before = reset_peak()
    start, cpu = time.perf_counter(), time.process_time()
    load_index(root / "train")
    loaded = time.perf_counter() - start
    start, cpu = time.perf_counter(), time.process_time()
    stream = Stream(data, "train", SEED, 0, 1, dict)
    assert stream.index.is_known_as(stream.index.fingerprint)
    opened, opened_bytes = time.perf_counter() - start, status("VmRSS")
    batches = stream.batches(step, step + STEPS)
    assert len(next(batches).keys) == BATCH
    first, first_cpu = time.perf_counter() - start, time.process_time() - cpu
    assert sum(len(batch.keys) for batch in batches) == BATCH * (STEPS - 1)
    return {
        "load_s": loaded,
        "open_s": opened,
        "first_batch_s": first,
        "first_batch_cpu_s": first_cpu,
        "index_mb": (opened_bytes - before) / MIB,
        "rss_mb": status("VmHWM") / MIB,
    }


def in_a_process(root: Path, step: int) -> dict[str, float]:
    """:func:`read` in a new process."""
    command = [sys.executable, "-m", "benchmarks.index", "--read", str(root), "--step", str(step)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(folders: dict[str, Path], repeats: int) -> dict[str, dict[str, float]]:
    """Form -> medians over rounds in which every form starts once, and resumes once."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in folders}
    for _ in range(repeats):
        for name, root in folders.items():
            first = in_a_process(root, 0)
            again = in_a_process(root, resumed(SIZES[name.partition(",")[0]]))
            resume = {"resume_s": again["first_batch_s"], "resume_rss_mb": again["rss_mb"]}
            found[name].append({**first, **resume})
            said = f"{first['first_batch_cpu_s']:.2f} s of the processor, {first['rss_mb']:.0f} MB"
            print(f"  {name}: {said}", file=sys.stderr, flush=True)
    return {
        name: {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}
        for name, rows in found.items()
    }


def main() -> None:
    """Make the data sets, measure in turn, print a table and the targets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to make the data sets (default: a temporary folder)")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--step", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read, options.step)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        one = make_one(Path(folder) / "one")
        folders = {name: make_many(Path(folder) / name, one, samples) for name, samples in SIZES.items()}
        folders[EARLIER] = make_earlier(Path(folder) / "earlier", folders["1e6"])
        result = measured(folders, 1 if options.quick else options.repeats)
        sizes: dict[str, Any] = {name: (root / "train" / INDEX_NAME).stat().st_size for name, root in folders.items()}
    columns = ["load_s", "open_s", "first_batch_s", "first_batch_cpu_s", "resume_s", "index_mb", "rss_mb"]
    rows = [[name, f"{sizes[name] / 1e6:.1f}", *(f"{entry[c]:.2f}" for c in columns)] for name, entry in result.items()]
    show("one rank, by samples", ["samples", "index.json, MB", *columns], rows)
    met = {key: result["1e9"][key] <= target for key, target in TARGETS.items()}
    finish({"readings": result, "manifest_bytes": sizes, "targets": TARGETS, "met": met})


if __name__ == "__main__":
    main()
