"""Which charts a page has, from the names of the numbers in metrics.jsonl.

Of one run, numbers that belong together share a chart (the loss and its terms); of several, every number has its own
chart, with a line per run. Numbers that this file does not know come last, each as it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmpretrain.comparison.rows import Row
from mmpretrain.config.evaluation import Metric
from mmpretrain.records import parse_scores
from mmpretrain.report.chart import Curve, Panel
from mmpretrain.report.metrics import Column
from mmpretrain.report.record import Record

MOST_CURVES = 16  # of one chart
MOST_SHOWN = 12  # charts of evaluations that are shown at once
EVALUATED = re.compile(r"eval/([^/]+)/(.+)")
IN_ALL = ("samples", "epoch")  # they only say where a line stands


@dataclass(frozen=True)
class Kind:
    """A group of numbers: which names it has, and how they are drawn. main: whether it is shown at once."""

    names: re.Pattern[str]
    title: str
    shares: bool = False
    zero: bool = False
    log: bool = False
    smoothing: bool = True
    main: bool = True


KINDS = (
    Kind(re.compile(r"loss(/.+)?"), "Loss", log=True),
    Kind(re.compile(r"accuracy(/.+)?"), "Accuracy within the batch", shares=True, zero=True),
    Kind(re.compile(r"(logit_)?(scale|bias|temperature)(/.+)?"), "Scale of similarities", log=True, smoothing=False),
    Kind(re.compile(r"(lr|learning_rate)(/.+)?"), "Learning rate", zero=True, log=True, smoothing=False),
    Kind(re.compile(r"nats/.+"), "Bounds of information, nats"),
    Kind(re.compile(r"critics/(?!grad_norm).+"), "Loss of the upper bounds' critics, nats (above 0: none is learned)"),
    Kind(re.compile(r"critic_norm/.+"), "Norm of the critics' weights", smoothing=False),
    Kind(re.compile(r"grad_norm(/.+)?"), "Gradient norm", zero=True, log=True),
    Kind(re.compile(r"samples_per_s"), "Samples per second", zero=True),
    Kind(re.compile(r"data_wait(_max)?_s"), "Waiting for data, seconds per step", zero=True, log=True),
    Kind(re.compile(r"mfu|utilization"), "Model FLOPs utilization", shares=True, zero=True),
    Kind(re.compile(r"tflops_per_s"), "Model TFLOP per second", zero=True),
    Kind(re.compile(r"memory_gib(/.+)?|memory(_.*)?"), "Memory, GiB", zero=True, smoothing=False),
    Kind(re.compile(r"samples/.+"), "Samples of each source", zero=True, smoothing=False, main=False),
    Kind(re.compile(r"epoch/.+"), "Epochs of each source", zero=True, smoothing=False, main=False),
    Kind(re.compile(r"store/.+"), "Fetched from the store", zero=True, smoothing=False, main=False),
)


def training_panels(records: Sequence[Record]) -> tuple[list[Panel], list[Panel]]:
    """Charts that are shown at once, and the rest."""
    names = _names(records, lambda name: not EVALUATED.fullmatch(name) and name not in IN_ALL)
    shown: list[Panel] = []
    rest: list[Panel] = []
    for kind in KINDS:
        group = [name for name in names if kind.names.fullmatch(name)]
        group = [name for name in group if not _repeats(name, group, records)]
        if group:
            (shown if kind.main else rest).extend(_of_kind(kind, group, records))
    known = {name for name in names for kind in KINDS if kind.names.fullmatch(name)}
    other = [name for name in names if name not in known]
    rest += [_panel(name, [name], records, Kind(re.compile(""), name)) for name in other]
    return shown, rest


def evaluation_panels(records: Sequence[Record]) -> tuple[list[Panel], list[Panel]]:
    """Charts of the evaluations made while training: those of main scores, and the rest."""
    found: dict[tuple[str, str, str], list[str]] = {}
    rows: dict[str, Row] = {}
    for name in _names(records, lambda name: bool(EVALUATED.fullmatch(name))):
        match = EVALUATED.fullmatch(name)
        assert match is not None
        score = parse_scores({match[2]: 0.0})[0]
        rows[name] = Row(score.metric, score.subject, score.name, {}, None)
        if rows[name].is_main:
            found.setdefault((match[1], score.metric, score.name), []).append(name)
    shown: list[Panel] = []
    rest: list[Panel] = []
    for (split, _, score_name), names in found.items():
        row = rows[names[0]]
        kind = Kind(re.compile(""), row.heading, shares=row.is_share, zero=row.is_share, smoothing=False)
        labels = {name: rows[name].subject.replace("->", " → ") or row.heading for name in names}
        made = _of_kind(
            kind, names, records, labels, note=f"{_spaced(score_name)} on {split}", chances=_chances(records)
        )
        (shown if row.is_drawn else rest).extend(made)
    return shown[:MOST_SHOWN], shown[MOST_SHOWN:] + rest


def heading(metric: str) -> str:
    """A metric in words."""
    known = Metric.__members__.get(metric)
    return known.heading.partition(":")[0] if known else _spaced(metric)


def _of_kind(
    kind: Kind,
    names: Sequence[str],
    records: Sequence[Record],
    labels: dict[str, str] | None = None,
    note: str = "",
    chances: dict[str, float] | None = None,
) -> list[Panel]:
    """One chart for a run; for several one for each number."""
    chances = chances or {}
    if len(records) == 1:
        found = {chances[name] for name in names if name in chances}
        chance = found.pop() if len(found) == 1 else None
        parts = [names[start : start + MOST_CURVES] for start in range(0, len(names), MOST_CURVES)]
        alone = labels[names[0]] if labels and len(names) == 1 else _label(names[0], kind)
        said = _note(names[0], alone, note) if len(names) == 1 else note
        return [_panel(kind.title, part, records, kind, labels, said, chance) for part in parts]
    made = []
    for name in names:
        label = (labels or {}).get(name) or _label(name, kind)
        made.append(_panel(kind.title, [name], records, kind, labels, _note(name, label, note), chances.get(name)))
    return made


def _note(name: str, label: str, note: str) -> str:
    """What a chart of one number says beside its title: which one, of several that have this title."""
    told = label if ("/" in name and label not in note) or name.startswith("data_wait") else ""
    return " · ".join(filter(None, (told, note)))


def _panel(
    title: str,
    names: Sequence[str],
    records: Sequence[Record],
    kind: Kind,
    labels: dict[str, str] | None = None,
    note: str = "",
    chance: float | None = None,
) -> Panel:
    one = len(records) == 1
    curves = []
    for run, record in enumerate(records):
        for place, name in enumerate(names):
            if name in record.columns:
                label = ((labels or {}).get(name) or _label(name, kind)) if one else record.name
                curves.append(Curve(label, record.columns[name], place if one else run, run, kind.smoothing))
    return Panel(title, curves, note, kind.shares, kind.zero, kind.log, chance, named=one and len(curves) > 1)


def _names(records: Sequence[Record], wanted: Callable[[str], bool]) -> list[str]:
    """Of all runs, in the order in which they come first."""
    every = dict.fromkeys(name for record in records for name in record.columns)
    return [name for name in every if wanted(name)]


def _repeats(name: str, group: Sequence[str], records: Sequence[Record]) -> bool:
    """Whether the loss's only term is the loss itself."""
    first = group[0]
    if name == first or not name.startswith(f"{first}/"):
        return False
    return all(
        name not in record.columns or _equal(record.columns[name], record.columns.get(first)) for record in records
    )


def _equal(one: Column, other: Column | None) -> bool:
    return (
        other is not None
        and len(one.values) == len(other.values)
        and bool(np.allclose(one.values, other.values, rtol=1e-6, equal_nan=True))
    )


def _chances(records: Sequence[Record]) -> dict[str, float]:
    """Chance of scores while training, where the final evaluation is of the same split; where runs agree."""
    found: dict[str, set[float]] = {}
    for record in records:
        split = record.setting("evaluation.split", "test")
        for score in parse_scores(dict(record.scores)):
            if score.chance is not None:
                key = "/".join(part for part in (score.metric, score.subject, score.name) if part)
                found.setdefault(f"eval/{split}/{key}", set()).add(round(score.chance, 9))
    return {key: values.pop() for key, values in found.items() if len(values) == 1}


def _label(name: str, kind: Kind) -> str:
    """``loss/contrastive`` as contrastive; a number that is alone of its kind as the kind."""
    if name in ("loss", "accuracy", "scale", "lr", "grad_norm", "samples_per_s"):
        return {"loss": "loss", "lr": "learning rate"}.get(name, _spaced(name))
    if name.startswith("data_wait"):
        return "longest" if "max" in name else "mean"
    return _spaced(name.partition("/")[2] or name)


def _spaced(name: str) -> str:
    return name.replace("_", " ")
