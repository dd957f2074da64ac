"""No record is delivered twice, whatever a killed run had delivered beyond its checkpoint."""

from __future__ import annotations

from pathlib import Path

from mmpretrain.training.delivered import Delivered


def test_records_done_again_are_known_also_several_of_a_step(tmp_path: Path) -> None:
    path = tmp_path / "tracking" / "wandb.json"
    first = Delivered(path)
    assert [first.is_new(step) for step in (1, 2, 2, 3)] == [True] * 4  # killed before the second record of step 3
    again = Delivered(path)
    assert again.id == first.id
    steps = (2, 2, 3, 3, 4, 4)
    assert [again.is_new(step) for step in steps] == [False, False, False, True, True, True]


def test_another_run_has_another_name_and_a_damaged_file_starts_anew(tmp_path: Path) -> None:
    first, second = Delivered(tmp_path / "a" / "x.json"), Delivered(tmp_path / "b" / "x.json")
    assert first.id != second.id and first.is_new(0)
    (tmp_path / "a" / "x.json").write_text('{"id": "')
    assert Delivered(tmp_path / "a" / "x.json").is_new(0)
