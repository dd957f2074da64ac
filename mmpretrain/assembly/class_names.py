"""Names of the classes of a classifier, and its answers in the order of another numbering of them.

Labels are numbers, and two data sets may number the same classes otherwise. What a class is says its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmpretrain.words import listed


def class_names(config: Any) -> list[str] | None:
    """Of a transformers config the names of its classes by their numbers; None if nobody named them."""
    named = {int(number): str(name) for number, name in (getattr(config, "id2label", None) or {}).items()}
    names = [named[number] for number in sorted(named)]
    return None if names == [f"LABEL_{number}" for number in range(len(names))] else names


@dataclass(frozen=True)
class Answers:
    """Of a classifier to data. columns: places of its answers, those of the data's classes first and in their order;
    None: as they are. unfit: why its answers are not compared with the data's labels, a predicate of the metric."""

    columns: list[int] | None = None
    unfit: str | None = None


def answers_to(config: Any, *namings: Sequence[str] | None) -> Answers:
    """What the classifier of a model says of data whose classes have these names, in the order of their labels.

    namings: names for the same classes, the first that the classifier knows counts; None or none: labels are taken for
    the classifier's own numbers.
    """
    known, given = class_names(config), [list(names) for names in namings if names]
    if not given or known is None:
        return _by_number(config.num_labels, max(map(len, given), default=0))
    names = next((names for names in given if not set(names) - set(known)), None)
    if names is None:
        strange = listed((name for name in given[0] if name not in known), most=3)
        return Answers(
            unfit=f"needs a classifier of the data's classes, and the model's does not know {strange} (it knows"
            f" {listed(known, most=3)}): if they are the same, give --classes with its names for them"
        )
    first = [known.index(name) for name in names]
    columns = [*first, *sorted(set(range(len(known))) - set(first))]
    return Answers(None if columns == list(range(len(known))) else columns)


def _by_number(told_apart: int, classes: int) -> Answers:
    if classes <= told_apart:
        return Answers()
    return Answers(
        unfit=f"needs a classifier of the data's classes, which are {classes}, and the model's tells {told_apart} apart"
    )
