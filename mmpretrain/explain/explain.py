"""Scores of a split's samples, and for some of them where in their input the scores come from.

For a pair of modalities with codes c and u (decomposition.py): where the gradient of the common score is large, the
input speaks of what the other modality shows too; where that of the individual score is, of what only it shows.
Shapes: n samples of the split, k common directions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from mmpretrain.data.reader import read_sample
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.attribution_maps import ExplainedSide, explain_samples
from mmpretrain.explain.decomposition import Decomposition, fit, scored_samples, split_codes
from mmpretrain.explain.opened import Opened
from mmpretrain.explain.sanity import Sanity, check_maps
from mmpretrain.explain.scores import common_score, individual_score, own_energy
from mmpretrain.explain.settings import AttributionForm, CommonScore, IndividualScore, Wanted


@dataclass(frozen=True)
class Scores:
    """Every sample's scores. keys: [n]. labels: int64 [n] or None. columns: name -> float64 [n].

    mismatched: float64 [n], the common score of every sample's first modality with another sample's second one.
    """

    keys: list[str]
    labels: np.ndarray | None
    columns: dict[str, np.ndarray]
    mismatched: np.ndarray


@dataclass(frozen=True)
class Explained:
    """One sample. row: its place among the scores. sides: modality -> its maps."""

    key: str
    row: int
    sides: dict[str, ExplainedSide]


@dataclass(frozen=True)
class Explanation:
    """decomposition: what the scores are made of. form: which they are. towers: modality of the data -> tower. sanity:
    the checks of the maps, None if none were asked for."""

    decomposition: Decomposition
    scores: Scores
    explained: list[Explained]
    form: AttributionForm = field(default_factory=AttributionForm)
    towers: dict[str, str] = field(default_factory=dict)
    sanity: Sanity | None = None

    @property
    def expected(self) -> float:
        """The mean of the common score of pairs like those of the fit: the sum of the correlations, weighted."""
        weights = self.decomposition.weights(self.form)
        rho = self.decomposition.rho
        return float((rho if weights is None else rho * weights).sum())


def explain(opened: Opened, wanted: Wanted) -> Explanation:
    """Score a split and explain some of its samples.

    Raises ValueError if there is no common direction to explain, no sample to score, or none of a wanted key.
    """
    fitted = fit(opened.embed(wanted.fit_split, wanted.limit), opened.pair, wanted.settings, opened.origin)
    _check_common(fitted)
    embeddings = scored_samples(opened.embed(wanted.split, wanted.limit), opened.pair, wanted.split)
    reader = opened.stream(wanted.split).reader
    keys = [reader.index.key(ordinal) for ordinal in embeddings.ordinals.tolist()]
    scores = score_table(embeddings, fitted, wanted.form, keys)
    rows = _chosen_rows(scores, wanted)
    raws = [read_sample(reader, opened.kinds, ordinal) for ordinal in embeddings.ordinals[rows].tolist()]
    reader.close()
    chosen = [keys[row] for row in rows.tolist()]
    sides = explain_samples(opened, fitted, wanted.form, raws, chosen)
    explained = [Explained(key, row, side) for key, row, side in zip(chosen, rows.tolist(), sides, strict=True)]
    checks = check_maps(opened, fitted, wanted, raws, chosen, sides) if wanted.checked else None
    return Explanation(fitted, scores, explained, wanted.form, opened.towers, checks)


def score_table(embeddings: Embeddings, fitted: Decomposition, form: AttributionForm, keys: list[str]) -> Scores:
    """The scores of samples that have both modalities: ``common``, ``common_cosine``, and of each modality
    ``common_NAME`` (|c|^2), ``individual_NAME`` (|u|^2), ``energy_NAME`` (the individual part's share of both parts'
    squared lengths) and ``own_NAME`` (the same of what individual codes add to the common ones: another number only
    where a model's own codes say the same thing twice)."""
    codes = split_codes(fitted, embeddings)
    weights = fitted.weights(form)
    first, second = (codes[name].common for name in fitted.pair)
    columns = {
        "common": common_score(first, second, CommonScore.product, weights),
        "common_cosine": common_score(first, second, CommonScore.cosine, weights),
    }
    for name, code in codes.items():
        loadings = fitted.parts[name].loadings
        columns[f"common_{name}"] = own_energy(code.common)
        columns[f"individual_{name}"] = individual_score(code, loadings)
        columns[f"energy_{name}"] = individual_score(code, loadings, IndividualScore.energy)
        columns[f"own_{name}"] = fitted.variance[name].own_share(code)
    # Each with the next in a random order: never itself, and whatever order the classes have in the shards.
    order = torch.randperm(len(first), generator=torch.Generator().manual_seed(0))
    mismatched = common_score(first[order], second[order.roll(1)], CommonScore.product, weights)
    return Scores(keys, embeddings.labels, {n: column.numpy() for n, column in columns.items()}, mismatched.numpy())


def _check_common(fitted: Decomposition) -> None:
    if not len(fitted.rho):
        raise ValueError(
            f"nothing that {fitted.pair[0]} and {fitted.pair[1]} share shows in these embeddings: their largest"
            f" canonical correlation is {float(fitted.spectrum[0]):.2f}, and unrelated data reach"
            f" {fitted.threshold:.2f}; take more samples, or set --common"
        )


def _chosen_rows(scores: Scores, wanted: Wanted) -> np.ndarray:
    """Rows of the wanted keys, or of the first samples of each of some labels, or evenly spread ones."""
    places = {key: row for row, key in enumerate(scores.keys)}
    missing = [key for key in wanted.keys if key not in places]
    if missing:
        raise ValueError(
            f"no sample {missing[0]!r} is scored in {wanted.split}: its first one is {scores.keys[0]!r}, and at most"
            f" {wanted.limit} evenly spaced ones are looked at (--limit)"
        )
    if wanted.keys:
        return np.array([places[key] for key in wanted.keys])
    rows = np.arange(len(scores.keys))
    if scores.labels is not None:
        classes = [np.flatnonzero(scores.labels == label) for label in np.unique(scores.labels)]
        rows = np.concatenate([found[: math.ceil(wanted.samples / len(classes))] for found in classes])
    spread = np.linspace(0, len(rows) - 1, min(wanted.samples, len(rows))).round().astype(int)
    return rows[np.unique(spread)]
