"""A warning for critics that run away, and none for those that learn, or that no longer grow."""

from __future__ import annotations

import json

import pytest

from mmpretrain.training.critics_watch import LINES, CriticsWatch


def warnings(losses: list[float], norms: list[float]) -> list[str]:
    """Of a run with these values of one critic, logged line by line."""
    watch, found = CriticsWatch(), []
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        found += watch.look(step, {"loss": 1.0, "critics/unique": loss, "critic_norm/unique": norm})
    return found


def test_a_critic_that_is_wrong_and_grows_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    (warning,) = warnings([0.4] * 3 * LINES, [1 + 0.02 * step for step in range(3 * LINES)])
    assert warning.startswith("at step 19 the critic of unique runs away") and "method.critic_hidden" in warning
    assert warning in caplog.text


def test_what_was_seen_before_a_resumption_counts() -> None:
    line = {"loss": 1.0, "critics/unique": 0.4, "critic_norm/unique": 1.0}
    before, after = CriticsWatch(), CriticsWatch()
    assert not before.facts()
    for step in range(LINES - 1):
        assert not before.look(step, line)
    after.restore(json.loads(json.dumps(before.facts())))
    assert not after.look(LINES, {**line, "critics/unique": float("nan")}), "which says nothing"
    (warning,) = after.look(LINES, {**line, "critic_norm/unique": 1.2})
    assert "1.2-fold" in warning
    again = CriticsWatch()
    again.restore(json.loads(json.dumps(after.facts())))
    assert not again.look(LINES + 1, {**line, "critic_norm/unique": 1.3}), "it is told once per run"


def test_critics_that_learn_or_stay_small_are_left_alone() -> None:
    growing = [1 + 0.1 * step for step in range(2 * LINES)]
    assert not warnings([-0.4] * 2 * LINES, growing)
    assert not warnings([0.4] * 2 * LINES, [1.0] * 2 * LINES)
    assert not warnings([0.4] * (LINES - 1), growing[: LINES - 1])
    assert not CriticsWatch().look(0, {"loss": 1.0, "critic_norm/shared": 2.0})
