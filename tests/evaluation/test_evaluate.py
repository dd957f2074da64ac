"""All evaluations of a split: names, ranks, failures on one rank, and the file that they are written to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpretrain.config.evaluation import EvaluationConfig, Metric
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embeddings import Embeddings, embed_split
from mmpretrain.evaluation.evaluate import evaluate, log_entry, write_evaluation
from tests.evaluation.made_up import deal, embeddings, tiny_model

SIZES = {"train": 60, "test": 31}
HELD = EvaluationConfig(split="held")
HELD_AND_PROBE = EvaluationConfig(split="held", probe_split="probe")


def evaluate_tiny(metrics: list[Metric]) -> dict[str, float]:
    """All of the evaluation on the ranks that there are."""
    world = World.current()

    def embed(split: str) -> Embeddings:
        batches = deal(SIZES[split], 4, world.rank, world.size)
        return embed_split(tiny_model(), batches, world, torch.device("cpu"))

    return evaluate(
        metrics, embed, world, EvaluationConfig(), ["a", "b", "c"], {"parity": 3}, intervals=True, prompts=prompts
    )


def prompts(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Embeddings of texts, a function of their first letter."""
    return {"words": np.sin(np.outer([ord(text[0]) for text in texts], np.arange(1, 6))).astype(np.float32)}


def test_names_and_splits() -> None:
    asked: list[str] = []

    def embed(split: str) -> Embeddings:
        asked.append(split)
        return embeddings(seed=len(asked))

    results = evaluate([Metric.linear_probe, Metric.retrieval], embed, World.single(), HELD)
    assert asked == ["held", "train"]
    for name in ("linear_probe/left/accuracy", "retrieval/left->right/recall@1", "retrieval/left->right/median_rank"):
        assert name in results and f"{name}/chance" in results
    asked.clear()
    evaluate([Metric.retrieval], embed, World.single(), HELD)
    assert asked == ["held"]
    asked.clear()
    evaluate([Metric.factors], embed, World.single(), HELD_AND_PROBE, factors={"a": 2, "b": 2})
    assert asked == ["held", "probe"]
    asked.clear()
    assert evaluate([], embed, World.single(), HELD) == {} and asked == []


def test_two_ranks_measure_what_one_measures(ranks: Callable) -> None:
    metrics = list(Metric)
    alone = evaluate_tiny(metrics)
    first, second = ranks(2, evaluate_tiny, metrics)
    assert first == pytest.approx(alone, abs=1e-6)
    assert second == {}
    assert {"classification/accuracy", "factors/left+right/parity/balanced_accuracy"} <= set(first)
    assert {"zero_shot/left->words/accuracy/low", "robustness/left+right/probe/without/right"} <= set(first)


def evaluate_without_labels() -> str:
    """A metric that cannot be had: the message on each rank."""
    made = embeddings()
    unlabeled = Embeddings(made.ordinals, made.embeds)
    try:
        evaluate([Metric.classification], lambda split: unlabeled, World.current())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def test_a_failure_on_rank_0_ends_all_ranks(ranks: Callable) -> None:
    first, second = ranks(2, evaluate_without_labels, timeout=30)
    assert first.startswith("ValueError: classification needs labels")
    assert second == "RuntimeError: evaluation failed on rank 0: see its message"


def test_log_entry_leaves_out_chances() -> None:
    results = {"classification/accuracy": 0.5, "classification/accuracy/chance": 0.4}
    assert log_entry(results, "test") == {"eval/test/classification/accuracy": 0.5}


def test_write_evaluation_replaces_or_keeps(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    write_evaluation(path, {"retrieval/left->right/recall@1": 0.25})
    write_evaluation(path, {"retrieval/left->right/recall@1": 0.5})
    assert json.loads(path.read_text()) == {"retrieval/left->right/recall@1": 0.5}
    with pytest.raises(ValueError):
        write_evaluation(path, {"x": float("nan")})
    assert [p.name for p in tmp_path.iterdir()] == ["evaluation.json"]
    assert json.loads(path.read_text()) == {"retrieval/left->right/recall@1": 0.5}
