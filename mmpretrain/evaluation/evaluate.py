"""Run the chosen metrics and write them down.

Results are flat: ``METRIC/[SUBJECT/]SCORE -> value``, and ``.../chance`` beside every score that has one, e.g.
``linear_probe/left/accuracy``, ``retrieval/left->caption/recall@1/chance``, ``classification/roc_auc``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmpretrain.config.evaluation import EvaluationConfig, Metric, Need
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.evaluator import Evidence, load_evaluator
from mmpretrain.files import replace_text
from mmpretrain.records import CHANCE


def evaluate(
    metrics: Sequence[Metric],
    embed: Callable[[str], Embeddings],
    world: World,
    settings: EvaluationConfig | None = None,
    classes: Sequence[str] | None = None,
    factors: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Evaluate ``metrics`` on ``settings.split``; collective: every rank calls it with the same arguments.

    ``embed``: split name -> its embeddings (collective; called once per split that is needed: ``settings.split``, and
    ``settings.probe_split`` for metrics that learn). The metrics themselves run on rank 0; the others wait, and get {}.
    ``settings``: default: EvaluationConfig's. ``classes``: names of the labels. ``factors``: what labels are codes of.
    Raises what a metric raises on rank 0, RuntimeError on the others.
    """
    if not metrics:
        return {}
    settings = settings or EvaluationConfig()
    test = embed(settings.split)
    learns = any(Need.probe_split in metric.needs for metric in metrics)
    probe = embed(settings.probe_split) if learns else None
    evidence = Evidence(test, probe, classes, factors or {}, settings)
    results, failure = {}, None
    if world.rank == 0:
        try:
            results = _measure(metrics, evidence)
        except Exception as error:  # the other ranks must hear of any failure, or they would wait for this rank
            failure = error
    if world.max_flag(failure is not None, patient=True):
        raise failure or RuntimeError("evaluation failed on rank 0: see its message")
    return results


def _measure(metrics: Sequence[Metric], evidence: Evidence) -> dict[str, float]:
    results: dict[str, float] = {}
    for metric in metrics:
        # A need that a row does not state is not met either, whatever is evaluated beside it.
        probe = evidence.probe if Need.probe_split in metric.needs else None
        scores = load_evaluator(metric).scores(replace(evidence, probe=probe))
        results |= {f"{metric}/{name}": score for name, score in scores.items()}
    return results


def log_entry(results: dict[str, float], split: str) -> dict[str, float]:
    """``results`` as keys of metrics.jsonl, ``eval/SPLIT/NAME``, without the chances (they do not change)."""
    return {f"eval/{split}/{name}": value for name, value in results.items() if not name.endswith(CHANCE)}


def write_evaluation(path: Path, results: dict[str, float]) -> None:
    """Write ``results`` as JSON to ``path``, which then holds either its old content or all of the new one."""
    replace_text(path, json.dumps(results, indent=2, allow_nan=False) + "\n")
