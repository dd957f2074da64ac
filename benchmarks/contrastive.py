"""Forward and backward pass of the symmetric InfoNCE loss: ours, open_clip's, and the bare matrix products.

    python -m benchmarks.contrastive [--quick] [--worlds 1 2 4] [--batches 2048 8192 16384 32768] [--forms NAME ...]

Every reading is a group of new processes of one thread each; forms alternate over three repetitions. Time is that of
the slowest rank, memory that of the largest one: peak resident memory over the steps, less that before the first one.
What is predicted to need more than 60 % of the machine's memory is left out and named. The last line is JSON.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.forms import CLIP, FORMS, KEPT, LIMITS, OUR_SIGMOID, OURS, SIGLIP, Inputs
from benchmarks.measure import Reading, finish, fits, interleaved, measure, on_group, show, slowest
from benchmarks.others import OPEN_CLIP, install

QUICK_FORMS = [OURS, KEPT, CLIP, *LIMITS[4]]
QUICK_LIMIT_S = 140.0
SMALL_BATCH = 512
WARM_UP_ROWS = 8192  # of the whole batch: beyond, a step takes seconds, and one of SMALL_BATCH rows has to do before it
AGREEMENT = 1e-5  # relative, between the losses of exact forms

REFERENCES = {"softmax": CLIP, "sigmoid": SIGLIP}

Case = tuple[int, int]  # ranks, rows of the whole batch


def on_rank(form: str, batch: int, width: int, open_clip: Path | None, steps: int, warm_up: bool) -> Reading:
    """One form on this rank of a group, and, where it rounds, its gradient's relative error beside ours in float32."""
    inputs = Inputs.make(batch, width, open_clip)
    small = Inputs.make(min(batch, SMALL_BATCH), width, open_clip)
    build = FORMS[form].build
    reading = measure(lambda: build(inputs), lambda: build(small), steps, warm_up)
    if not FORMS[form].exact:
        rounded = inputs.query.grad
        FORMS[OURS].build(inputs)()
        assert rounded is not None and inputs.query.grad is not None
        reading.error = ((rounded - inputs.query.grad).norm() / inputs.query.grad.norm()).item()
    return reading


def check_agreement(readings: dict[str, Reading]) -> None:
    """Raises RuntimeError when two exact forms of one loss differ: then their times say nothing."""
    for family in {FORMS[name].family for name in readings} - {"products"}:
        losses = {name: r.loss for name, r in readings.items() if FORMS[name].family == family and FORMS[name].exact}
        if losses and max(losses.values()) - min(losses.values()) > AGREEMENT * abs(max(losses.values())):
            raise RuntimeError(f"forms of one loss differ: {losses}")


def summary(readings: dict[str, Reading]) -> dict[str, float | None]:
    """Ratios of one case, None where one side was not measured."""
    times = {name: reading.median_s for name, reading in readings.items()}
    peaks = {name: reading.peak_mib for name, reading in readings.items()}
    cpu = {name: reading.median_cpu_s for name, reading in readings.items()}
    limits = {count: min((times[n] for n in names if n in times), default=None) for count, names in LIMITS.items()}
    cpu_limit = min((cpu[name] for name in LIMITS[4] if name in cpu), default=None)
    return {
        "speedup_vs_open_clip": _ratio(times.get(CLIP), times.get(OURS)),
        "memory_vs_open_clip": _ratio(peaks.get(OURS), peaks.get(CLIP)),
        "time_vs_matmul_limit": _ratio(times.get(OURS), limits[4]),
        "kept_speedup_vs_open_clip": _ratio(times.get(CLIP), times.get(KEPT)),
        "kept_time_vs_matmul_limit": _ratio(times.get(KEPT), limits[3]),
        "cpu_speedup_vs_open_clip": _ratio(cpu.get(CLIP), cpu.get(OURS)),
        "cpu_time_vs_matmul_limit": _ratio(cpu.get(OURS), cpu_limit),
        "sigmoid_speedup_vs_open_clip": _ratio(times.get(SIGLIP), times.get(OUR_SIGMOID)),
        "sigmoid_memory_vs_open_clip": _ratio(peaks.get(OUR_SIGMOID), peaks.get(SIGLIP)),
    }


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else round(above / below, 3)


def view(case: Case, readings: dict[str, Reading], left_out: list[str]) -> None:
    """The table of one case."""
    rows = []
    for name, reading in readings.items():
        family = FORMS[name].family
        reference = readings.get(REFERENCES.get(family, ""))
        speed, memory, peak, loss = "", "", f"{reading.peak_mib:.0f}", f"{reading.loss:.6f}"
        if family == "products":
            peak, loss = "", ""
        if reference is not None:
            speed = f"{reference.median_s / reading.median_s:.2f}"
            memory = f"{reading.peak_mib / reference.peak_mib:.3f}"
        error = "" if reading.error is None else f"{reading.error:.1e}"
        times = [f"{reading.median_s:.3f}", f"{reading.median_cpu_s:.3f}"]
        rows.append([name, *times, speed, peak, memory, loss, error])
    rows += [[name, "left out: more than 60 % of this machine's memory", *[""] * 6] for name in left_out]
    columns = ["form", "s", "CPU s", "speed-up", "MiB", "memory ratio", "loss", "error of gradient"]
    show(f"{case[0]} ranks, {case[1]} rows; beside {' or '.join(REFERENCES.values())}", columns, rows)


def run_case(case: Case, options: argparse.Namespace, open_clip: Path | None) -> dict[str, Any]:
    """Measure and show one case; what JSON says of it."""
    size, batch = case
    named = [name for name in options.forms if open_clip is not None or not name.startswith("open_clip")]
    left_out = [name for name in named if not fits(FORMS[name].predicted_bytes(batch, size, options.width))]
    warm_up = batch <= WARM_UP_ROWS and not options.quick
    settings = (batch, options.width, open_clip, options.steps, warm_up)
    jobs = {name: partial(_group, size, name, settings) for name in named if name not in left_out}
    readings = interleaved(jobs, options.repeats, QUICK_LIMIT_S if options.quick else float("inf"))
    view(case, readings, left_out)
    check_agreement(readings)
    figures = {name: reading.figures() for name, reading in readings.items()}
    return {"ranks": size, "batch": batch, **summary(readings), "forms": figures, "left_out": left_out}


def _group(size: int, name: str, settings: tuple[Any, ...]) -> Reading:
    return slowest(on_group(size, on_rank, name, *settings))


def arguments() -> argparse.Namespace:
    """The command line, with what --quick stands for filled in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 ranks, 16384 rows, the main forms; under 3 minutes")
    parser.add_argument("--worlds", type=int, nargs="+", help="numbers of processes")
    parser.add_argument("--batches", type=int, nargs="+", help="rows of the whole batch")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), metavar="NAME", help=f"of: {'; '.join(FORMS)}")
    parser.add_argument("--width", type=int, default=512, help="numbers per embedding")
    parser.add_argument("--repeats", type=int, default=3, help="groups of processes per form")
    parser.add_argument("--steps", type=int, default=1, help="timed steps per group")
    options = parser.parse_args()
    options.worlds = options.worlds or ([2] if options.quick else [1, 2, 4])
    options.batches = options.batches or ([16384] if options.quick else [2048, 8192, 16384, 32768])
    options.forms = options.forms or (QUICK_FORMS if options.quick else list(FORMS))
    return options


def main() -> None:
    """Measure all cases; a table for each, and JSON at the end: ratios of 2 ranks and 16384 rows, where measured."""
    options = arguments()
    open_clip = install(OPEN_CLIP)
    if open_clip is None:
        print(f"{OPEN_CLIP} could not be installed: nothing to compare with")
    cases = [run_case((size, batch), options, open_clip) for size in options.worlds for batch in options.batches]
    main_case = next((case for case in cases if (case["ranks"], case["batch"]) == (2, 16384)), cases[0])
    at = {key: main_case[key] for key in ("ranks", "batch")}
    ratios = {key: value for key, value in main_case.items() if key.endswith(("open_clip", "limit"))}
    finish({**ratios, "at": at, "open_clip": open_clip and OPEN_CLIP, "cases": cases})


if __name__ == "__main__":
    main()
