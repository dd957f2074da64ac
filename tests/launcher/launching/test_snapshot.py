"""The code snapshot in the run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.launching.snapshot import take_snapshot
from mmpretrain.config.shipped import CODE
from tests.launcher.toy import ROOT


def test_the_snapshot_holds_the_code_and_no_caches(tmp_path: Path) -> None:
    code = take_snapshot(tmp_path)
    assert code == tmp_path / "code" and sorted(path.name for path in code.iterdir()) == sorted(CODE)
    for name in (
        "launcher/ranks/job.py",
        "mmpretrain/config/compose.py",
        "configs/pretrain.yaml",
        "slurm/default.yaml",
    ):
        assert (code / name).read_bytes() == (ROOT / name).read_bytes()
    assert not list(code.rglob("__pycache__"))


def test_a_later_snapshot_replaces_the_earlier_one(tmp_path: Path) -> None:
    (take_snapshot(tmp_path) / "launcher" / "removed_since.py").write_text("")
    take_snapshot(tmp_path)
    assert not (tmp_path / "code" / "launcher" / "removed_since.py").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


@pytest.mark.parametrize("there", [True, False])
def test_a_run_of_a_sweep_that_starts_alone_gets_code_of_its_own(tmp_path: Path, there: bool) -> None:
    (tmp_path / ("shared" if there else "moved")).mkdir()
    run = tmp_path / "run"
    run.mkdir()
    (run / "code").symlink_to("../shared")
    assert (take_snapshot(run) / "launcher").is_dir() and not (run / "code").is_symlink()
    assert [path.name for path in run.iterdir()] == ["code"]
    assert not there or not list((tmp_path / "shared").iterdir())
