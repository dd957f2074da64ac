"""Run the chosen metrics and write them down.

Results are flat: ``METRIC/[SUBJECT/]SCORE -> value``, with ``.../chance`` beside every score that has one, and where
intervals are wanted ``.../low`` and ``.../high``, e.g. ``linear_probe/left/accuracy``, ``classification/roc_auc``,
``retrieval/left->caption/recall@1/chance``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mmpretrain.config.evaluation import EvaluationConfig, Metric, Need
from mmpretrain.config.evaluation_sections import Captions
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.bootstrap import HIGH, LOW, Measured
from mmpretrain.evaluation.bootstrap import intervals as measured_intervals
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.evaluator import EmbedWithout, Evaluator, Evidence, Prompts, load_evaluator
from mmpretrain.evaluation.shares import Keep
from mmpretrain.evaluation.sharing import ToldError
from mmpretrain.files import replace_text
from mmpretrain.records import stands_beside

Scores = dict[Metric, Mapping[str, float | Measured]]  # by metric, so that intervals stay what they are for it alone


def evaluate(
    metrics: Sequence[Metric],
    embed: Callable[[str], Embeddings],
    world: World,
    settings: EvaluationConfig | None = None,
    classes: Sequence[str] | None = None,
    factors: Mapping[str, int] | None = None,
    *,
    split: str | None = None,
    intervals: bool = False,
    prompts: Prompts | None = None,
    embed_without: EmbedWithout | None = None,
) -> dict[str, float]:
    """What :func:`measure` finds, as plain numbers. ``intervals``: whether scores have ``.../low`` and ``.../high``
    beside them (bootstrap.py); the rest as there."""
    found = measure(
        metrics, embed, world, settings, classes, factors, split=split, prompts=prompts, embed_without=embed_without
    )
    return plain(found, wanted=intervals)


def measure(
    metrics: Sequence[Metric],
    embed: Callable[[str], Embeddings],
    world: World,
    settings: EvaluationConfig | None = None,
    classes: Sequence[str] | None = None,
    factors: Mapping[str, int] | None = None,
    *,
    split: str | None = None,
    prompts: Prompts | None = None,
    embed_without: EmbedWithout | None = None,
) -> Scores:
    """Evaluate ``metrics`` on a split; collective: every rank calls it with the same arguments.

    ``embed``: split name -> its embeddings (collective; called once per split that is needed: ``split``, and
    ``settings.probe_split`` for metrics that learn). Retrieval and neighbors are shared by all ranks, rank 0 does the
    rest alone while the others wait; rank 0 gets the scores by metric, the others {}.
    ``settings``: default: EvaluationConfig's. ``classes``: names of the labels. ``factors``: what labels are codes of.
    ``split``: default: ``settings.split``. ``prompts``: for zero_shot, encodes texts. ``embed_without``: for
    robustness, runs the model without a modality; needed of models with a fusion.
    Raises what a metric raises on the rank where it does, RuntimeError on the others.
    """
    if not metrics:
        return {}
    settings = settings or EvaluationConfig()
    split = split or settings.split
    test = embed(split)
    learns = any(Need.probe_split in metric.needs for metric in metrics)
    probe = embed(settings.probe_split) if learns else None
    evidence = Evidence(test, probe, classes, factors or {}, settings, split, world, prompts, embed_without)
    found: Scores = {}
    for metric in metrics:
        # A need that a row does not state is not met either, whatever is evaluated beside it.
        known = probe if Need.probe_split in metric.needs else None
        scores = _heard_by_all(load_evaluator(metric), replace(evidence, probe=known))
        if world.rank == 0:
            found[metric] = scores
    return found


def keeping(metrics: Sequence[Metric], settings: EvaluationConfig, world: World, *, shown: bool) -> Keep:
    """Which ranks need the embeddings that ``metrics`` are of. shown: whether rank 0 draws them."""
    evaluators = [load_evaluator(metric) for metric in metrics]
    wanted = settings.retrieval
    one_by_one = Metric.retrieval in metrics and (bool(wanted.same) or wanted.captions is Captions.all)
    if world.size == 1 or one_by_one or any(found.everywhere and not found.by_shares for found in evaluators):
        return Keep.everywhere
    return Keep.shares if not shown and all(found.by_shares for found in evaluators) else Keep.first


def plain(found: Scores, *, wanted: bool) -> dict[str, float]:
    """``METRIC/NAME`` -> value, with what stands beside each; ``wanted``: intervals."""
    return {
        f"{metric}/{name}": score
        for metric, scores in found.items()
        for name, score in _plain(scores, wanted=wanted).items()
    }


def outcomes(found: Scores) -> dict[str, Measured]:
    """``METRIC/NAME`` -> the outcomes of single samples, of the scores that have some."""
    return {f"{m}/{name}": s for m, scores in found.items() for name, s in scores.items() if isinstance(s, Measured)}


def _heard_by_all(evaluator: Evaluator, evidence: Evidence) -> Mapping[str, float | Measured]:
    """The scores, where the evaluator runs; a failure of one rank ends all of them."""
    scores: Mapping[str, float | Measured] = {}
    world, failure = evidence.world, None
    try:
        if evaluator.everywhere or world.rank == 0:
            scores = evaluator.scores(evidence)
    except ToldError as told:
        raise (told.__cause__ or told) from None
    except Exception as error:  # the other ranks must hear of any failure, or they would wait for this rank
        failure = error
    if world.max_flag(failure is not None, patient=True):
        who = "another rank" if evaluator.everywhere else "rank 0"
        raise failure or RuntimeError(f"evaluation failed on {who}: see its message")
    return scores


def _plain(scores: Mapping[str, float | Measured], *, wanted: bool) -> dict[str, float]:
    """The values, with what stands beside each; ``wanted``: intervals."""
    edges = measured_intervals({n: s for n, s in scores.items() if isinstance(s, Measured)}) if wanted else {}
    results: dict[str, float] = {}
    for name, score in scores.items():
        results[name] = score.value if isinstance(score, Measured) else float(score)
        results |= {key: edges[key] for key in (f"{name}/{LOW}", f"{name}/{HIGH}") if key in edges}
    return results


def log_entry(results: dict[str, float], split: str) -> dict[str, float]:
    """``results`` as keys of metrics.jsonl, ``eval/SPLIT/NAME``, without what stands beside scores."""
    return {f"eval/{split}/{name}": value for name, value in results.items() if not stands_beside(name, results)}


def write_evaluation(path: Path, results: dict[str, float]) -> None:
    """Write ``results`` as JSON to ``path``, which then holds either its old content or all of the new one."""
    replace_text(path, json.dumps(results, indent=2, allow_nan=False) + "\n")
