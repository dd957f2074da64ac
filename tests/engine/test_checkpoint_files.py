"""The commit protocol: only complete checkpoints exist for the loader, and damage is found before loading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmpretrain.engine import checkpoint_files

WEIGHTS = Path("deepspeed") / "weights.pt"


def write(checkpoints: Path, step: int, ranks: int = 2) -> Path:
    """Commit a checkpoint whose files hold a few bytes."""
    writing = checkpoint_files.start_writing(checkpoints, step)
    (writing / "deepspeed").mkdir()
    (writing / WEIGHTS).write_bytes(b"weights of step %d" % step)
    (writing / "heads.pt").write_bytes(b"heads")
    for rank in range(ranks):
        checkpoint_files.describe_share(writing, rank, world_size=2)
    return checkpoint_files.commit(writing, {"step": step}, world_size=2, patience_s=0)


def newest_sound(checkpoints: Path) -> int | None:
    """What two ranks that share the checking would load."""
    for step in checkpoint_files.steps(checkpoints):
        folder = checkpoint_files.step_folder(checkpoints, step)
        if not any(checkpoint_files.find_problem(folder, rank, 2) for rank in range(2)):
            return step
    return None


def test_the_newest_complete_one_is_found(tmp_path: Path) -> None:
    assert newest_sound(tmp_path / "checkpoints") is None
    assert not checkpoint_files.lost(tmp_path)
    write(tmp_path, 10)
    final = write(tmp_path, 20)
    assert newest_sound(tmp_path) == checkpoint_files.newest_step(tmp_path) == 20
    assert (tmp_path / "latest").read_text() == final.name == "step-00000020"
    assert checkpoint_files.lost(tmp_path)


def test_a_missing_done_marker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(checkpoint_files.CheckpointError, match=r"ranks \[1\] did not finish"):
        write(tmp_path, 10, ranks=1)
    assert checkpoint_files.steps(tmp_path) == []


def test_a_file_that_no_rank_described_is_listed_all_the_same(tmp_path: Path) -> None:
    writing = checkpoint_files.start_writing(tmp_path, 10)
    (writing / "heads.pt").write_bytes(b"heads")
    for rank in range(2):
        checkpoint_files.describe_share(writing, rank, world_size=2)
    (writing / "late.pt").write_bytes(b"seen late")
    assert set(checkpoint_files.read_manifest(checkpoint_files.commit(writing, {}, world_size=2))["files"]) == {
        "heads.pt",
        "late.pt",
    }


def test_a_marker_that_another_rank_is_writing_is_no_part_of_the_checkpoint(tmp_path: Path) -> None:
    writing = checkpoint_files.start_writing(tmp_path, 10)
    (writing / "heads.pt").write_bytes(b"heads")
    (writing / ".rank-00001.done.host.17.tmp").write_text("{")
    checkpoint_files.describe_share(writing, 0, world_size=1)
    (writing / ".rank-00001.done.host.17.tmp").unlink()
    assert set(checkpoint_files.read_manifest(checkpoint_files.commit(writing, {}, world_size=1))["files"]) == {
        "heads.pt"
    }


def test_half_written_folders_are_ignored_and_removed(tmp_path: Path) -> None:
    write(tmp_path, 10)
    (checkpoint_files.start_writing(tmp_path, 20) / "half").write_text("x")
    assert newest_sound(tmp_path) == 10
    write(tmp_path, 30)
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("name", [WEIGHTS, Path("heads.pt"), Path(checkpoint_files.MANIFEST)])
@pytest.mark.parametrize("damage", ["delete", "truncate", "empty", "flip"])
def test_damage_of_any_file_falls_back_to_the_previous_one(tmp_path: Path, name: Path, damage: str) -> None:
    write(tmp_path, 10)
    path = write(tmp_path, 20) / name
    content = path.read_bytes()
    damages: dict[str, Callable[[], object]] = {
        "delete": path.unlink,
        "truncate": lambda: path.write_bytes(content[:-3]),
        "empty": lambda: path.write_bytes(b""),
        "flip": lambda: path.write_bytes(bytes([content[0] ^ 1]) + content[1:]),
    }
    damages[damage]()
    assert newest_sound(tmp_path) == 10
    write(tmp_path, 20)  # the step can be written again over the damaged one
    assert newest_sound(tmp_path) == 20


@pytest.mark.parametrize("content", ["[]", '{"files": []}', '{"files": {"heads.pt": 1}}', "{}"])
def test_a_strange_manifest_is_damage(tmp_path: Path, content: str) -> None:
    (write(tmp_path, 10) / checkpoint_files.MANIFEST).write_text(content)
    folder = checkpoint_files.step_folder(tmp_path, 10)
    assert checkpoint_files.find_problem(folder) is not None


def test_retention_keeps_the_last_and_every_nth(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40, 50):
        write(tmp_path, step)
    checkpoint_files.prune(tmp_path, 50, keep_last=2, keep_every=20)
    assert checkpoint_files.steps(tmp_path) == [50, 40, 20]


def test_retention_never_prefers_a_damaged_later_one(tmp_path: Path) -> None:
    # The run found 300 damaged, went on from 200, and has now written 250.
    for step in (200, 300, 250):
        write(tmp_path, step)
    checkpoint_files.prune(tmp_path, 250, keep_last=1, keep_every=100)
    assert checkpoint_files.steps(tmp_path) == [250, 200]


def test_manifest_records_facts_and_files(tmp_path: Path) -> None:
    manifest = checkpoint_files.read_manifest(write(tmp_path, 10))
    assert (manifest["step"], manifest["world_size"]) == (10, 2)
    assert set(manifest["files"]) == {"heads.pt", str(WEIGHTS)}
    assert manifest["files"][str(WEIGHTS)]["size"] == len(b"weights of step 10")
