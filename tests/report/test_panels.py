"""Which charts a page has."""

from __future__ import annotations

import json
from pathlib import Path

from mmpretrain.report.panels import evaluation_panels, training_panels
from mmpretrain.report.record import Record, read_record
from tests.report.made_up import line, write_run


def record(folder: Path, *lines: dict[str, float], name: str = "a") -> Record:
    """A run that logged these lines."""
    write_run(folder, "scores")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines))
    return read_record(folder, name)


def test_numbers_of_one_run_that_belong_together_share_a_chart(tmp_path: Path) -> None:
    terms = {"loss/one": 1.0, "loss/two": 3.0, "mystery": 1.0, "memory_gib": 2.0, "samples/web": 4.0}
    shown, rest = training_panels([record(tmp_path / "a", line(1, **terms), line(2, **terms))])
    names = {panel.title: [curve.name for curve in panel.curves] for panel in shown}
    assert names["Loss"] == ["loss", "one", "two"]  # contrastive is the loss once more
    assert names["Waiting for data, seconds per step"] == ["mean", "longest"] and "Memory, GiB" in names
    assert [panel.title for panel in rest] == ["Samples of each source", "mystery"]


def test_bounds_critics_and_norms_have_charts_of_their_own(tmp_path: Path) -> None:
    told = {"nats/pair_lower": 1.0, "nats/pair_upper": 2.0, "critics/unique": -0.5, "critic_norm/unique": 3.0}
    told |= {"critics/grad_norm": 1.0}
    shown, rest = training_panels([record(tmp_path / "a", line(1, **told), line(2, **told))])
    names = {panel.title: [curve.name for curve in panel.curves] for panel in shown}
    assert names["Bounds of information, nats"] == ["pair lower", "pair upper"]
    assert ["unique"] in names.values() and names["Norm of the critics' weights"] == ["unique"]
    assert [panel.title for panel in rest] == ["critics/grad_norm"]


def test_several_runs_are_lines_of_one_chart_per_number_with_a_color_each(tmp_path: Path) -> None:
    records = [record(tmp_path / name, line(1), line(2), name=name) for name in ("a", "b")]
    shown, _ = training_panels(records)
    loss = shown[0]
    assert [(curve.name, curve.color, curve.run) for curve in loss.curves] == [("a", 0, 0), ("b", 1, 1)]
    assert not loss.named and [panel.note for panel in shown[-2:]] == ["mean", "longest"]


def test_evaluations_while_training_have_chance_where_it_is_known(tmp_path: Path) -> None:
    scores = {"eval/test/retrieval/image->caption/recall@10": 0.2, "eval/test/retrieval/image->caption/recall@5": 0.1}
    more = {"eval/val/linear_probe/image/accuracy": 0.5, "eval/val/linear_probe/caption/accuracy": 0.6}
    shown, rest = evaluation_panels([record(tmp_path / "a", {"step": 5, **scores, **more})])
    assert [(panel.title, panel.note, panel.chance) for panel in shown] == [
        ("Retrieval of the exact pair", "image → caption · recall@10 on test", 0.1),
        ("Linear probe on frozen embeddings", "accuracy on val", None),
    ]
    assert [curve.name for curve in shown[1].curves] == ["image", "caption"] and not rest
    assert shown[0].curves[0].column.samples.tolist() == [40]
