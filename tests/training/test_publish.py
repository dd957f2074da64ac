"""What the card of a run is told of the ranks that trained it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmpretrain.config.compose import compose
from mmpretrain.hub.card_facts import TrainingFacts
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.publish import training_facts

SIZES = [{"step": 0, "ranks": 2, "zero": 1, "precision": "float32"}]
THEN = [*SIZES, {"step": 40, "ranks": 4, "zero": 3, "precision": "float32"}]


def facts(folder: Path, steps: int, sizes: list[dict[str, Any]]) -> TrainingFacts:
    """Of a run with 36 samples a step that made one step a second, twice as many from step 41 on."""
    lines = [{"step": step, "samples_per_s": 36.0 if step <= 40 else 72.0} for step in range(1, 61)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    config = compose(["method=clip", "data.global_batch=36"])
    return training_facts(RunFolder(folder), config, steps, 4, None, None, sizes)


def test_processes_count_for_as_long_as_they_trained(tmp_path: Path) -> None:
    found = facts(tmp_path, 60, THEN)
    assert found.hours == pytest.approx((40 * 2 + 10 * 4) / 3600)
    assert found.sizes == "2 ranks (ZeRO 1, float32) until step 40, then 4 ranks (ZeRO 3, float32)"


def test_a_size_that_is_unmeasured_leaves_the_hours_out(tmp_path: Path) -> None:
    assert facts(tmp_path, 80, [*THEN, {**SIZES[0], "step": 70}]).hours is None


def test_a_run_of_one_size_has_nothing_to_tell(tmp_path: Path) -> None:
    assert facts(tmp_path, 40, THEN).sizes is None and facts(tmp_path, 40, THEN).hours is not None
