"""The loads of two methods at large batches: CoMM's five NT-Xent pairs, FactorCL's six critics; ours and dense.

    python -m benchmarks.loads [--quick] [--world 2] [--batch 8192] [--critic-batch 384] [--anchors 64]

CoMM: six views [b, 256], 2 n + 1 = 5 pairs. FactorCL: six critics of 512 units, whose dense form fits no machine at
8192 rows: both are measured at --critic-batch rows; ours also as one rank of many with --anchors rows of its own
and the candidates of all --batch rows, the others' being copies of its own. Every reading is a group of new processes
of one thread each; memory as in benchmarks/contrastive.py. The last line is JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import load_forms as forms
from benchmarks.measure import (
    MIB,
    Reading,
    Step,
    finish,
    fits,
    interleaved,
    measure,
    on_group,
    show,
    slowest,
)
from mmpretrain.config.objective import ObjectiveConfig

SMALL_ROWS = 16
QUICK_LIMIT_S = 120.0
AGREEMENT = 1e-4  # relative, between the losses of two forms

BUILDS: dict[str, Callable[..., Step]] = {
    "ours": partial(forms.comm_ours, settings=ObjectiveConfig(keep_mb=0)),
    "ours, kept": partial(forms.comm_ours, settings=ObjectiveConfig(keep_mb=10**6)),
    "dense": forms.comm_dense,
    "critics, ours": forms.critics_ours,
    "critics, dense": forms.critics_dense,
}


def on_rank(form: str, rows: int, steps: int, warm_up: bool, made_up: int | None = None) -> Reading:
    """One form on this rank; made_up: number of ranks of a made-up group."""
    build = BUILDS[form] if made_up is None else partial(BUILDS[form], world_size=made_up)
    small = partial(BUILDS[form], SMALL_ROWS)
    return measure(partial(build, rows), small, steps, warm_up)


def compare(batch: int, size: int, ours: list[str], dense: str, predicted: float, options: Any) -> dict[str, Reading]:
    """Readings of all forms at this batch; the dense one only where it is predicted to fit."""
    names = [*ours, dense] if fits(predicted) else ours
    jobs = {name: partial(_group, size, name, batch // size, options) for name in names}
    readings = interleaved(jobs, options.repeats, QUICK_LIMIT_S / 2 if options.quick else float("inf"))
    losses = [reading.loss for reading in readings.values()]
    if max(losses) - min(losses) > AGREEMENT * max(map(abs, losses)):
        raise RuntimeError(f"forms of one objective differ at {batch} rows: {losses}")
    return readings


def _group(size: int, name: str, rows: int, options: argparse.Namespace, made_up: int | None = None) -> Reading:
    return slowest(on_group(size, on_rank, name, rows, options.steps, not options.quick, made_up))


def view(title: str, readings: dict[str, Reading], dense: str, predicted: float, size: int) -> dict[str, Any]:
    """Show a comparison; what JSON says of it."""
    reference = readings.get(dense)
    rows = []
    for name, reading in readings.items():
        ratios = ["", ""]
        if reference is not None:
            speed, memory = reference.median_s / reading.median_s, reading.peak_mib / reference.peak_mib
            ratios = [f"{speed:.2f}", f"{memory:.4f}"]
        times = [f"{reading.median_s:.2f}", f"{reading.median_cpu_s:.2f}"]
        rows.append([name, *times, ratios[0], f"{reading.peak_mib:.0f}", ratios[1]])
    rows.append([f"{dense}, predicted", "", "", "", f"{predicted / size / MIB:.0f}", ""])
    show(title, ["form", "s", "CPU s", "speed-up", "MiB per rank", "memory ratio"], rows)
    figures = {name: reading.figures() for name, reading in readings.items()}
    return {"forms": figures, "dense_predicted_mib": round(predicted / size / MIB)}


def comm(options: argparse.Namespace) -> dict[str, Any]:
    """CoMM's shape."""
    predicted = forms.comm_dense_bytes(options.batch)
    readings = compare(options.batch, options.world, ["ours", "ours, kept"], "dense", predicted, options)
    title = f"CoMM: 5 NT-Xent pairs, {options.batch} rows, {options.world} ranks"
    return view(title, readings, "dense", predicted, options.world)


def critics(options: argparse.Namespace) -> dict[str, Any]:
    """FactorCL's shape, where the dense form fits."""
    batch, dense = options.critic_batch, "critics, dense"
    predicted = forms.critics_dense_bytes(batch)
    readings = compare(batch, options.world, ["critics, ours"], dense, predicted, options)
    return view(f"FactorCL: 6 critics, {batch} rows, {options.world} ranks", readings, dense, predicted, options.world)


def critics_at_size(options: argparse.Namespace) -> dict[str, Any]:
    """FactorCL's shape on one rank of many."""
    ranks = options.batch // options.anchors
    jobs = {"critics, ours": partial(_group, 1, "critics, ours", options.anchors, options, ranks)}
    readings = interleaved(jobs, options.repeats, QUICK_LIMIT_S / 4 if options.quick else float("inf"))
    predicted = forms.critics_dense_bytes(options.batch)
    title = f"FactorCL: 6 critics, one of {ranks} ranks: {options.anchors} anchors, {options.batch} candidates"
    return view(title, readings, "critics, dense", predicted, ranks)


def main() -> None:
    """Three tables, and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller critics' load, one step each; under 3 minutes")
    parser.add_argument("--world", type=int, default=2, help="number of processes")
    parser.add_argument("--batch", type=int, default=8192, help="rows of the whole batch")
    parser.add_argument("--critic-batch", type=int, help="the same where critics are compared")
    parser.add_argument("--anchors", type=int, help="rows of the one rank of many")
    parser.add_argument("--repeats", type=int, default=3, help="groups of processes per form")
    parser.add_argument("--steps", type=int, default=1, help="timed steps per group")
    options = parser.parse_args()
    options.critic_batch = options.critic_batch or (256 if options.quick else 384)
    options.anchors = options.anchors or (8 if options.quick else 64)
    sizes = {key: getattr(options, key) for key in ("world", "batch", "critic_batch", "anchors")}
    finish({**sizes, "comm": comm(options), "critics": critics(options), "critics_at_size": critics_at_size(options)})


if __name__ == "__main__":
    main()
