"""What a linear classifier reads from frozen embeddings.

Multinomial logistic regression (L2, C = 1, L-BFGS) on L2-normalized embeddings, standardized with the train split's
mean and deviation, fitted on one split and scored on the held-out one. Nothing is tuned on the held-out split, and
nothing is random. Shapes: n samples, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmpretrain.evaluation.classification import majority_share
from mmpretrain.evaluation.embeddings import Embeddings, labels_of
from mmpretrain.evaluation.evaluator import Evaluator, Evidence
from mmpretrain.evaluation.representations import probed_representations

MAX_ITERATIONS = 1000


class LinearProbe(Evaluator):
    """:func:`linear_probe` of everything that a probe may read."""

    def scores(self, evidence: Evidence) -> dict[str, float]:
        """See :func:`linear_probe`."""
        return linear_probe(evidence.train, evidence.test, evidence.classes)


def linear_probe(train: Embeddings, test: Embeddings, classes: Sequence[str] | None = None) -> dict[str, float]:
    """Test accuracy for each modality, for all of them concatenated (``left+right``), and for what else there is.

    Keys: ``SUBJECT/accuracy`` and ``SUBJECT/accuracy/chance`` (share of the most frequent test label); subjects are all
    of representations.py, ``shared+unique`` among them. With the names of the ``classes`` also the concatenation's
    recall of each class that the test split holds: ``SUBJECT/recall/NAME``. Samples without a modality are left out
    where it is read.
    Raises ValueError if a split has no labels or the train split has one class only.
    """
    train_labels, test_labels = labels_of(train, "train", "linear_probe"), labels_of(test, "held-out", "linear_probe")
    modalities = "+".join(train.embeds)
    fitted, scored = probed_representations(train), probed_representations(test)
    scores: dict[str, float] = {}
    for name, representation in fitted.items():
        known, labels = train_labels[representation.rows], test_labels[scored[name].rows]
        if len(np.unique(known)) < 2:
            raise ValueError("linear_probe: all samples of the train split have one label; leave linear_probe out")
        answers = _answers(representation.unit_blocks(), known, scored[name].unit_blocks())
        scores[f"{name}/accuracy"] = float(accuracy_score(labels, answers))
        scores[f"{name}/accuracy/chance"] = majority_share(labels)
        for label in np.unique(labels) if classes is not None and name == modalities else ():
            recall = float(np.mean(answers[labels == label] == label))
            scores[f"{name}/recall/{_class_name(classes, int(label))}"] = recall
    return scores


def _answers(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    return probe.fit(train, labels).predict(test)


def _class_name(classes: Sequence[str] | None, label: int) -> str:
    return classes[label] if classes is not None and 0 <= label < len(classes) else str(label)
