"""The files of a run: atomic status, and lines that a resume rolls back."""

from __future__ import annotations

from pathlib import Path

from mmpretrain.run_folder import RunFolder, State, append_line, drop_lines_after, read_lines


def test_status_keeps_what_is_not_changed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.status() == {}
    folder.update_status(state=State.queued, job_id="7")
    folder.update_status(state=State.running, step=3)
    assert folder.status() == {"state": "running", "job_id": "7", "step": 3, "ending": None}


def test_lines_beyond_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 3):
        append_line(path, {"step": step})
    path.open("a").write('{"step": 4, "lo')  # the writer was killed here
    drop_lines_after(path, 2)
    assert list(read_lines(path)) == [{"step": 1}, {"step": 2}]
    drop_lines_after(tmp_path / "absent.jsonl", 2)
