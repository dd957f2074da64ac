"""What two modalities share and what is each one's own: from embeddings to common and individual codes.

A model that decomposes its embeddings itself (MUCMM) gives its own codes. Any other model's embeddings are decomposed
by canonical correlation analysis, the closed form of the same objective (losses/canonical.py), after they were reduced
to their principal components: that leaves out directions that hardly vary, and keeps so many samples per dimension that
unrelated data would not correlate. A model's own codes are white on the data its training ended with; here they are
centered and whitened once more, on the data of the fit. Everything is fitted once and then held fixed. Shapes: n
samples, d width of the embedding, p principal components, r the lesser of both p, k common and u individual directions;
all float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.scores import Codes
from mmpretrain.explain.settings import AttributionForm, Settings
from mmpretrain.explain.variance_parts import PartsFit
from mmpretrain.losses.canonical import Canonical, canonical_of_rows, common_dimension, permutation_null

# Of the codes' variance: what is below it is rounding of a model's float32, not a direction.
DEPENDENT = 1e-10

Fields = Mapping[str, Mapping[str, Tensor] | None]  # embeds, shared, unique: modality -> [b, d]


class CodesOrigin(Enum):
    """Where codes come from: the model itself, or the closed form of its embeddings."""

    model = "the model's own codes"
    closed_form = "closed form of the embeddings"


@dataclass(frozen=True)
class Whitening:
    """Rows [n, k] to centered rows with covariance I, each column as near to its own as that allows (ZCA).

    mean: [k]. root: [k, k], S^(-1/2); directions that do not vary become 0.
    """

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Whitening:
        """By the rows [n, k] themselves."""
        values, vectors = torch.linalg.eigh(_covariance(rows, rows))
        kept = values > DEPENDENT * values.clamp(min=0).sum()
        roots = torch.where(kept, values, torch.inf).rsqrt()
        return cls(rows.mean(dim=0), vectors * roots @ vectors.T)

    def __call__(self, rows: Tensor) -> Tensor:
        """[n, k], white; differentiable."""
        return (rows - self.mean) @ self.root

    def to(self, device: torch.device) -> Whitening:
        """The same on ``device``."""
        return Whitening(self.mean.to(device), self.root.to(device))


@dataclass(frozen=True)
class ModalityPart:
    """One modality's share of a decomposition, as the data it was fitted on says.

    mean: [d]. variances: [d] of the embedding's coordinates. components: p. maps: [d, k] and [d, u], which take the
    centered embedding to its codes; None if the model gives codes itself. loadings: [d, k] and [d, u], covariances of
    embedding and codes. whitenings: of the model's common and individual codes; None: they are taken as they are.
    """

    mean: Tensor
    variances: Tensor
    components: int
    maps: tuple[Tensor, Tensor] | None
    loadings: tuple[Tensor, Tensor]
    whitenings: tuple[Whitening, Whitening] | None = None

    @property
    def shares(self) -> tuple[float, float]:
        """The common and the individual part's shares of the embedding's variance."""
        total = self.variances.sum()
        common, individual = (float(loading.square().sum() / total) for loading in self.loadings)
        return common, individual

    def codes(self, name: str, fields: Fields) -> Codes:
        """The codes of modality ``name`` in a model's output; differentiable in it."""
        embeds, shared, unique = (fields[field] for field in ("embeds", "shared", "unique"))
        if self.maps is not None:
            assert embeds is not None
            centered = embeds[name].double() - self.mean
            return Codes(centered @ self.maps[0], centered @ self.maps[1])
        assert shared is not None and unique is not None
        own = (shared[name].double(), unique[name].double())
        if self.whitenings is None:
            return Codes(*own)
        return Codes(*(whitening(rows) for whitening, rows in zip(self.whitenings, own, strict=True)))

    def to(self, device: torch.device) -> ModalityPart:
        """The same part, with what codes and scores need on ``device``."""
        maps = None if self.maps is None else (self.maps[0].to(device), self.maps[1].to(device))
        loadings = (self.loadings[0].to(device), self.loadings[1].to(device))
        white = None if self.whitenings is None else (self.whitenings[0].to(device), self.whitenings[1].to(device))
        return replace(self, mean=self.mean.to(device), maps=maps, loadings=loadings, whitenings=white)


@dataclass(frozen=True)
class Decomposition:
    """pair: the two modalities. parts: of each. rho: [k], correlations of the common codes. spectrum: [r], canonical
    correlations of the embeddings, directions: modality -> [d, r], their directions. threshold: what the largest of
    them reaches without any relation. samples: n. variance: of what parts each embedding's variance consists."""

    pair: tuple[str, str]
    parts: dict[str, ModalityPart]
    rho: Tensor
    spectrum: Tensor
    directions: dict[str, Tensor]
    threshold: float
    samples: int
    origin: CodesOrigin
    variance: dict[str, PartsFit] = field(default_factory=dict)

    def weights(self, form: AttributionForm) -> Tensor | None:
        """[k] or None: how much each common direction counts in the common score."""
        return self.rho if form.weighted else None

    @property
    def exceeding(self) -> int:
        """How many canonical correlations of the embeddings chance does not explain."""
        return common_dimension(self.spectrum, self.threshold)

    def to(self, device: torch.device) -> Decomposition:
        """The same decomposition with what codes and scores need on ``device``."""
        parts = {name: part.to(device) for name, part in self.parts.items()}
        return replace(self, parts=parts, rho=self.rho.to(device))


def fit(embeddings: Embeddings, pair: tuple[str, str], settings: Settings, origin: CodesOrigin) -> Decomposition:
    """Decompose ``pair`` by the samples that have both.

    Raises ValueError for too few samples, and for settings that do not fit the embeddings.
    """
    if origin is CodesOrigin.model and (settings.common, settings.individual) != (None, None):
        raise ValueError("the model has common and individual codes of its own: leave out --common and --individual")
    both = embeddings.only(embeddings.having(pair))
    if len(both) < 2 * settings.rows_per_dimension:
        raise ValueError(
            f"{len(both)} samples have both {pair[0]} and {pair[1]}: correlations need at least"
            f" {2 * settings.rows_per_dimension}, take a larger split"
        )
    fields = fields_of(both)
    rows = [torch.from_numpy(both.embeds[name]).double() for name in pair]
    axes = [_principal_axes(r, settings) for r in rows]
    reduced = [r @ a for r, a in zip(rows, axes, strict=True)]
    found = canonical_of_rows(reduced[0], reduced[1])
    threshold = permutation_null(reduced[0], reduced[1], draws=settings.draws, seed=settings.seed)
    maps: list[tuple[Tensor, Tensor] | None] = [None, None]
    if origin is CodesOrigin.closed_form:
        k = common_dimension(found.rho, threshold) if settings.common is None else settings.common
        maps = [(a @ c, a @ u) for a, (c, u) in zip(axes, _maps(found, k, settings), strict=True)]
    parts = {name: _part(name, fields, r, a.shape[1], m) for name, r, a, m in zip(pair, rows, axes, maps, strict=True)}
    first, second = (parts[name].codes(name, fields) for name in pair)
    rho, r = code_correlations(first.common, second.common), len(found.rho)
    sides = zip(pair, rows, (first, second), (second, first), strict=True)
    variance = {name: PartsFit.of(r, own, other) for name, r, own, other in sides}
    directions = {name: a @ m[:, :r] for name, a, m in zip(pair, axes, found.maps, strict=True)}
    return Decomposition(pair, parts, rho, found.rho, directions, threshold, len(both), origin, variance)


def scored_samples(embeddings: Embeddings, pair: tuple[str, str], split: str) -> Embeddings:
    """Those that have both modalities. Raises ValueError, naming the split, if there are none."""
    both = embeddings.only(embeddings.having(pair))
    if not len(both):
        raise ValueError(f"no sample of {split} has both {pair[0]} and {pair[1]}: choose another --split or --pair")
    return both


def fields_of(embeddings: Embeddings) -> Fields:
    """A split's embeddings as a model's output."""
    parts = {"embeds": embeddings.embeds, "shared": embeddings.shared, "unique": embeddings.unique}
    return {field: {name: torch.from_numpy(rows) for name, rows in found.items()} for field, found in parts.items()}


def split_codes(decomposition: Decomposition, embeddings: Embeddings) -> dict[str, Codes]:
    """Modality of the pair -> codes of the whole split."""
    fields = fields_of(embeddings)
    return {name: decomposition.parts[name].codes(name, fields) for name in decomposition.pair}


def code_correlations(first: Tensor, second: Tensor) -> Tensor:
    """[k]: correlation of direction i of one code [n, k] with direction i of the other."""
    first, second = first - first.mean(dim=0), second - second.mean(dim=0)
    norms = first.norm(dim=0) * second.norm(dim=0)
    return (first * second).sum(dim=0) / norms.clamp(min=np.finfo(np.float64).tiny)


def _principal_axes(rows: Tensor, settings: Settings) -> Tensor:
    """[d, p], orthonormal."""
    values, vectors = torch.linalg.eigh(torch.cov(rows.T).reshape(rows.shape[1], -1))
    shares = values.flip(0).clamp(min=0).cumsum(0) / values.clamp(min=0).sum()
    enough = min(int((shares < settings.variance).sum()) + 1, max(1, len(rows) // settings.rows_per_dimension))
    return vectors.flip(1)[:, : enough if settings.dimensions is None else settings.dimensions]


def _maps(found: Canonical, k: int, settings: Settings) -> list[tuple[Tensor, Tensor]]:
    """Common and individual map of each modality."""
    widths = None
    if settings.individual is not None:
        widths = [min(settings.individual, maps.shape[1] - k) for maps in found.maps]
    return list(zip(found.common(k), found.individual(k, widths), strict=True))


def _part(name: str, fields: Fields, rows: Tensor, components: int, maps: tuple[Tensor, Tensor] | None) -> ModalityPart:
    mean = rows.mean(dim=0)
    empty = (rows.new_empty(rows.shape[1], 0), rows.new_empty(rows.shape[1], 0))
    part = ModalityPart(mean, rows.var(dim=0), components, maps, empty)
    codes = part.codes(name, fields)
    if maps is None:
        part = replace(part, whitenings=(Whitening.of(codes.common), Whitening.of(codes.individual)))
        codes = part.codes(name, fields)
    return replace(part, loadings=(_covariance(rows, codes.common), _covariance(rows, codes.individual)))


def _covariance(first: Tensor, second: Tensor) -> Tensor:
    return (first - first.mean(dim=0)).T @ (second - second.mean(dim=0)) / (len(first) - 1)
