"""Which metrics can be measured of a model on a data set, and why the others cannot (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmpretrain.comparison.job import EvaluateJob
from mmpretrain.comparison.opened_data import OpenedData
from mmpretrain.config.evaluation import EvaluationConfig, Metric, Need
from mmpretrain.config.kind import Kind
from mmpretrain.words import listed


@dataclass(frozen=True)
class Looked:
    """What is known of a model before anything is embedded. source: what was opened. towers, kinds, widths: of each
    modality of the data that it embeds. logits: whether its classifier gets all that it needs. choices: what else
    decides about its embeddings."""

    name: str
    source: str
    sha256: str
    towers: dict[str, str]
    kinds: dict[str, Kind]
    widths: dict[str, int]
    logits: bool
    choices: dict[str, str]


def chosen_metrics(
    model: Looked, data: OpenedData, job: EvaluateJob, settings: EvaluationConfig
) -> tuple[list[Metric], dict[Metric, str]]:
    """(metrics to measure, those that cannot be measured -> the reason in words), among the wanted ones."""
    absent = _absent(model, data, job)
    reasons: dict[Metric, str] = {}
    for metric in job.wanted or list(Metric):
        lacking = [absent[need] for need in metric.needs if need in absent]
        if metric is Metric.retrieval and len(model.towers) < 2:
            lacking = [f"needs two modalities, and {model.name} embeds {listed(model.towers)} alone"]
        lacking = lacking or _too_small(metric, data, settings)
        if lacking:
            reasons[metric] = lacking[0]
    return [metric for metric in job.wanted or list(Metric) if metric not in reasons], reasons


def _absent(model: Looked, data: OpenedData, job: EvaluateJob) -> Mapping[Need, str]:
    """Need -> what is missing, as a predicate of the metric's name."""
    unlabeled = f"needs labels, and not every sample of {job.data} has one (KEY.cls)"
    widths = ", ".join(f"{name} [{width}]" for name, width in model.widths.items())
    conditions: list[tuple[Need, bool, str]] = [
        (Need.labels, data.labeled, unlabeled),
        (Need.factors, bool(data.factors), f"needs factors, which the dataset.json of {job.data} does not name"),
        (
            Need.probe_split,
            data.probe is not None,
            f"needs samples to learn from, and {job.data} has no split {job.probe_split}: name one by --probe-split",
        ),
        (Need.logits, model.logits, f"needs logits, and {model.name} has no classifier of these modalities"),
        (
            Need.equal_widths,
            len(set(model.widths.values())) == 1,
            f"needs embeddings of one width, and {model.name} has {widths}",
        ),
    ]
    return {need: text for need, met, text in conditions if not met}


def _too_small(metric: Metric, data: OpenedData, settings: EvaluationConfig) -> Sequence[str]:
    sizes = {settings.split: len(data.test)} | (
        {settings.probe_split: len(data.probe)} if data.probe is not None else {}
    )
    return replace(settings, final=[metric], during=[]).too_small(sizes)
