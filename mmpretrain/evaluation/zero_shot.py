"""Zero-shot classification: the nearest class name. As CLIP (arXiv 2103.00020, section 3.1.4): every name is written
into every template, a class is the mean of the embeddings of its texts, each of length 1, and the answer is the class
with the largest cosine similarity. Nothing is learned from labels.

Classes whose similarity lies within TIE of the right one's count as tied with it, and their order is taken as random: a
model that gives all classes one embedding scores exactly chance. Shapes: n samples, C classes, P templates, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from mmpretrain.distributed.world import World
from mmpretrain.evaluation.bootstrap import Measured, mean_of
from mmpretrain.evaluation.embeddings import Embeddings, classes_of
from mmpretrain.evaluation.evaluator import Evaluator, Evidence
from mmpretrain.evaluation.probe_scores import balanced
from mmpretrain.evaluation.sharing import shared_rows
from mmpretrain.evaluation.similarity import TIE, check_widths, unit_rows

KS = (1, 5)


class ZeroShot(Evaluator):
    """:func:`zero_shot` with ``evaluation.zero_shot``."""

    everywhere: ClassVar[bool] = True

    def scores(self, evidence: Evidence) -> Mapping[str, float | Measured]:
        """See :func:`zero_shot`. Raises ValueError without names of classes or without a text encoder."""
        settings = evidence.settings.zero_shot
        names = settings.classes or evidence.classes
        if not names:
            raise ValueError("zero_shot needs names of the classes: set evaluation.zero_shot.classes")
        if evidence.prompts is None:
            raise ValueError("zero_shot needs a model with a text encoder; leave zero_shot out")
        texts = [template.replace("{}", name) for name in names for template in settings.templates]
        classes = {name: class_rows(rows, len(names)) for name, rows in evidence.prompts(texts).items()}
        return zero_shot(evidence.test, classes, evidence.world)


def class_rows(texts: np.ndarray, classes: int) -> np.ndarray:
    """[C, d], unit: the mean of each class's texts, of ``texts`` [C P, d], class by class."""
    # In float64 platforms agree.
    unit = unit_rows(texts.astype(np.float64)).reshape(classes, -1, texts.shape[1])
    return unit_rows(unit.mean(axis=1))


def zero_shot(test: Embeddings, classes: Mapping[str, np.ndarray], world: World) -> dict[str, float | Measured]:
    """Scores of every modality that is no text, by every text: ``MODALITY->TEXT/SCORE``; a collective.

    classes: text modality -> unit [C, d]. ``accuracy``, ``accuracy@5`` (the right class is among the first five, of
    more than five) and ``balanced_accuracy`` (over the classes that occur), each with the ``/chance`` of a random
    answer.
    Raises ValueError for widths that differ, labels that are not one class each, and labels without a name.
    """
    labels = classes_of(test, "held-out", "zero_shot")
    scores: dict[str, float | Measured] = {}
    for text, rows in classes.items():
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(rows):
            raise ValueError(
                f"zero_shot: labels reach from {labels.min()} to {labels.max()}, and {len(rows)} classes have names:"
                " set evaluation.zero_shot.classes to a name for each"
            )
        for name in test.embeds:
            there = test.having([name])
            if name not in classes and there.any():
                found = _scores(test.embeds[name][there], rows, labels[there], world)
                scores |= {f"{name}->{text}/{score}": value for score, value in found.items()}
    return scores


def _scores(embeds: np.ndarray, classes: np.ndarray, labels: np.ndarray, world: World) -> dict[str, float | Measured]:
    queries = unit_rows(embeds.astype(np.float64))
    check_widths(queries, classes, "zero_shot")
    ks: Sequence[int] = [k for k in KS if k == 1 or k < len(classes)]

    def outcomes(rows: slice) -> list[np.ndarray]:
        similarity = queries[rows] @ classes.T
        own = similarity[np.arange(len(similarity)), labels[rows]][:, None]
        ahead = (similarity > own + TIE).sum(axis=1)
        tied = (similarity >= own - TIE).sum(axis=1) - ahead
        return [np.clip((k - ahead) / tied, 0, 1) for k in ks]

    places = shared_rows(world, len(queries), len(classes), [f"@{k}" for k in ks], outcomes)
    scores: dict[str, float | Measured] = {}
    for k in ks:
        name = "accuracy" if k == 1 else f"accuracy@{k}"
        scores |= {name: mean_of(places[f"@{k}"]), f"{name}/chance": k / len(classes)}
    return scores | balanced(places["@1"], labels) | {"balanced_accuracy/chance": 1 / len(classes)}
