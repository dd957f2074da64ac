"""Names of scores are known before a run, and are those that evaluators give."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmpretrain.config.evaluation import Metric
from mmpretrain.config.score_names import SCORES, unknown_score
from mmpretrain.evaluation.evaluator import load_evaluator
from tests.evaluation.made_up import embeddings
from tests.evaluation.test_evaluator import evidence_of


@pytest.mark.parametrize("metric", Metric)
def test_every_score_of_an_evaluator_can_be_named(metric: Metric) -> None:
    evidence = evidence_of(set(metric.needs))
    fused = replace(evidence.test, fused=embeddings().embeds["left"])
    probe = evidence.probe and replace(evidence.probe, fused=embeddings().embeds["left"])
    evidence = replace(evidence, test=fused, probe=probe, embed_without=lambda split, name: fused)
    scores = [name for name in load_evaluator(metric).scores(evidence) if not name.endswith("/chance")]
    single = [name for name in scores if "/recall/" in name]  # of one class, which no checkpoint is chosen by
    assert scores and metric in SCORES
    for name in set(scores) - set(single):
        assert unknown_score(f"{metric}/{name}", ["left", "right", "words"]) is None, name


def test_scores_of_other_forms_of_labels_can_be_named() -> None:
    for name in ("average_precision", "f1_macro", "f1_micro", "r2", "mae"):
        assert unknown_score(f"linear_probe/left+right/{name}", ["left", "right"]) is None
    assert all(unknown_score(f"linear_probe/left/{name}", ["left"]) for name in ("", "x", "accuracy/low"))
