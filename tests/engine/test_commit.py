"""The commit protocol: only complete checkpoints exist for the loader, and damage is found before loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpretrain.engine import commit


def write(checkpoints: Path, step: int, ranks: int = 2) -> Path:
    writing = commit.start_writing(checkpoints, step)
    (writing / "deepspeed").mkdir()
    (writing / "deepspeed" / "weights.pt").write_bytes(b"weights of step %d" % step)
    for rank in range(ranks):
        commit.done_marker(writing, rank).touch()
    return commit.commit(writing, {"step": step}, world_size=2)


def test_the_newest_complete_one_is_found(tmp_path: Path) -> None:
    assert commit.newest_complete(tmp_path / "checkpoints").folder is None
    write(tmp_path, 10)
    final = write(tmp_path, 20)
    found = commit.newest_complete(tmp_path)
    assert (found.folder, found.manifest["step"], found.damaged) == (final, 20, [])
    assert (tmp_path / "latest").read_text() == "step-00000020"
    assert commit.newest_step(tmp_path) == 20


def test_a_missing_done_marker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(commit.CheckpointError, match=r"ranks \[1\] did not finish"):
        write(tmp_path, 10, ranks=1)
    assert commit.newest_complete(tmp_path).folder is None


def test_half_written_folders_are_ignored_and_removed(tmp_path: Path) -> None:
    write(tmp_path, 10)
    (commit.start_writing(tmp_path, 20) / "half").write_text("x")
    assert commit.newest_complete(tmp_path).manifest["step"] == 10
    write(tmp_path, 30)
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("damage", ["delete", "truncate", "empty", "flip", "no manifest", "bad manifest"])
def test_damage_falls_back_to_the_previous_one(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 10)
    final = write(tmp_path, 20)
    weights, manifest = final / "deepspeed" / "weights.pt", final / commit.MANIFEST
    content = weights.read_bytes()
    {
        "delete": weights.unlink,
        "truncate": lambda: weights.write_bytes(content[:-1]),
        "empty": lambda: weights.write_bytes(b""),
        "flip": lambda: weights.write_bytes(bytes([content[0] ^ 1]) + content[1:]),
        "no manifest": manifest.unlink,
        "bad manifest": lambda: manifest.write_text(manifest.read_text()[:-20]),
    }[damage]()
    found = commit.newest_complete(tmp_path)
    assert found.manifest["step"] == 10
    assert len(found.damaged) == 1 and "step-00000020" in found.damaged[0]
    assert write(tmp_path, 20).exists()  # the step can be written again over the damaged one


def test_retention_keeps_the_last_and_every_nth(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        write(tmp_path, step)
    commit.prune(tmp_path, keep_last=2, keep_every=20)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [f"step-000000{s}" for s in (20, 40, 50)]


def test_manifest_records_facts_and_files(tmp_path: Path) -> None:
    manifest = json.loads((write(tmp_path, 10) / commit.MANIFEST).read_text())
    assert manifest["world_size"] == 2
    assert manifest["files"]["deepspeed/weights.pt"]["size"] == len(b"weights of step 10")
