"""M3CoL on BRCA as the paper runs it, against cross-entropy alone, over paired seeds.

    python -m experiments.brca --source FOLDER [--seeds 5] [--root runs/brca] [--quick]

FOLDER holds the benchmark's three views (``1_tr.csv`` and so on). Full batches of 612 on one process, 500 of them, rate
5e-3. Prints the tables and writes them to the folder of ``--root``. Complete runs are only read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.living import train_living
from experiments.omics import Length, Setting, build_whole, logistic_table
from experiments.seeds import paired_table, seeds_table

SCORES = [f"classification/{score}" for score in ("accuracy", "f1_weighted", "f1_macro")]
M3COL, CROSS_ENTROPY = Setting(True, 5e-3, 0.0), Setting(False, 5e-3, 0.0)


def run(source: Path, root: Path, seeds: int, length: Length, at_once: int) -> dict[Setting, list[Path]]:
    """The runs of both objectives in the order of their seeds."""
    data = build_whole(source, root / "data", "brca")
    cases = [(setting, seed) for seed in range(seeds) for setting in (M3COL, CROSS_ENTROPY)]
    folders = train_living([s.job("brca", data, "test", seed, length) for s, seed in cases], root, at_once)
    return {s: folders[number::2] for number, s in enumerate((M3COL, CROSS_ENTROPY))}


def main() -> None:
    """Train what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with 1_tr.csv[.gz] and so on")
    parser.add_argument("--seeds", type=int, default=5, help="runs per objective, with seeds 0, 1, ...")
    parser.add_argument("--root", type=Path, default=Path("runs/brca"), help="where data and runs go")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--quick", action="store_true", help="a few steps and two seeds, in ROOT/quick: no result")
    asked = parser.parse_args()
    root, seeds = (asked.root / "quick", 2) if asked.quick else (asked.root, asked.seeds)
    runs = run(asked.source, root, seeds, Length(20, 10) if asked.quick else Length(), asked.at_once)
    difference = {"M3CoL minus cross-entropy only": (runs[M3COL], runs[CROSS_ENTROPY])}
    parts = [
        seeds_table({setting.words: folders for setting, folders in runs.items()}, SCORES),
        paired_table(difference, SCORES),
        logistic_table(asked.source, SCORES),
    ]
    text = "\n".join(parts)
    (root / "tables.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
