"""The registry: every row has its file, every file its row, and the stated needs are exactly what it takes."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

import mmpretrain.evaluation
from mmpretrain.config.evaluation import EvaluationConfig, Metric, Need
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.bootstrap import Measured
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.evaluate import evaluate
from mmpretrain.evaluation.evaluator import Evaluator, Evidence, load_evaluator
from tests.evaluation.made_up import embeddings

FACTORS = {"shape": 2, "color": 2}
NAMED = [(metric, need) for metric in Metric for need in metric.needs]


def evidence_of(needs: set[Need]) -> Evidence:
    """What there is when these needs are met, and no others."""

    def split(seed: int) -> Embeddings:
        made = embeddings(seed=seed)
        sides = dict(made.embeds)
        if Need.equal_widths not in needs:
            sides["right"] = np.hstack([sides["right"], sides["right"]])
        logits = np.eye(4)[made.labels] if Need.logits in needs else None
        labels = made.labels if Need.one_class in needs else np.eye(4, dtype=np.int64)[made.labels]
        return replace(made, embeds=sides, logits=logits, labels=labels if Need.labels in needs else None)

    def prompts(texts: Sequence[str]) -> dict[str, np.ndarray]:
        width = 16 if Need.equal_widths in needs else 12
        return {"words": np.sin(np.outer(np.arange(1, len(texts) + 1), np.arange(1, width + 1)))}

    probe = split(1) if Need.probe_split in needs else None
    return Evidence(
        split(2),
        probe,
        classes=list("abcd") if Need.class_names in needs else None,
        factors=FACTORS if Need.factors in needs else {},
        prompts=prompts if Need.texts in needs else None,
    )


def implementations() -> dict[str, type[Evaluator]]:
    """``package.module.Class`` -> class, of all evaluators in the folder."""
    found = {}
    for module in pkgutil.iter_modules(mmpretrain.evaluation.__path__):
        for name, value in vars(importlib.import_module(f"mmpretrain.evaluation.{module.name}")).items():
            if isinstance(value, type) and issubclass(value, Evaluator) and value.__module__.endswith(module.name):
                found[f"{value.__module__}.{name}"] = value
    del found["mmpretrain.evaluation.evaluator.Evaluator"]
    return found


def test_every_row_has_an_evaluator_in_a_file_of_its_own_and_every_evaluator_a_row() -> None:
    rows = [metric.implementation for metric in Metric]
    assert sorted(rows) == sorted(implementations())
    assert len({row.rpartition(".")[0] for row in rows}) == len(rows)
    for metric in Metric:
        assert type(load_evaluator(metric)) is implementations()[metric.implementation]


def test_a_row_is_its_name() -> None:
    """Configs, results and messages are written with the words that they always had."""
    assert {"classification", "factors", "linear_probe", "retrieval"} <= set(Metric)
    for metric in Metric:
        assert metric == metric.name == metric.value == str(metric) and Metric(metric.value) is metric  # type: ignore[call-arg]  # by value


@pytest.mark.parametrize("metric", Metric)
def test_what_a_row_states_is_enough(metric: Metric) -> None:
    scores = load_evaluator(metric).scores(evidence_of(set(metric.needs)))
    values = [score.value if isinstance(score, Measured) else score for score in scores.values()]
    assert scores and all(np.isfinite(value) for value in values)
    assert any(name.endswith("/chance") for name in scores)


@pytest.mark.parametrize(("metric", "need"), NAMED)
def test_without_one_of_its_needs_it_says_so(metric: Metric, need: Need) -> None:
    evidence = evidence_of(set(metric.needs) - {need})
    with pytest.raises((ValueError, LookupError), match=f"{metric}|{Need.probe_split}"):
        load_evaluator(metric).scores(evidence)


def test_only_who_states_it_gets_a_split_to_learn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forgotten need shows at once, also beside a metric that has it."""
    seen: dict[str, bool] = {}

    class Curious(Evaluator):
        def scores(self, evidence: Evidence) -> dict[str, float]:
            seen[str(len(seen))] = evidence.probe is not None
            return {}

    monkeypatch.setattr("mmpretrain.evaluation.evaluate.load_evaluator", lambda metric: Curious())
    evaluate([Metric.linear_probe, Metric.retrieval], lambda split: embeddings(), World.single())
    assert list(seen.values()) == [True, False]


def test_unmet_needs_are_named_for_each_wanted_metric_once() -> None:
    settings = EvaluationConfig(final=[Metric.retrieval, Metric.linear_probe], during=[Metric.linear_probe])
    absent = {Need.labels: "needs labels", Need.equal_widths: "compares", Need.logits: "is nobody's"}
    assert settings.unmet(absent) == [
        "evaluation metric linear_probe needs labels",
        "evaluation metric retrieval compares",
    ]
    assert settings.unmet({}) == []
