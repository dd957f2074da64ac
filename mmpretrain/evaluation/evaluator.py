"""What an evaluator is: one file of this folder with one class, and one row in mmpretrain/config/evaluation.py.

The row states the needs, so that what is lacking shows before training starts; the class does the work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from mmpretrain.config.evaluation import EvaluationConfig, Metric
from mmpretrain.config.implementation import implementation
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.bootstrap import Measured
from mmpretrain.evaluation.embeddings import Embeddings

# Texts -> text modality -> float32 [texts, d]. A collective: every rank asks for the same texts, and gets all of them.
Prompts = Callable[[Sequence[str]], Mapping[str, np.ndarray]]

# (split, modality) -> embeddings of that split by a model that was not given the modality. A collective.
EmbedWithout = Callable[[str, str], Embeddings]


@dataclass(frozen=True)
class Evidence:
    """All that an evaluator may look at.

    test: embeddings of the held-out split. probe: of the split to learn from, None unless some evaluator's row states
    that it needs one. classes: names of the labels, None where there are none or scores of single classes are not
    wanted. factors: name -> classes, what labels are codes of; empty if they are not. settings: of the evaluation.
    split: name of the held-out split. world: the ranks, for evaluators that all of them run. prompts, embed_without:
    see their types; None where nobody gave them.
    """

    test: Embeddings
    probe: Embeddings | None = None
    classes: Sequence[str] | None = None
    factors: Mapping[str, int] = field(default_factory=dict)
    settings: EvaluationConfig = field(default_factory=EvaluationConfig)
    split: str = "test"
    world: World = field(default_factory=World)
    prompts: Prompts | None = None
    embed_without: EmbedWithout | None = None

    @property
    def train(self) -> Embeddings:
        """Embeddings of the split to learn from. Raises LookupError for an evaluator that states no need of it."""
        if self.probe is None:
            raise LookupError("no split was embedded to learn from: state Need.probe_split in the evaluator's row")
        return self.probe


class Evaluator(ABC):
    """Scores of a model by its embeddings; no state, and made anew for every evaluation.

    everywhere: whether all ranks run it, and share the work by ``evidence.world``; else rank 0 does, and they wait.
    by_shares: whether embeddings do for it of which every rank has a share alone (``Embeddings.share``).
    """

    everywhere: ClassVar[bool] = False
    by_shares: ClassVar[bool] = False

    @abstractmethod
    def scores(self, evidence: Evidence) -> Mapping[str, float | Measured]:
        """``[SUBJECT/]SCORE`` -> value, and ``.../chance`` beside every score that has one.

        A :class:`Measured` also gets an interval, where intervals are wanted. Raises ValueError, with the fix, where
        the data do not allow it; of an evaluator that runs everywhere on all ranks, or by ``shared_rows``.
        """


def load_evaluator(metric: Metric) -> Evaluator:
    """The implementation that the row of ``metric`` names."""
    found: type[Evaluator] = implementation(metric.implementation)
    return found()
