"""Tables of scores, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpretrain.report.record import Record, read_record
from mmpretrain.report.scores import tables
from tests.report.made_up import SCORES, better, write_run


def records(folder: Path, *shares: float) -> list[Record]:
    """Runs whose linear probes reach ``shares``, give or take 0.05."""
    found = []
    for number, share in enumerate(shares):
        run = write_run(folder / str(number))
        (run / "evaluation.json").write_text(json.dumps(better(share)))
        found.append(read_record(run, f"run {number}"))
    return found


@pytest.mark.parametrize(
    ("shares", "verdict", "best"),
    [
        ((0.5, 0.8), "best: run 1", [False, True]),
        ((0.5, 0.55), "not distinguishable", [False, False]),
        ((0.7, 0.2, 0.72), "ahead, not distinguishable: run 0, run 2", [False, False, False]),
    ],
)
def test_one_run_is_best_only_where_its_interval_lies_apart(
    tmp_path: Path, shares: tuple[float, ...], verdict: str, best: list[bool]
) -> None:
    probe = tables(records(tmp_path, *shares))[0].lines[0]
    assert probe.verdict == verdict and [cell is not None and cell.best for cell in probe.cells] == best


def test_without_intervals_nothing_is_called_best(tmp_path: Path) -> None:
    found = records(tmp_path, 0.5, 0.8)
    found[1].scores.pop("linear_probe/image/accuracy/low")
    line = tables(found)[0].lines[0]
    assert line.verdict == "" and not any(cell is not None and cell.best for cell in line.cells)


def test_before_and_after_are_compared_on_own_and_kept_out_data(tmp_path: Path) -> None:
    record = read_record(write_run(tmp_path / "a", "scores", "before"), "a")
    probe, retrieval, general = tables([record])
    assert [column.label for column in probe.columns] == ["before", "after"]
    assert (probe.lines[0].verdict, probe.lines[0].tone) == ("better than before", "good")
    assert retrieval.lines[0].verdict == "not distinguishable" and general.title.endswith("on the kept-out data")
    assert [cell.text for cell in general.lines[0].cells if cell] == ["35.0", "30.0"]


def test_an_interval_of_the_difference_says_more_than_those_of_the_scores(tmp_path: Path) -> None:
    """Before and after are of the same samples."""
    folder = write_run(tmp_path / "a", "scores", "before")
    row = {"before": 0.5, "after": 0.5, "change_low": 0.01, "change_high": 0.1}
    own = {**row, "score": "retrieval/image->caption/recall@10"}
    general = {**row, "score": "general/retrieval/a->b/recall@10", "change_low": -0.1, "change_high": -0.01}
    (folder / "changes.json").write_text(json.dumps({"changes": [own, general]}))
    _, retrieval, kept_out = tables([read_record(folder, "a")])
    assert (retrieval.lines[0].verdict, retrieval.lines[0].tone) == ("better than before", "good")
    assert (kept_out.lines[0].verdict, kept_out.lines[0].tone) == ("worse than before", "bad")


def test_shares_are_in_percent_with_their_intervals_and_ranks_are_not(tmp_path: Path) -> None:
    _, retrieval, _ = tables([read_record(write_run(tmp_path / "a", "scores"), "a")])
    (found,), (rank,) = retrieval.lines, retrieval.rest
    assert found.cells[0] is not None and (found.cells[0].text, found.cells[0].beside) == ("50.0", "5.0 to 60.0")
    assert found.subject == "image → caption" and found.chance == "10.0" and found.chance_at == 10.0
    assert rank.cells[0] is not None and rank.cells[0].text == "4" and not rank.bars


def test_a_lower_rank_is_the_better_one(tmp_path: Path) -> None:
    key = "retrieval/image->caption/median_rank"
    found = records(tmp_path, 0.5, 0.5)
    for record, rank in zip(found, (4.0, 9.0), strict=True):
        record.scores.update({**SCORES, key: rank, f"{key}/low": rank - 1, f"{key}/high": rank + 1})
    assert tables(found)[1].rest[0].verdict == "best: run 0"
