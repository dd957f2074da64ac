"""The omics experiments on drawn tables: folds of the training split, the choice by them, the linear row, the runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import brca
from experiments.living import train_living
from experiments.omics import Length, Matrices, Setting, build_folds, build_whole, logistic_scores, logistic_table
from experiments.rosmap import GRID, RECIPE, SCORES, chosen, tables
from experiments.seeds import read_run
from mmpretrain.data.index import load_index
from mmpretrain.data.info import load_info
from mmpretrain.run_folder import RunFolder, State, read_lines

ACCURACY, F1, AREA = SCORES
TRAIN, TEST, FEATURES = 24, 10, 200


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables in the layout of the benchmark; a class shows in the first features of every view."""
    folder, draw = tmp_path_factory.mktemp("omics"), np.random.default_rng(0)
    for split, count in (("tr", TRAIN), ("te", TEST)):
        labels = np.arange(count) % 2
        np.savetxt(folder / f"labels_{split}.csv", labels, fmt="%d")
        for view in (1, 2, 3):
            values = draw.random((count, FEATURES))
            values[:, :20] += labels[:, None]
            np.savetxt(folder / f"{view}_{split}.csv", values, delimiter=",")
    return folder


def scored(folder: Path, accuracy: float, area: float) -> Path:
    """A run folder with one evaluation."""
    folder.mkdir(parents=True)
    line = {"step": 10, f"eval/test/{ACCURACY}": accuracy, f"eval/test/{F1}": 0.5, f"eval/test/{AREA}": area}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def test_folds_are_stratified_parts_of_the_training_split_with_statistics_of_their_own(
    source: Path, tmp_path: Path
) -> None:
    folders, found = build_folds(source, tmp_path, "rosmap", 4), Matrices.read(source)
    assert [len(load_index(folder / "train")) for folder in folders] == [18] * 4
    held_out = [np.loadtxt(tmp_path / "tables" / folder.name / "1_te.csv", delimiter=",") for folder in folders]
    everyone = np.concatenate(held_out).astype(np.float32)
    assert {row.tobytes() for row in everyone} == {row.tobytes() for row in found.train["mrna"]}
    for folder in folders:
        tables_of = tmp_path / "tables" / folder.name
        assert np.loadtxt(tables_of / "labels_te.csv").mean() == 0.5
        kept = np.loadtxt(tables_of / "1_tr.csv", delimiter=",").astype(np.float32)
        statistics = load_info(folder).statistics["mrna"]
        assert statistics["maximum"] == pytest.approx(kept.max(axis=0).tolist())


def test_the_linear_row_reads_what_is_in_the_tables(source: Path) -> None:
    assert logistic_table(source, SCORES).count("| 100.00 | 100.00 | 100.00 |") == 2
    scores, strength = logistic_scores(Matrices.read(source), "accuracy")
    assert scores["accuracy"] == scores["roc_auc"] == 1.0 and 1e-4 <= strength <= 100


def test_the_setting_with_the_best_folds_is_chosen_and_the_area_decides_between_equals(tmp_path: Path) -> None:
    values = {setting: (0.6, 0.6) for setting in GRID}
    values[GRID[1]], values[GRID[2]] = (0.8, 0.7), (0.8, 0.9)
    values[GRID[9]] = (0.7, 0.5)
    grid = {s: [scored(tmp_path / f"{n}-{fold}", *values[s]) for fold in (0, 1)] for n, s in enumerate(GRID)}
    best = chosen(grid)
    assert best == {True: GRID[2], False: GRID[9]} and GRID[2].contrast and not GRID[9].contrast
    runs = {s: [scored(tmp_path / s.name / str(seed), 0.5, 0.5) for seed in (0, 1)] for s in best.values()}
    runs |= {
        s: [scored(tmp_path / s.name / str(seed), 0.4 + 0.1 * seed, 0.5) for seed in (0, 1)] for s in RECIPE.values()
    }
    assert f"| M3CoL: chosen minus recipe | 2 | {ACCURACY} | +5.00 ± 5.00 |" in tables(best, runs)


@pytest.mark.slow
@pytest.mark.processes
def test_brca_runs_on_tables_of_its_layout(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for split, count in (("tr", 20), ("te", 10)):
        np.savetxt(tmp_path / f"labels_{split}.csv", np.arange(count) % 5, fmt="%d")
        for view, features in ((1, 1000), (2, 1000), (3, 503)):
            np.savetxt(tmp_path / f"{view}_{split}.csv", draw.random((count, features)), delimiter=",", fmt="%.4f")
    runs = brca.run(tmp_path, tmp_path / "runs", 1, Length(4, 2), 2)
    assert set(runs) == {brca.M3COL, brca.CROSS_ENTROPY}
    for folders in runs.values():
        assert set(read_run(folders[0], brca.SCORES)) == set(brca.SCORES)


@pytest.mark.slow
@pytest.mark.processes
def test_runs_of_one_living_process_are_whole_runs_and_are_not_made_twice(source: Path, tmp_path: Path) -> None:
    data = build_whole(source, tmp_path / "data", "rosmap")
    jobs = [Setting(contrast, 1e-3, 0.5).job("rosmap", data, "test", 0, Length(4, 2)) for contrast in (True, False)]
    folders = train_living(jobs, tmp_path / "runs")
    losses = []
    for folder in folders:
        assert RunFolder(folder).status()["state"] == State.completed.value and not (folder / "checkpoints").exists()
        lines = list(read_lines(folder / "metrics.jsonl"))
        assert [line["step"] for line in lines if f"eval/test/{ACCURACY}" in line] == [2, 4]
        losses.append(next(set(line) for line in lines if "loss" in line))
    assert "loss/m3co" in losses[0] and "loss/m3co" not in losses[1]
    stamps = [(folder / "metrics.jsonl").stat().st_mtime_ns for folder in folders]
    assert train_living(jobs, tmp_path / "runs") == folders
    assert [(folder / "metrics.jsonl").stat().st_mtime_ns for folder in folders] == stamps
