"""Trackers in the config: what is wanted, what lacks its package, and what has no effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.config import tracking
from mmpretrain.config.changes import may_change
from mmpretrain.config.compose import ConfigError, compose, config_text, load_config


def wanted(*tokens: str) -> list[str]:
    """The trackers of a config."""
    return compose(list(tokens)).tracking.wanted


def test_tensorboard_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "tensorboard" else object())
    assert wanted() == [] and wanted("tracking.tensorboard=on") == ["tensorboard"]
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    assert wanted() == ["tensorboard"] and wanted("tracking.tensorboard=off") == []


def test_others_are_used_when_they_have_a_project() -> None:
    tokens = ["tracking.tensorboard=off", "tracking.wandb={project: p, mode: offline}", "tracking.trackio.project=q"]
    assert wanted(*tokens) == ["wandb", "trackio"]


def test_a_tracker_without_its_package_is_refused_with_both_ways_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    asked = ["tracking.tensorboard=on", "tracking.trackio.project=q"]
    assert compose(asked).tracking.not_installed() == [
        "tracking.tensorboard is wanted, and the package tensorboard is not installed: `pip install tensorboard`, or"
        " tracking.tensorboard=off",
        "tracking.trackio is wanted, and the package trackio is not installed: `pip install trackio`, or leave out"
        " tracking.trackio",
    ]
    assert compose().tracking.not_installed() == []


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("tracking.wandb.entity=me", "tracking.wandb.entity has no effect without tracking.wandb.project"),
        ("tracking.trackio={project: p, space_id: mine}", "must be OWNER/NAME"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(token: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose([token])


def test_a_stored_config_gives_the_same_trackers_and_one_of_before_the_usual_ones(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    text = config_text(compose(["tracking.tensorboard=off", "tracking.wandb.project=p"]))
    path.write_text(text)
    assert load_config(path).tracking.wanted == ["wandb"]
    path.write_text(text[: text.index("tracking:")])
    assert load_config(path).tracking == compose().tracking


@pytest.mark.parametrize("key", ["tracking.tensorboard", "tracking.wandb.project", "tracking.pictures"])
def test_a_run_may_go_on_with_other_trackers(key: str) -> None:
    assert may_change(key, compose(), compose())
