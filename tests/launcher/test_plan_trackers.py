"""A tracker that is asked for and not installed is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.planning.plan import PlanError, make_plan
from launcher.planning.resources import Purpose, Request
from mmpretrain.config import tracking


def test_a_plan_with_a_tracker_that_is_not_installed_is_refused(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    tokens = [
        "experiment=digits",
        f"data.path={digits}",
        f"model.encoders.caption.tokenizer={digits / 'tokenizer'}",
        f"run.root={tmp_path}",
        "tracking.wandb.project=p",
    ]
    with pytest.raises(PlanError) as refused:
        make_plan(tokens, Request(1, 1, "local", Purpose.show, tmp_path))
    (problem,) = refused.value.problems
    assert problem.startswith("tracking.wandb is wanted, and the package wandb is not installed: `pip install wandb`")
