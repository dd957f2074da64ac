"""Tables over the seeds of an experiment, and the three readings of one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments.seeds import read_run, seeds_table

ACCURACY, AUC = "classification/accuracy", "classification/roc_auc"


def write_run(folder: Path, accuracies: list[float], aucs: list[float]) -> Path:
    """A run folder whose metrics hold these scores, one evaluation each."""
    folder.mkdir(parents=True)
    lines = [
        {"step": 10 * (i + 1), f"eval/test/{ACCURACY}": accuracy, f"eval/test/{AUC}": auc}
        for i, (accuracy, auc) in enumerate(zip(accuracies, aucs, strict=True))
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_three_readings_of_a_curve(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.5, 0.9, 0.8, 0.7], [0.6, 0.7, 0.95, 0.8])
    found = read_run(run, [ACCURACY, AUC])
    assert found[ACCURACY].last == 0.7
    assert found[ACCURACY].second_half == pytest.approx((0.9 + 0.8 + 0.7) / 3)  # steps 20, 30, 40 of 40
    assert found[ACCURACY].best == 0.9
    assert found[AUC].best == 0.7  # where the accuracy is best, not where it is best itself


def test_table_over_seeds(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, [0.5, last], [0.5, 0.5]) for name, last in (("a", 0.7), ("b", 0.8))]
    row = seeds_table({"m3col": runs}, [ACCURACY]).splitlines()[-1]
    assert row == "| m3col | 2 | classification/accuracy | 75.00 ± 7.07 | 62.50 ± 3.54 | 75.00 ± 7.07 |"


def test_missing_evaluation_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0.5], [0.5])
    with pytest.raises(ValueError, match=r"no evaluation of linear_probe/left/accuracy on test.*evaluation\.during"):
        read_run(run, ["linear_probe/left/accuracy"])
