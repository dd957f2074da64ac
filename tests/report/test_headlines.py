"""A run in a few numbers."""

from __future__ import annotations

from pathlib import Path

from mmpretrain.report.headlines import headlines
from mmpretrain.report.record import read_record
from tests.report.made_up import write_run


def test_headlines_say_what_chance_could_do(tmp_path: Path) -> None:
    record = read_record(write_run(tmp_path / "a", "scores"), "a")
    probe, retrieval = headlines(record)
    assert (probe.text, probe.verdict, probe.good) == ("90.0 %", "better than chance", True)
    assert retrieval.subject == "image → caption · own pair among the 10 nearest"
    assert (retrieval.verdict, retrieval.good) == ("not distinguishable from chance", False)
