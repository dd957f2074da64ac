"""What an evaluator is: one file of this folder with one class, and one row in mmpretrain/config/evaluation.py.

The row states the needs, so that what is lacking shows before training starts; the class does the work.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mmpretrain.config.evaluation import EvaluationConfig, Metric
from mmpretrain.config.implementation import implementation
from mmpretrain.evaluation.embeddings import Embeddings


@dataclass(frozen=True)
class Evidence:
    """All that an evaluator may look at.

    test: embeddings of the held-out split. probe: of the split to learn from, None unless some evaluator's row states
    that it needs one. classes: names of the labels, None where there are none or scores of single classes are not
    wanted. factors: name -> classes, what labels are codes of; empty if they are not. settings: of the evaluation.
    """

    test: Embeddings
    probe: Embeddings | None = None
    classes: Sequence[str] | None = None
    factors: Mapping[str, int] = field(default_factory=dict)
    settings: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def train(self) -> Embeddings:
        """Embeddings of the split to learn from. Raises LookupError for an evaluator that states no need of it."""
        if self.probe is None:
            raise LookupError("no split was embedded to learn from: state Need.probe_split in the evaluator's row")
        return self.probe


class Evaluator(ABC):
    """Scores of a model by its embeddings; no state, made anew for every evaluation, and run on rank 0 alone."""

    @abstractmethod
    def scores(self, evidence: Evidence) -> dict[str, float]:
        """``[SUBJECT/]SCORE`` -> value, and ``.../chance`` beside every score that has one.

        Raises ValueError, with the fix, where the data do not allow it.
        """


def load_evaluator(metric: Metric) -> Evaluator:
    """The implementation that the row of ``metric`` names."""
    found: type[Evaluator] = implementation(metric.implementation)
    return found()
