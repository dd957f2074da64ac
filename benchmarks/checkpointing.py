"""How long training stands still for a checkpoint: written at once, and written beside training.

    python -m benchmarks.checkpointing [--quick] [--ranks 2] [--zero 1] [--rounds 7] [--folder /somewhere]

Two vision transformers of 6 layers under CLIP's loss, of a width that gives each rank at least 200 MB of state
(weights, their float32 share and two moments). Rounds alternate in the same processes: steps without a checkpoint, one
written at once and steps after it, one written beside training and steps while that is under way. The stall is what the
slowest rank spends in the call; the ratio is of medians. Every checkpoint is flushed to the disk of ``--folder`` and
hashed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import MIB, finish, on_group, show
from benchmarks.methods import TOKENS
from benchmarks.step_loops import our_loop
from mmpretrain.config.compose import compose
from mmpretrain.engine import checkpoint_files
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.saving import Saved, Saving
from mmpretrain.methods.build import build_method

PLAIN, AT_ONCE, BESIDE = "no checkpoint", "at once", "beside training"
BATCH, WARM_UP = 16, 3


@dataclass
class Times:
    """Of one rank. stalls: seconds per save. steps, cpu: of each step of such a round, cpu with that of threads.

    complete: seconds from the call until the checkpoint was there, on rank 0.
    """

    stalls: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    complete: list[float] = field(default_factory=list)


def measured(width: int, zero: int, rounds: int, steps: int, folder: str) -> tuple[dict[str, Times], float]:
    """On one rank: the times of each way, and its bytes of state in MiB."""
    sizes = [
        f"model.encoders.{name}.config.{key}={value}"
        for name in ("left", "right")
        for key, value in (("hidden_size", width), ("intermediate_size", 4 * width))
    ]
    config = compose([*TOKENS, *sizes, "method=clip", f"data.global_batch={BATCH}", f"engine.zero={zero}"])
    config.checkpoint.keep_last = 1
    torch.manual_seed(0)
    engine = Engine(config, build_method(config))
    times = {name: Times() for name in (PLAIN, AT_ONCE, BESIDE)}
    checkpoints = Path(folder) / "checkpoints"
    saved: list[Saved] = []
    saving = Saving(engine, checkpoints, saved.append)
    with tempfile.TemporaryDirectory() as records:
        step = our_loop(engine, Path(records))
        for _ in range(WARM_UP):
            step()
        saving.start(1, {})  # takes the memory that later ones use again
        number = 1
        for _ in range(rounds):
            for name, found in times.items():
                saving.join()
                engine.world.barrier()
                number += 1
                began = time.perf_counter()
                if name != PLAIN:
                    (saving.save if name == AT_ONCE else saving.start)(number, {})
                    found.stalls.append(time.perf_counter() - began)
                for _ in range(steps):
                    _timed(step, found)
                saving.join()
                found.complete += [saved[-1].seconds] if saved else []
    folder_of_last = checkpoint_files.step_folder(checkpoints, checkpoint_files.steps(checkpoints)[0])
    mine = [path for path in folder_of_last.rglob("*.pt") if _writer(path) == engine.world.rank]
    size = sum(path.stat().st_size for path in mine) / MIB
    engine.close()
    return times, size


def _timed(step: Any, found: Times) -> None:
    before, cpu = time.perf_counter(), time.process_time()
    step()
    found.steps.append(time.perf_counter() - before)
    found.cpu.append(time.process_time() - cpu)


def _writer(path: Path) -> int:
    return int(path.name.split("_")[3]) if path.name.startswith(("zero_pp_rank", "bf16_zero_pp_rank")) else 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds on new processes; the table is printed."""
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = on_group(options.ranks, measured, options.width, options.zero, options.rounds, options.steps, folder)
    ranks, sizes = [times for times, _ in found], [size for _, size in found]
    figures: dict[str, dict[str, float]] = {}
    for name in (PLAIN, AT_ONCE, BESIDE):
        slowest = {
            kind: [max(values) for values in zip(*(getattr(rank[name], kind) for rank in ranks), strict=True)]
            for kind in ("stalls", "steps", "cpu")
        }
        slowest["complete"] = ranks[0][name].complete if name != PLAIN else []
        figures[name] = {kind: round(statistics.median(v), 4) for kind, v in slowest.items() if v}
    columns = ["checkpoint", "stall, s", "complete after, s", "step, ms", "step, CPU ms"]
    rows = [
        [
            name,
            *(f"{f[kind]:.3f}" if kind in f else "" for kind in ("stalls", "complete")),
            f"{1000 * f['steps']:.0f}",
            f"{1000 * f['cpu']:.0f}",
        ]
        for name, f in figures.items()
    ]
    title = f"{options.ranks} rank(s), ZeRO {options.zero}, {' and '.join(f'{s:.0f}' for s in sizes)} MiB of state"
    show(title, columns, rows)
    ratio = round(figures[BESIDE]["stalls"] / figures[AT_ONCE]["stalls"], 3)
    return {"ranks": options.ranks, "zero": options.zero, "mib": sizes, "stall_ratio": ratio, "figures": figures}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds of a smaller model; under a minute")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--zero", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="after each save")
    parser.add_argument("--width", type=int, default=512, help="of both encoders")
    parser.add_argument("--folder", default=None, help="where checkpoints are written; default: the temporary folder")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.width = 3, 192
    return options


if __name__ == "__main__":
    finish(run(arguments()))
