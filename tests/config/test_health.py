"""The settings of the check before training."""

from __future__ import annotations

import pytest

from mmpretrain.config.changes import may_change
from mmpretrain.config.compose import ConfigError, compose


@pytest.mark.parametrize(
    "token",
    ["health.limit_s=0", "health.least_mb_per_s=0", "health.least_free_memory=1.5", "health.most_excluded=-1"],
)
def test_values_without_a_meaning_are_refused(token: str) -> None:
    with pytest.raises(ConfigError, match=token.partition("=")[0]):
        compose([token])


def test_a_run_may_go_on_under_other_settings() -> None:
    """They change no weight."""
    stored, asked = compose([]), compose(["health.enabled=false", "engine.step_timeout_s=100"])
    assert may_change("health.enabled", stored, asked)
    assert may_change("engine.step_timeout_s", stored, asked)


def test_a_limit_of_no_time_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"engine\.step_timeout_s is 0"):
        compose(["engine.step_timeout_s=0"])
