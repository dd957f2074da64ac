"""Whole training steps of two small encoders under CLIP's loss: our loop beside others', without reading data.

    python -m benchmarks.step [--quick] [--worlds 1 2] [--batches 16 64 128 256] [--zero 0 1 3]
    python -m benchmarks.step --end-to-end        # with a loader: JPEGs of 256 pixels and captions, 2 ranks

Both encoders are vision transformers of 6 layers, 192 wide, on images of 4 x 8 pixels (9 tokens): 5.4 million
parameters, whose share of a step grows as the batch gets smaller. Ours is ``Engine.step`` and ``Recorder.record``, as
in training/train.py. Against it:

- a bare loop around the same DeepSpeed engine (forward, CLIP's loss by its formula, ``backward``, ``step``). Its steps
  alternate with ours in the same process, so that their ratio is that of neighbors in time;
- DeepSpeed with nothing but the stage and clipping set, and AdamW in its default form;
- PyTorch (DistributedDataParallel on several ranks) and open_clip's ``train_one_epoch``, both with our form of AdamW.

Every reading is a new group of gloo processes of one thread; readings alternate, and steps are pooled over the rounds.
Ratios are of medians of processor time; the last line is JSON.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import step_loading, step_loops
from benchmarks.measure import Reading, finish, on_group, show, slowest
from benchmarks.others import OPEN_CLIP_TRAINING, install_all
from benchmarks.step_loops import BARE, DEFAULTS, OPEN_CLIP, OURS, PYTORCH

QUICK_LIMIT_S = 140.0
Readings = dict[str, Reading]


def run_case(size: int, batch: int, options: argparse.Namespace, folders: list[Path] | None) -> dict[str, Any]:
    """All loops at this number of ranks and this batch; the table is printed."""
    jobs: dict[str, Any] = {}
    for zero in options.zero:
        jobs[f"ZeRO {zero}"] = partial(step_loops.ours_and_bare, batch, zero, options.steps)
        if not options.quick:
            jobs[f"ZeRO {zero} "] = partial(step_loops.deepspeed_defaults, batch, zero, options.steps)
    jobs[""] = partial(step_loops.pytorch, batch, 0, options.steps)
    if folders is not None:
        jobs[" "] = partial(step_loops.open_clip, batch, folders, options.steps)
    readings: Readings = {}
    for _ in range(options.repeats):
        for label, job in jobs.items():
            _pool(readings, label.strip(), _group(size, job))
    figures = _figures(readings, options.zero)
    _view(f"{size} rank(s), batch {batch}", readings)
    return {"ranks": size, "batch": batch, **figures}


def _group(size: int, job: Any) -> Readings:
    found = on_group(size, job)
    return {name: slowest([rank[name] for rank in found]) for name in found[0]}


def _pool(readings: Readings, label: str, fresh: Readings) -> None:
    for name, reading in fresh.items():
        pooled = readings.setdefault(f"{name}, {label}" if label else name, Reading())
        pooled.seconds += reading.seconds
        pooled.cpu_seconds += reading.cpu_seconds


def _figures(readings: Readings, stages: list[int]) -> dict[str, Any]:
    """Ratios by stage, and the readings themselves."""
    cpu = {name: reading.median_cpu_s for name, reading in readings.items()}
    ours = {zero: cpu[f"{OURS}, ZeRO {zero}"] for zero in stages}
    found: dict[str, Any] = {
        "overhead_vs_bare_deepspeed": {z: round(ours[z] / cpu[f"{BARE}, ZeRO {z}"] - 1, 4) for z in stages},
        "vs_pytorch": {z: round(ours[z] / cpu[PYTORCH], 3) for z in stages},
    }
    if f"{DEFAULTS}, ZeRO {stages[0]}" in cpu:
        found["vs_deepspeed_defaults"] = {z: round(ours[z] / cpu[f"{DEFAULTS}, ZeRO {z}"], 3) for z in stages}
    if OPEN_CLIP in cpu:
        found["vs_open_clip"] = {z: round(ours[z] / cpu[OPEN_CLIP], 3) for z in stages}
    found["loops"] = {name: reading.figures() for name, reading in readings.items()}
    return found


def _view(title: str, readings: Readings) -> None:
    base = readings[PYTORCH].median_cpu_s
    rows = [
        [name, f"{1000 * r.median_s:.1f}", f"{1000 * r.median_cpu_s:.1f}", f"{r.median_cpu_s / base:.2f}"]
        for name, r in readings.items()
    ]
    show(title, ["loop", "ms", "CPU ms", "times PyTorch's CPU"], rows)


def end_to_end(options: argparse.Namespace, folders: list[Path] | None) -> dict[str, Any]:
    """Whole runs on 2 ranks from shards, ours and open_clip's in turn; samples per second of all ranks."""
    batch, workers, steps = 128, options.workers, options.steps
    readings: Readings = {}
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary) / "photos"
        step_loading.make_shards(data)
        for number in range(options.repeats):
            for zero in options.zero:
                runs = Path(temporary) / f"runs{number}"
                found = on_group(2, step_loading.ours, data, runs, batch, zero, workers, steps)
                _pool(readings, f"ZeRO {zero}", {OURS: slowest(found)})
            if folders is not None:
                found = on_group(2, step_loading.open_clip, data, folders, batch, workers, steps)
                _pool(readings, "", {OPEN_CLIP: slowest(found)})
    # Loaders deliver in bursts: the whole time, not the median step.
    rates = {name: batch * len(r.seconds) / sum(r.seconds) for name, r in readings.items()}
    cpu = {name: sum(r.cpu_seconds) / len(r.cpu_seconds) for name, r in readings.items()}
    rows = [[name, f"{rates[name]:.0f}", f"{1000 * cpu[name]:.0f}"] for name in readings]
    show(f"2 ranks, batch {batch}, {workers} workers each", ["loop", "samples/s", "CPU ms per step and rank"], rows)
    ratios = {name: round(cpu[OPEN_CLIP] / seconds, 3) for name, seconds in cpu.items()} if folders else {}
    return {"samples_per_s": rates, "cpu_s": cpu, "times_open_clip_by_cpu": ratios, "workers": workers}


def arguments() -> argparse.Namespace:
    """The command line, with what --quick stands for filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 rank, batches 16 and 128; under 3 minutes")
    parser.add_argument("--worlds", type=int, nargs="+", help="numbers of processes")
    parser.add_argument("--batches", type=int, nargs="+", help="samples of all ranks")
    parser.add_argument("--zero", type=int, nargs="+", choices=range(4), default=[0, 1, 3], help="stages")
    parser.add_argument("--repeats", type=int, help="groups of processes per loop")
    parser.add_argument("--steps", type=int, help="timed steps per group")
    parser.add_argument("--end-to-end", action="store_true", help="with loaders, and nothing else")
    parser.add_argument("--workers", type=int, default=1, help="--end-to-end: loader processes per rank")
    options = parser.parse_args()
    options.worlds = options.worlds or ([1] if options.quick else [1, 2])
    options.batches = options.batches or ([16, 128] if options.quick else [16, 64, 128, 256])
    options.repeats = options.repeats or (1 if options.quick else 3)
    options.steps = options.steps or (8 if options.quick else 15)
    return options


def main() -> None:
    """Measure all cases; a table for each, and JSON at the end."""
    options = arguments()
    folders = install_all(OPEN_CLIP_TRAINING)
    if folders is None:
        print("open_clip's training loop could not be installed: it is left out")
    if options.end_to_end:
        finish({"end_to_end": end_to_end(options, folders)})
        return
    cases: list[dict[str, Any]] = []
    start = time.perf_counter()
    for size in options.worlds:
        for batch in options.batches:
            spent = time.perf_counter() - start
            if options.quick and cases and spent * (len(cases) + 1) / len(cases) > QUICK_LIMIT_S:
                print(f"batch {batch} left out: --quick has no time for it on this machine")
                continue
            cases.append(run_case(size, batch, options, folders))
    main_case = next((case for case in cases if (case["ranks"], case["batch"]) == (1, 128)), cases[0])
    ratios = {key: value for key, value in main_case.items() if key != "loops"}
    finish({**ratios, "open_clip": folders is not None, "cases": cases})


if __name__ == "__main__":
    main()
