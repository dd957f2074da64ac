"""M3CoL on ROSMAP as the paper runs it, against cross-entropy alone, tuned on the training split, over paired seeds.

    python -m experiments.rosmap --source FOLDER [--recipe] [--folds 5] [--seeds 20] [--root runs/rosmap] [--quick]

Full batches of 245 on one process, 500 of them, with seeds 0, 1, ..., scored on the test split: the recipe of the
released code first, which is all with ``--recipe``. Then rate and dropout of the heads are chosen for either objective
by cross-validation within the training split, seed 0, and the chosen settings are trained as the recipe was. What
decides was fixed before the first run: of the grid the highest mean over the folds of the accuracy in the second half
of training (the mean of its evaluations), of equals the one with the higher mean of the area under the curve. Prints
the tables and writes them to the folder of ``--root``. Complete runs are only read, so that the command goes on where
it was stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from experiments.living import train_living
from experiments.omics import Length, Setting, build_folds, build_whole, logistic_table
from experiments.seeds import paired_table, read_run, seeds_table
from experiments.training import cell, markdown

SCORES = [f"classification/{score}" for score in ("accuracy", "f1", "roc_auc")]
RATES, DROPOUTS = (2e-3, 1e-3, 5e-4), (0.0, 0.5)
RECIPE = {contrast: Setting(contrast, 2e-3, 0.0) for contrast in (True, False)}
GRID = [Setting(*values) for values in product((True, False), RATES, DROPOUTS)]


@dataclass(frozen=True)
class Protocol:
    """How much is run. grid: of the cross-validation, finals: of the runs that are scored on the test split."""

    folds: int
    seeds: int
    grid: Length
    finals: Length
    settings: Sequence[Setting] = tuple(GRID)


def cross_validate(protocol: Protocol, source: Path, root: Path, at_once: int) -> dict[Setting, list[Path]]:
    """The runs of every setting, one per fold."""
    folds = build_folds(source, root / "data", "rosmap", protocol.folds)
    cases = list(product(protocol.settings, enumerate(folds)))
    jobs = [
        setting.job("rosmap", data, f"fold{number}of{len(folds)}", 0, protocol.grid)
        for setting, (number, data) in cases
    ]
    runs = train_living(jobs, root, at_once)
    found: dict[Setting, list[Path]] = {}
    for (setting, _), run in zip(cases, runs, strict=True):
        found.setdefault(setting, []).append(run)
    return found


def fold_scores(runs: Sequence[Path], score: str) -> list[float]:
    """What a setting is chosen by: of each fold the mean of ``score`` over the second half of training."""
    return [read_run(run, SCORES)[score].second_half for run in runs]


def chosen(grid: dict[Setting, list[Path]]) -> dict[bool, Setting]:
    """The best setting with the contrastive term (True) and without it."""

    def rank(setting: Setting) -> tuple[float, float]:
        accuracy, _, area = (float(np.mean(fold_scores(grid[setting], score))) for score in SCORES)
        return accuracy, area

    kinds = {setting.contrast for setting in grid}
    return {kind: max((s for s in grid if s.contrast is kind), key=rank) for kind in sorted(kinds, reverse=True)}


def finals(
    settings: Sequence[Setting], protocol: Protocol, source: Path, root: Path, at_once: int
) -> dict[Setting, list[Path]]:
    """The runs of every setting in the order of their seeds. Seeds come one after another, each with all settings."""
    data = build_whole(source, root / "data" / "whole", "rosmap")
    cases = [(setting, seed) for seed in range(protocol.seeds) for setting in settings]
    jobs = [setting.job("rosmap", data, "test", seed, protocol.finals) for setting, seed in cases]
    runs = train_living(jobs, root, at_once)
    return {s: [run for (other, _), run in zip(cases, runs, strict=True) if other == s] for s in settings}


def grid_table(grid: dict[Setting, list[Path]]) -> str:
    """A row per setting: mean and standard deviation over the folds, second half of training, in percent."""
    rows = [
        [setting.words, str(len(runs)), *(cell(fold_scores(runs, score), 100) for score in SCORES)]
        for setting, runs in grid.items()
    ]
    return markdown(["cross-validated on the training split", "folds", *SCORES], rows)


def tables(best: dict[bool, Setting], runs: dict[Setting, list[Path]]) -> str:
    """The scores on the test split, and their differences. best: empty if nothing was chosen."""
    rows = {f"{_role(setting, best)}: {setting.words}": folders for setting, folders in runs.items()}
    pairs = {
        f"{name}: M3CoL minus cross-entropy only": (runs[settings[True]], runs[settings[False]])
        for name, settings in (("recipe", RECIPE), ("chosen", best))
        if settings
    }
    if best:
        pairs["M3CoL: chosen minus recipe"] = runs[best[True]], runs[RECIPE[True]]
    return "\n".join([seeds_table(rows, SCORES), paired_table(pairs, SCORES)])


def main() -> None:
    """Train what is missing, then print the tables."""
    asked = _arguments().parse_args()
    quick = Protocol(2, 2, Length(20, 10), Length(20, 10), tuple(s for s in GRID if s.lr == 1e-3))
    protocol = quick if asked.quick else Protocol(asked.folds, asked.seeds, Length(500, 25), Length())
    root = asked.root / "quick" if asked.quick else asked.root
    runs = finals(list(RECIPE.values()), protocol, asked.source, root, asked.at_once)
    parts, best = [], {}
    if not asked.recipe:
        grid = cross_validate(protocol, asked.source, root, asked.at_once)
        best, parts = chosen(grid), [grid_table(grid)]
        others = [setting for setting in best.values() if setting not in runs]
        runs |= finals(others, protocol, asked.source, root, asked.at_once)
    text = "\n".join([*parts, tables(best, runs), logistic_table(asked.source, SCORES)])
    (root / "tables.md").write_text(text, encoding="utf-8")
    print(text)


def _role(setting: Setting, best: dict[bool, Setting]) -> str:
    roles = [("chosen", setting in best.values()), ("recipe", setting in RECIPE.values())]
    return " and ".join(role for role, holds in roles if holds)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with 1_tr.csv[.gz] and so on")
    parser.add_argument("--recipe", action="store_true", help="the recipe of the released code alone, nothing chosen")
    parser.add_argument("--folds", type=int, default=5, help="parts of the training split")
    parser.add_argument("--seeds", type=int, default=20, help="runs per setting, with seeds 0, 1, ...")
    parser.add_argument("--root", type=Path, default=Path("runs/rosmap"), help="where data and runs go")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side, one thread each")
    parser.add_argument("--quick", action="store_true", help="a few steps, folds and seeds, in ROOT/quick: no result")
    return parser


if __name__ == "__main__":
    main()
