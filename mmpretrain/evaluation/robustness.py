"""What is left where a modality is missing.

A linear probe and the nearest neighbors learn from the train split with all modalities and are asked about held-out
samples of which one modality is left out. In the concatenation of embeddings (``left+right``) its place is taken by the
train split's mean, which says nothing; a fusion is run without it, and its answer is what is read. ``kept`` is the
share of what is above chance that is left: 1 loses nothing, 0 is chance, below 0 is worse than a constant answer.
A fused embedding without the modality is also a query among the complete ones (``recall@1``): does the sample find
itself? Only samples that have all modalities are asked. Shapes: n samples, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from mmpretrain.evaluation.bootstrap import Measured, mean_of
from mmpretrain.evaluation.classification import majority_share
from mmpretrain.evaluation.embeddings import Embeddings, classes_of
from mmpretrain.evaluation.evaluator import Evaluator, Evidence
from mmpretrain.evaluation.knn import right_answers
from mmpretrain.evaluation.linear_probe import check_known, fitted
from mmpretrain.evaluation.retrieval import measure_retrieval
from mmpretrain.evaluation.similarity import unit_rows

FUSED = "fused"
Sides = dict[str, list[np.ndarray]]  # what is left out, "" for nothing -> blocks [n, d] of the held-out samples


class Robustness(Evaluator):
    """Scores without each of the modalities, beside those with all.

    Keys: ``SUBJECT/probe``, ``SUBJECT/knn`` (accuracies, with chance: the most frequent label's share), the same
    without a modality as ``SUBJECT/probe/without/NAME``, and ``SUBJECT/probe/kept/NAME`` where all modalities are above
    chance; ``fused/recall@1/without/NAME``. Subjects: the concatenation, and ``fused`` of models with a fusion.
    """

    everywhere: ClassVar[bool] = True

    def scores(self, evidence: Evidence) -> Mapping[str, float | Measured]:
        """See the class. Raises ValueError for labels that nothing can be learned from, or of a fusion that cannot be
        run without a modality here."""
        train, test = _complete(evidence.train), _complete(evidence.test)
        names = list(test.embeds)
        blocks = _without_one(train, test)
        scores = _subject("+".join(names), list(train.embeds.values()), blocks, train, test, evidence)
        if test.fused is not None:
            assert train.fused is not None
            left_out = {name: _fused_without(name, evidence) for name in names}
            sides: Sides = {"": [test.fused], **{name: [rows] for name, rows in left_out.items()}}
            scores |= _subject(FUSED, [train.fused], sides, train, test, evidence)
            scores |= _finding_itself(test.fused, left_out, evidence)
        return scores


def _complete(embeddings: Embeddings) -> Embeddings:
    return embeddings.only(embeddings.having(embeddings.embeds))


def _without_one(train: Embeddings, test: Embeddings) -> Sides:
    """The modalities' blocks side by side, with all and with each one's place taken by the train split's mean."""
    whole = {name: unit_rows(rows.astype(np.float64)) for name, rows in test.embeds.items()}
    found: Sides = {"": list(whole.values())}
    for left_out in whole:
        mean = unit_rows(train.embeds[left_out].astype(np.float64)).mean(axis=0)
        blank = np.broadcast_to(mean, whole[left_out].shape)
        found[left_out] = [blank if name == left_out else rows for name, rows in whole.items()]
    return found


def _fused_without(name: str, evidence: Evidence) -> np.ndarray:
    """[n, d]: the fusion's answer for the complete samples, without this modality; a collective."""
    if evidence.embed_without is None:
        raise ValueError("robustness: the model has a fusion and cannot be run without a modality here; leave it out")
    found = evidence.embed_without(evidence.split, name)
    rows = found.only(evidence.test.having(evidence.test.embeds)).fused
    if rows is None:
        raise ValueError(f"robustness: the model fuses nothing without {name}; leave robustness out")
    return rows


def _subject(
    subject: str, train: list[np.ndarray], sides: Sides, complete: Embeddings, test: Embeddings, evidence: Evidence
) -> dict[str, float | Measured]:
    """Scores of one representation. train: its blocks of the train split, sides: of the held-out one."""
    known, truth = classes_of(complete, "train", "robustness"), classes_of(test, "held-out", "robustness")
    check_known(known)
    learned = _joined(train)
    asked = {name: _joined(blocks, unit=name == "" or subject == FUSED) for name, blocks in sides.items()}
    right = {
        "probe": _probed(learned, asked, known, truth, evidence),
        "knn": _voted(learned, asked, known, truth, evidence),
    }
    chance = majority_share(truth)
    scores: dict[str, float | Measured] = {}
    for kind, outcomes in right.items():
        whole = float(outcomes[""].mean())
        scores |= {f"{subject}/{kind}": mean_of(outcomes[""]), f"{subject}/{kind}/chance": chance}
        for name in (name for name in sides if name):
            part = mean_of(outcomes[name])
            scores |= {f"{subject}/{kind}/without/{name}": part, f"{subject}/{kind}/without/{name}/chance": chance}
            if whole > chance:
                scores[f"{subject}/{kind}/kept/{name}"] = (part.value - chance) / (whole - chance)
    return scores


def _joined(blocks: list[np.ndarray], *, unit: bool = True) -> np.ndarray:
    """float64 [n, sum of d]. unit: whether each block's rows are scaled to length 1."""
    rows = [block.astype(np.float64) for block in blocks]
    return np.hstack([unit_rows(block) for block in rows] if unit else rows)


def _probed(
    train: np.ndarray, asked: Mapping[str, np.ndarray], known: np.ndarray, truth: np.ndarray, evidence: Evidence
) -> dict[str, np.ndarray]:
    """name -> whether the probe is right, [n]; rank 0 fits it, and elsewhere all is 0 and nobody looks."""
    if evidence.world.rank:
        return {name: np.zeros(len(rows)) for name, rows in asked.items()}
    probe, _ = fitted(train, known, evidence.settings.linear_probe)
    return {name: probe.predict(rows) == truth for name, rows in asked.items()}


def _voted(
    train: np.ndarray, asked: Mapping[str, np.ndarray], known: np.ndarray, truth: np.ndarray, evidence: Evidence
) -> dict[str, np.ndarray]:
    """name -> whether the neighbors are right, [n] in [0, 1]; all ranks share the rows."""
    settings = replace(evidence.settings.knn, k=min(evidence.settings.knn.k, len(known)))
    samples = unit_rows(train)
    return {
        name: right_answers(samples, unit_rows(rows), known, truth, settings, world=evidence.world)
        for name, rows in asked.items()
    }


def _finding_itself(
    whole: np.ndarray, left_out: Mapping[str, np.ndarray], evidence: Evidence
) -> dict[str, float | Measured]:
    scores: dict[str, float | Measured] = {}
    for name, rows in left_out.items():
        pair = Embeddings(np.arange(len(whole)), {"part": rows, "whole": whole})
        found = measure_retrieval(pair, evidence.world, (1,), directions=[("part", "whole")])
        scores |= {f"{FUSED}/recall@1/without/{name}": found["part->whole/recall@1"]}
        scores |= {f"{FUSED}/recall@1/without/{name}/chance": found["part->whole/recall@1/chance"]}
    return scores
