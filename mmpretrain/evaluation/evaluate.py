"""Run the chosen metrics and write them down.

Results are flat: ``METRIC/[SUBJECT/]SCORE -> value``, and ``.../chance`` beside every score that has one, e.g.
``linear_probe/left/accuracy``, ``retrieval/left->caption/recall@1/chance``, ``classification/roc_auc``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mmpretrain.config.evaluation import Metric
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.classification import classification_scores
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.factor_probes import factor_probes
from mmpretrain.evaluation.linear_probe import linear_probe
from mmpretrain.evaluation.retrieval import retrieval
from mmpretrain.files import replace_text
from mmpretrain.records import CHANCE


def evaluate(
    metrics: Sequence[Metric],
    embed: Callable[[str], Embeddings],
    world: World,
    split: str = "test",
    classes: Sequence[str] | None = None,
    probe_split: str = "train",
    factors: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Evaluate ``metrics`` on ``split``; collective: every rank calls it with the same arguments.

    ``embed``: split name -> its embeddings (collective; called once per split that is needed: ``split``, and
    ``probe_split`` for probes). The metrics themselves run on rank 0; the other ranks wait, and get {}.
    ``classes``: names of the labels. ``factors``: what labels are codes of. Raises what a metric raises on rank 0,
    RuntimeError on the others.
    """
    if not metrics:
        return {}
    test = embed(split)
    train = embed(probe_split) if any(metric.probes for metric in metrics) else None
    results, failure = {}, None
    if world.rank == 0:
        try:
            results = _measure(metrics, train, test, classes, factors or {})
        except Exception as error:  # the other ranks must hear of any failure, or they would wait for this rank
            failure = error
    if world.max_flag(failure is not None, patient=True):
        raise failure or RuntimeError("evaluation failed on rank 0: see its message")
    return results


def _measure(
    metrics: Sequence[Metric],
    train: Embeddings | None,
    test: Embeddings,
    classes: Sequence[str] | None,
    factors: Mapping[str, int],
) -> dict[str, float]:
    results: dict[str, float] = {}
    for metric in metrics:
        match metric:
            case Metric.classification:
                scores = _classification(test)
            case Metric.linear_probe if train is not None:
                scores = linear_probe(train, test, classes)
            case Metric.factors if train is not None:
                scores = factor_probes(train, test, factors)
            case _:
                scores = retrieval(test)
        results |= {f"{metric.value}/{name}": score for name, score in scores.items()}
    return results


def _classification(test: Embeddings) -> dict[str, float]:
    if test.logits is None or test.labels is None:
        lacking = "labels in the split" if test.labels is None else "logits, which this model does not give"
        raise ValueError(f"classification needs {lacking}; leave it out of the evaluation's metrics")
    return classification_scores(test.logits, test.labels)


def log_entry(results: dict[str, float], split: str) -> dict[str, float]:
    """``results`` as keys of metrics.jsonl, ``eval/SPLIT/NAME``, without the chances (they do not change)."""
    return {f"eval/{split}/{name}": value for name, value in results.items() if not name.endswith(CHANCE)}


def write_evaluation(path: Path, results: dict[str, float]) -> None:
    """Write ``results`` as JSON to ``path``, which then holds either its old content or all of the new one."""
    replace_text(path, json.dumps(results, indent=2, allow_nan=False) + "\n")
