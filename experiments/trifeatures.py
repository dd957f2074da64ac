"""Bimodal Trifeatures (Dufumier et al. 2025, arXiv 2409.07402): which method learns what two images share, what each
of them alone knows, and what is known from both together only. In a size for CPUs: 5 levels, 32 pixels.

    python -m experiments.trifeatures [--seeds 3] [--parts main controls ...] [--rows NAME ...] [--quick]

Builds the data, trains every row of the parts with seeds 0, 1, ... through the launcher, two runs side by side, and
writes tables and pictures of all complete runs to runs/trifeatures: table.md, curve.md, ablations.md, figure.png,
curve.png. Settings and lengths are fixed in trifeatures_rows.py; nothing is selected by results. Complete runs are only
read. Ends with an error if the pattern is not there. --tables trains nothing; --quick tries everything on a few hundred
pairs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.training import TrainingJob, check_dataset, evaluation, finished, train_side_by_side
from experiments.trifeatures_rows import ROWS, Part, Row
from experiments.trifeatures_tables import (
    Curves,
    Results,
    Scores,
    ablation_table,
    against_the_pattern,
    bars,
    curve_table,
    curves_picture,
    main_tables,
    orders_table,
    reference_runs,
)
from mmpretrain.records import read_evaluations
from mmpretrain.run_folder import RunFolder
from shards.trifeatures import SIZES, Size, build_trifeatures, default_folder
from shards.trifeatures_pairs import Pairs

QUICK_STEPS = 6
WHOLE_PARTS = (Part.main, Part.paper, Part.controls)  # what stands in the main table
WATCHED = "eval/test/"


def data_folders(size: Size, folder: Path) -> dict[Pairs, Path]:
    """Both datasets, built where they are missing."""
    found = {pairs: folder / default_folder(size, pairs).name for pairs in Pairs}
    samples = {"train": size.train, "probe": size.probe, "test": size.test}
    for pairs, path in found.items():
        if not check_dataset(path, samples):
            build_trifeatures(path, size, pairs)
    return found


def jobs_of(rows: Sequence[Row], folders: Mapping[Pairs, Path], seeds: int, steps: int | None) -> list[TrainingJob]:
    """Every row with every seed; all rows come with one seed before any comes with the next."""
    return [
        TrainingJob(f"{row.name}-seed{seed}", row.overrides(folders[row.pairs], steps), seed)
        for seed in range(seeds)
        for row in rows
    ]


def read(jobs: Sequence[TrainingJob], root: Path) -> tuple[Results, Curves]:
    """Scores of all complete runs, those at the end and those while training: row's name -> seed -> scores."""
    results: dict[str, dict[int, Scores]] = {}
    curves: dict[str, dict[int, dict[str, dict[int, float]]]] = {}
    for job in jobs:
        if run := finished(job, root):
            name = job.name.rpartition("-seed")[0]
            results.setdefault(name, {})[job.seed] = evaluation(run)
            watched = read_evaluations(RunFolder(run))
            curve = {key.removeprefix(WATCHED): points for key, points in watched.items() if key.startswith(WATCHED)}
            if curve:
                curves.setdefault(name, {})[job.seed] = curve
    return results, curves


def write(root: Path, results: Results, curves: Curves) -> str:
    """Tables and pictures into ``root``; the tables as one text."""
    whole = [row for row in ROWS if row.part in WHOLE_PARTS]
    ablations = [row for row in ROWS if row.part not in WHOLE_PARTS]
    texts = {
        "table.md": main_tables(whole, results) + "\n" + orders_table(results),
        "curve.md": curve_table(ROWS, curves),
        "ablations.md": ablation_table(ablations, results, reference_runs(curves)),
    }
    for name, text in texts.items():
        (root / name).write_text(text, encoding="utf-8")
    bars(whole, results).savefig(root / "figure.png", dpi=140)
    curves_picture([row for row in ROWS if row.curve], curves).savefig(root / "curve.png", dpi=140)
    return "\n".join(texts.values())


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts, names = [part.value for part in Part], [row.name for row in ROWS]
    parser.add_argument("--seeds", type=int, default=3, help="runs per row, with seeds 0, 1, ...")
    parser.add_argument("--parts", nargs="+", choices=parts, default=[Part.main.value], help="what to train")
    parser.add_argument("--rows", nargs="+", choices=names, default=[], help="these rows alone, of whatever part")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--tables", action="store_true", help="train nothing, write tables of what is complete")
    parser.add_argument("--quick", action="store_true", help="a few hundred pairs, a few steps")
    parser.add_argument("--root", type=Path, default=Path("runs/trifeatures"), help="where everything goes")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the datasets are")
    return parser


def main() -> None:
    """Build and train what is missing, then write tables and pictures."""
    options = _arguments().parse_args()
    root, size, steps = options.root, SIZES[5], None
    if options.quick:
        root, size, steps = root / "quick", replace(size, train=384, probe=384, test=384), QUICK_STEPS
    folders = data_folders(size, root / "data" if options.quick else options.data)
    wanted = [row for row in ROWS if (row.name in options.rows if options.rows else row.part in options.parts)]
    if not options.tables:
        train_side_by_side(jobs_of(wanted, folders, options.seeds, steps), root, options.at_once)
    results, curves = read(jobs_of(ROWS, folders, options.seeds, steps), root)
    print(write(root, results, curves))
    if not options.quick and (problems := against_the_pattern(results)):
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
