"""A checkpoint is measured as the release that `mmpretrain export` makes of it, which does not stay."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmpretrain.comparison import checkpoints
from mmpretrain.comparison.checkpoints import with_releases
from mmpretrain.comparison.job import EvaluateJob
from mmpretrain.console import CommandError
from mmpretrain.distributed.world import World
from mmpretrain.run_folder import RunFolder


def exporter(run: RunFolder, folder: Path, step: int) -> None:
    """As the real one, of a run that has one checkpoint."""
    if step != 400:
        raise RuntimeError("no complete checkpoint after 7 steps: there are 400")
    shutil.copytree(run.path, folder)


def test_a_release_stands_in_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "implementation", lambda name: exporter)
    run = tmp_path / "demo"
    run.mkdir()
    (run / "config.yaml").touch()
    out = tmp_path / "out"
    job = EvaluateJob({"demo@400": f"{run}@400", "clip": "someone/clip"}, data="data", out=str(out))
    with with_releases(job, World.single()) as made:
        assert made.models["clip"] == "someone/clip"
        assert (Path(made.models["demo@400"]) / "config.yaml").exists()
    assert list(out.iterdir()) == []
    job = EvaluateJob({"demo@7": f"{run}@7"}, data="data", out=str(out))
    with pytest.raises(CommandError, match="demo@7: no complete checkpoint"), with_releases(job, World.single()):
        pass
