"""A run's records: scores beside their chance, and metrics of a run that went on."""

from __future__ import annotations

import json
from pathlib import Path

from mmpretrain.records import Score, parse_scores, read_evaluation, read_evaluations, read_training, sizes_in_words
from mmpretrain.run_folder import RunFolder


def test_scores_find_their_chance() -> None:
    results = {
        "classification/f1": 0.7,
        "retrieval/left->right/recall@1": 0.5,
        "retrieval/left->right/recall@1/chance": 0.01,
        "linear_probe/left+right/recall/and/or": 0.9,
    }
    assert parse_scores(results) == [
        Score("classification", "", "f1", 0.7, None),
        Score("retrieval", "left->right", "recall@1", 0.5, 0.01),
        Score("linear_probe", "left+right", "recall/and/or", 0.9, None),
    ]


def test_metrics_of_a_continued_run(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "samples": 8, "loss": 3.0},
        {"step": 2, "samples": 16, "loss": 2.0},
        {"step": 2, "eval/test/classification/accuracy": 0.4},
        {"step": 1, "samples": 8, "loss": 3.5},
        {"step": 1, "eval/test/classification/accuracy": 0.3},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "lo')
    run = RunFolder(tmp_path)
    assert [(step["step"], step["loss"]) for step in read_training(run)] == [(1, 3.5), (2, 2.0)]
    assert read_evaluations(run) == {"eval/test/classification/accuracy": {1: 0.3, 2: 0.4}}


def test_empty_folder(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert (read_training(run), read_evaluations(run), read_evaluation(run)) == ([], {}, {})


def test_sizes_of_a_run_are_said_if_there_were_several() -> None:
    two = {"step": 0, "ranks": 2, "zero": 1, "precision": "float32"}
    one = {"step": 40, "ranks": 1, "zero": 3, "precision": "bfloat16"}
    assert sizes_in_words([]) is None and sizes_in_words([two]) is None
    assert sizes_in_words([two, one]) == "2 ranks (ZeRO 1, float32) until step 40, then 1 rank (ZeRO 3, bfloat16)"
