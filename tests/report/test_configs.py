"""What differs between configs."""

from __future__ import annotations

from pathlib import Path

from mmpretrain.report.configs import ABSENT, differences, sections
from mmpretrain.report.record import read_record
from tests.report.made_up import CONFIG, write_run


def test_only_keys_that_differ_are_listed(tmp_path: Path) -> None:
    """A key that one run does not know yet is named as such; names of runs are no difference."""
    one = write_run(tmp_path / "a", config={"optim": {"lr": 0.1, "decay": True}, "run": {"name": "x"}})
    other = write_run(tmp_path / "b", config={"optim": {"lr": 0.2}})
    found = differences([read_record(one, "a"), read_record(other, "b")])
    assert {row.key: row.values for row in found} == {"optim.lr": ["0.1", "0.2"], "optim.decay": ["true", ABSENT]}
    assert not differences([read_record(one, "a")])


def test_the_whole_config_is_shown_by_sections_and_without_secrets(tmp_path: Path) -> None:
    parts = dict(sections(read_record(write_run(tmp_path / "a"), "a")))
    assert list(parts) == ["alone", *(key for key, value in CONFIG.items() if isinstance(value, dict))]
    assert "seed: 0" in parts["alone"] and "secret" not in parts["data"] and "X-Signature" not in parts["data"]
