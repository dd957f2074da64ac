"""What two modalities of a release share, what is each one's own, and which dimensions carry it.

The parts of each embedding's variance (variance_parts.py), the canonical correlations against what unrelated data
reach, whether the common dimension fits, what linear classifiers read of labels, and which pairs the common score
finds. What counts is the split that nothing was fitted on. Shapes: n samples, d width of the embedding, r correlations,
k common directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.retrieval import exact_scores, pair_places
from mmpretrain.evaluation.similarity import unit_rows
from mmpretrain.explain.decomposition import (
    CodesOrigin,
    Decomposition,
    code_correlations,
    fit,
    scored_samples,
    split_codes,
)
from mmpretrain.explain.part_probes import part_probes, targets_of
from mmpretrain.explain.scores import Codes
from mmpretrain.explain.settings import PART_MEANINGS, Settings
from mmpretrain.explain.variance_parts import VarianceParts
from mmpretrain.losses.canonical import canonical_of_rows, common_dimension, permutation_null
from mmpretrain.records import Score

# Of the correlation of n unrelated samples, in units of 1 / sqrt(n): one in twenty lies above.
ABOVE_CHANCE = 1.645


class DimensionVerdict(StrEnum):
    """Whether the common dimension fits: individual codes still correlate, or more canonical correlations of the
    embeddings stand out than there are common codes (too small); or some common directions do not correlate on
    held-out samples (too large)."""

    fits = "fits"
    too_small = "too small"
    too_large = "too large"


@dataclass(frozen=True)
class Leftover:
    """What individual codes still share. correlations: [..], canonical ones of u_1 and u_2, descending. threshold: what
    the largest reaches without any relation."""

    correlations: Tensor
    threshold: float

    @property
    def exceeding(self) -> int:
        """How many correlations chance does not explain."""
        return common_dimension(self.correlations, self.threshold)


@dataclass(frozen=True)
class ModalityParts:
    """The parts of one modality's variance, on the scored split and on the one of the fit. coordinates: [d] each, on
    the scored split."""

    held_out: VarianceParts
    in_sample: VarianceParts
    coordinates: VarianceParts


@dataclass(frozen=True)
class Report:
    """Correlations on the scored split: held_out [r] of the fitted directions, confirmed [k] of the common codes.

    parts: by modality. retrieval: by what -> recall and median rank, with chances. samples: how many were fitted and
    scored. towers: modality of the data -> the release's tower that embedded it.
    """

    decomposition: Decomposition
    held_out: Tensor
    confirmed: Tensor
    leftover: Leftover
    parts: dict[str, ModalityParts]
    probes: list[Score]
    retrieval: dict[str, dict[str, float]]
    samples: dict[str, int]
    towers: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> DimensionVerdict:
        """Whether the common dimension fits."""
        # Individual codes that are narrow, or trained to, leave out what the common ones had no room for.
        if self.leftover.exceeding or self.decomposition.exceeding > len(self.decomposition.rho):
            return DimensionVerdict.too_small
        return DimensionVerdict.too_large if self.confirmed_dimensions < len(self.confirmed) else DimensionVerdict.fits

    @property
    def confirmed_dimensions(self) -> int:
        """How many common directions correlate on the scored split too."""
        return common_dimension(self.confirmed, ABOVE_CHANCE / self.samples["scored"] ** 0.5)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers: what information.json holds."""
        fitted = self.decomposition
        return {
            "pair": list(fitted.pair),
            "towers": dict(self.towers),
            "shared": {name: float(self.parts[name].held_out.shared) for name in fitted.pair},
            "sentences": headlines(self),
            "definitions": PART_MEANINGS,
            "codes": fitted.origin.value,
            "samples": self.samples,
            "common_dimension": len(fitted.rho),
            "verdict": self.verdict.value,
            "advice": advice(self),
            "correlations": {
                "common_codes": fitted.rho.tolist(),
                "common_codes_held_out": self.confirmed.tolist(),
                "spectrum": fitted.spectrum.tolist(),
                "held_out": self.held_out.tolist(),
                "threshold": fitted.threshold,
                "left_in_individual": self.leftover.correlations.tolist(),
                "left_threshold": self.leftover.threshold,
                "left_sum_of_squares": float(self.leftover.correlations.square().sum()),
            },
            "modalities": {name: _modality(fitted, name, self.parts[name]) for name in fitted.pair},
            "probes": {f"{s.subject}/{s.name}": {"score": s.value, "chance": s.chance} for s in self.probes},
            "retrieval": self.retrieval,
        }


def information_report(
    train: Embeddings,
    test: Embeddings,
    pair: tuple[str, str],
    settings: Settings,
    origin: CodesOrigin,
    factors: Mapping[str, int],
    split: str = "test",
    towers: Mapping[str, str] | None = None,
) -> Report:
    """Fit on ``train``, score on ``test``. factors: what labels are codes of, or empty. split: what ``test`` is called.
    towers: as in :class:`Report`.

    Raises ValueError as ``fit``, and if no sample is left to score.
    """
    fitted = fit(train, pair, settings, origin)
    both, held = train.only(train.having(pair)), scored_samples(test, pair, split)
    codes, held_codes = split_codes(fitted, both), split_codes(fitted, held)
    known, truth = targets_of(both.labels, factors), targets_of(held.labels, factors)
    probes = part_probes(codes, held_codes, known, truth) if known and truth else []
    samples = {"fitted": len(both), "scored": len(held)}
    return Report(
        fitted,
        _held_out(fitted, held),
        code_correlations(*(held_codes[name].common for name in pair)),
        _leftover(fitted, codes, settings),
        _parts(fitted, (both, codes), (held, held_codes)),
        probes,
        _retrieval(fitted, held, held_codes),
        samples,
        towers or {},
    )


def headlines(report: Report) -> list[str]:
    """What the report says first, a sentence for each modality."""
    pair = report.decomposition.pair
    return [
        f"{other} explains {percent(parts.held_out.shared)} of what varies in the embedding of {name} (on samples that"
        f" nothing was fitted on; {percent(parts.in_sample.shared)} on those of the fit)"
        for name, other in (pair, pair[::-1])
        for parts in (report.parts[name],)
    ]


def percent(fraction: float | Tensor) -> str:
    """A fraction in words; what is not quite nothing says so."""
    number = 100 * float(fraction)
    return "less than 1 %" if 0 < number < 1 else f"{number:.0f} %"


def advice(report: Report) -> str:
    """The verdict in words, with the numbers, and what to try."""
    fitted, k = report.decomposition, len(report.decomposition.rho)
    chance = f"more than the {fitted.threshold:.2f} that unrelated data reach"
    if report.verdict is DimensionVerdict.too_small:
        more, left = report.leftover.exceeding, report.leftover.correlations
        if not more:
            return (
                f"{_directions(k)} too few: {fitted.exceeding} directions of the embeddings correlate by {chance}, and"
                f" the model's own codes leave the others out; {_try(fitted, fitted.exceeding)}"
            )
        return (
            f"{_directions(k)} too few: what they leave of the two modalities still correlates in {more} more (the"
            f" largest by {float(left[0]):.2f}, unrelated data by up to {report.leftover.threshold:.2f});"
            f" {_try(fitted, k + more)}"
        )
    if report.verdict is DimensionVerdict.too_large:
        confirmed = report.confirmed_dimensions
        return (
            f"{_directions(k)} too many: only {confirmed} of them {'correlates' if confirmed == 1 else 'correlate'} on"
            f" samples that nothing was fitted on; {_try(fitted, confirmed)}"
        )
    if not k:
        return f"nothing is shared: no direction of the embeddings correlates by {chance}"
    return f"{_directions(k)} enough: what is left of the two modalities correlates no more than unrelated data would"


def _directions(k: int) -> str:
    return f"{k} common {'direction is' if k == 1 else 'directions are'}"


def _try(fitted: Decomposition, k: int) -> str:
    if fitted.origin is CodesOrigin.model:
        return f"train the model with model.components.common={k}"
    return f"try --common {k}" if k else "take them for unrelated"


def _parts(
    fitted: Decomposition, train: tuple[Embeddings, Mapping[str, Codes]], test: tuple[Embeddings, Mapping[str, Codes]]
) -> dict[str, ModalityParts]:
    """train, test: embeddings that have both modalities, and their codes."""
    found = {}
    for name, other in (fitted.pair, fitted.pair[::-1]):
        seen, unseen = (
            (torch.from_numpy(split.embeds[name]).double(), codes[name], codes[other]) for split, codes in (train, test)
        )
        parts = fitted.variance[name]
        held = parts.parts(*unseen), parts.parts(*seen), parts.parts(*unseen, coordinates=True)
        found[name] = ModalityParts(*held)
    return found


def _modality(fitted: Decomposition, name: str, parts: ModalityParts) -> dict[str, Any]:
    part = fitted.parts[name]
    directions = part.loadings[0].square().sum(dim=0) / part.variances.sum()
    return {
        "embedding_width": len(part.mean),
        "principal_components": part.components,
        "individual_dimension": part.loadings[1].shape[1],
        "parts": {
            "held_out": {key: float(value) for key, value in parts.held_out.named().items()},
            "in_sample": {key: float(value) for key, value in parts.in_sample.named().items()},
        },
        "variance_by_common_direction": directions.tolist(),
        "parts_of_coordinates": {key: value.tolist() for key, value in parts.coordinates.named().items()},
    }


def _held_out(fitted: Decomposition, test: Embeddings) -> Tensor:
    first, second = (torch.from_numpy(test.embeds[n]).double() @ fitted.directions[n] for n in fitted.pair)
    return code_correlations(first, second)


def _leftover(fitted: Decomposition, codes: Mapping[str, Codes], settings: Settings) -> Leftover:
    first, second = (codes[name].individual for name in fitted.pair)
    if not min(first.shape[1], second.shape[1]):
        return Leftover(fitted.rho.new_empty(0), fitted.threshold)
    correlations = canonical_of_rows(first, second).rho
    if fitted.origin is CodesOrigin.closed_form and settings.individual is None:
        # The dimension was chosen by this threshold; another one would contradict it at the margin. Of cut codes fewer
        # dimensions are compared, which reach less by chance.
        return Leftover(correlations, fitted.threshold)
    return Leftover(correlations, permutation_null(first, second, draws=settings.draws, seed=settings.seed))


def _retrieval(fitted: Decomposition, test: Embeddings, codes: Mapping[str, Codes]) -> dict[str, dict[str, float]]:
    """The first modality's samples look for their second one: by the common score, and by cosine if widths allow."""
    first, second = (codes[name].common.numpy() for name in fitted.pair)
    rows: dict[str, Sequence[np.ndarray]] = {"common score": (first, second)} if first.shape[1] else {}
    embeds = [test.embeds[name] for name in fitted.pair]
    if embeds[0].shape[1] == embeds[1].shape[1]:
        rows["cosine of embeddings"] = [unit_rows(found) for found in embeds]
    return {name: exact_scores(*pair_places(query, item), (1, 5, 10)) for name, (query, item) in rows.items()}
