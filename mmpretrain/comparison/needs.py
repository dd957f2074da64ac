"""Which metrics can be measured of a model on a data set, and why the others cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mmpretrain.comparison.job import EvaluateJob
from mmpretrain.comparison.looking import Looked
from mmpretrain.comparison.opened_data import OpenedData
from mmpretrain.config.data import LabelForm
from mmpretrain.config.evaluation import EvaluationConfig, Metric, Need
from mmpretrain.config.kind import Kind
from mmpretrain.words import listed

OF_SEVERAL = (Metric.retrieval, Metric.robustness, Metric.zero_shot)


@dataclass(frozen=True)
class Plan:
    """metrics: to be measured of a model. left_out: those that cannot be, and why, as a predicate of the metric."""

    metrics: list[Metric]
    left_out: dict[Metric, str] = field(default_factory=dict)


def planned(model: Looked, data: OpenedData, job: EvaluateJob, settings: EvaluationConfig) -> Plan:
    """What can be measured of a model, among the wanted metrics."""
    absent = _absent(model, data, job, settings)
    wanted, reasons = job.wanted or list(Metric), dict[Metric, str]()
    for metric in wanted:
        lacking = [absent[need] for need in metric.needs if need in absent]
        if metric in OF_SEVERAL and len(model.towers) < 2:
            lacking = [f"needs two modalities, and the model embeds {listed(model.towers)} alone"]
        if lacking := lacking or list(_too_small(metric, data, settings)):
            reasons[metric] = lacking[0]
    return Plan([metric for metric in wanted if metric not in reasons], reasons)


def _absent(model: Looked, data: OpenedData, job: EvaluateJob, settings: EvaluationConfig) -> Mapping[Need, str]:
    """Need -> what is missing, as a predicate of the metric's name."""
    widths = ", ".join(f"{name} [{width}]" for name, width in model.widths.items())
    named = bool(data.classes or settings.zero_shot.classes)
    conditions = {
        Need.labels: (
            data.labeled,
            f"needs labels, and not every sample of {job.data} has one: name their member by --label",
        ),
        Need.one_class: (
            data.label.form is LabelForm.one_class,
            f"needs one class per sample, and --label-form is {data.label.form.value}: choose linear_probe",
        ),
        Need.factors: (bool(data.factors), f"needs factors, which no dataset.json of {job.data} names"),
        Need.probe_split: (
            data.probe is not None,
            f"needs samples to learn from, and {job.data} has no split {job.probe_split}: name one by --probe-split",
        ),
        Need.logits: _fitting(model),
        Need.equal_widths: (
            len(set(model.widths.values())) == 1,
            f"needs embeddings of one width, and the model has {widths}: choose by --modalities",
        ),
        Need.texts: (Kind.text in model.kinds.values(), "needs a text, and the model embeds none of this data"),
        Need.class_names: (
            named,
            f"needs names of the classes, which no dataset.json of {job.data} has: give --classes",
        ),
    }
    return {need: text for need, (met, text) in conditions.items() if not met}


def _fitting(model: Looked) -> tuple[bool, str]:
    if model.answers is None:
        return False, "needs logits, and the model has no classifier of these modalities"
    return model.answers.unfit is None, model.answers.unfit or ""


def _too_small(metric: Metric, data: OpenedData, settings: EvaluationConfig) -> Sequence[str]:
    sizes = {split: len(index) for split, index in data.splits.items()}
    return replace(settings, final=[metric], during=[]).too_small(sizes)
