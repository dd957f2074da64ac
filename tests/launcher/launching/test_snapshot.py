"""The code snapshot in the run folder."""

from __future__ import annotations

from pathlib import Path

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
