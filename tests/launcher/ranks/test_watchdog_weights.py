"""What watches over a run looks on: the weights are those of a run that nobody watches, to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.config.compose import load_config, save_config
from mmpretrain.run_folder import RunFolder, State
from mmpretrain.training.session import Session
from mmpretrain.training.train import fit
from tests.engine import runs
from tests.rank_pool import Ranks
from tests.small_runs import BATCH, command, launch, weights

STEPS = 6
WATCHED = ["engine.hang_s=30", "engine.step_timeout_s=40", "health.enabled=true"]


def trained(folder: str) -> None:
    """Train to the end on living ranks: no launcher, no signs of life."""
    runs.forget_engines()
    fit(Session(RunFolder(Path(folder))))


@pytest.mark.slow
@pytest.mark.processes
def test_weights_are_bit_equal_with_everything_watched_and_with_nothing(
    ranks: Ranks, digits: Path, tmp_path: Path
) -> None:
    tokens = [f"train.samples={STEPS * BATCH}", "engine.threads=1", "checkpoint.every_steps=2"]
    done = launch([*command(digits, tmp_path, "watched", *tokens, *WATCHED), "--gpus-per-node=2"])
    assert done.returncode == 0, done.stdout + done.stderr
    watched, alone = RunFolder(tmp_path / "watched"), RunFolder(tmp_path / "alone")
    assert list((watched.path / "heartbeats").iterdir()) and watched.status()["health"]

    config = load_config(watched.config)
    config.run.name, config.health.enabled = "alone", False
    config.engine.hang_s = config.engine.step_timeout_s = config.engine.timeout_s
    alone.path.mkdir()
    save_config(config, alone.config)
    ranks(2, trained, str(alone.path))
    assert alone.status()["state"] == State.completed.value and not (alone.path / "heartbeats").exists()
    assert not alone.status().get("health")
    assert weights(alone) == weights(watched)
