"""Learning-rate schedules are functions of the samples seen."""

from __future__ import annotations

import pytest

from mmpretrain.config.engine import OptimConfig, Schedule
from mmpretrain.engine.schedule import lr_factor


def test_warm_up_is_linear_and_never_zero_at_the_first_step() -> None:
    config = OptimConfig(warmup_samples=100, schedule=Schedule.constant)
    assert [lr_factor(config, samples, 1000) for samples in (10, 50, 100, 500)] == [0.1, 0.5, 1.0, 1.0]


def test_cosine_ends_at_final_lr() -> None:
    config = OptimConfig(schedule=Schedule.cosine, final_lr=0.1)
    assert lr_factor(config, 500, 1000) == pytest.approx(0.55)
    assert lr_factor(config, 1000, 1000) == pytest.approx(0.1)


def test_step_multiplies_after_each_interval() -> None:
    config = OptimConfig(schedule=Schedule.step, step_samples=100, step_factor=0.5)
    assert [lr_factor(config, samples, 1000) for samples in (100, 101, 200, 201)] == [1.0, 0.5, 0.5, 0.25]
