"""Maps of planted images that are to be compared: by several codes, without any, and with something taken at random.

Every map is a plain gradient of one number of a sample by its pixels. The common score's should lie on the left half of
the canvas, which the images of a pair share, the individual score's on the right one. *Alike* is Spearman's correlation
of a sample's map with that of the closed form, over its pixels (after Adebayo et al. 2018, arXiv 1810.03292). Shapes: e
explained samples, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.attribution_maps import attribution_maps
from mmpretrain.explain.decomposition import CodesOrigin, Decomposition, fit
from mmpretrain.explain.opened import Opened
from mmpretrain.explain.saliency import GradientInput, attribute
from mmpretrain.explain.sanity import rank_correlation
from mmpretrain.explain.settings import Attribution, AttributionForm, Settings
from mmpretrain.models.outputs_mmpretrain import MMPretrainOutput
from shards.planted import SIDE

BATCH = 25
PARTS = ("common", "individual")
Maps = dict[tuple[str, str], np.ndarray]  # (modality, part) -> [e, h, w], 0 or above, each sample's with the sum 1


class Headed(nn.Module):
    """``backbone`` with ``heads`` that make codes of its embeddings: modality -> tensors to embeds and codes."""

    def __init__(self, backbone: nn.Module, heads: nn.Module) -> None:
        super().__init__()
        self.backbone, self.heads, self.config = backbone, heads, backbone.config

    def forward(self, /, **inputs: Any) -> MMPretrainOutput:
        """As a release that has codes of its own."""
        embeds = self.backbone(**inputs).embeds
        codes = self.heads(**{name: {"values": values} for name, values in embeds.items()})
        return MMPretrainOutput(embeds=embeds, shared_embeds=codes.shared_embeds, unique_embeds=codes.unique_embeds)


def score_maps(opened: Opened, fitted: Decomposition, explained: int) -> Maps:
    """Of the common and the individual score of a decomposition, over ``explained`` test samples."""
    form = AttributionForm(attribution=Attribution.gradient)
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for inputs in _batches(opened, explained):
        maps = attribution_maps(opened, fitted, form, inputs)
        for name, parts in maps.items():
            for part, values in zip(PARTS, parts, strict=True):
                found.setdefault((name, part), []).append(_lengths(values))
    return {key: np.concatenate(maps) for key, maps in found.items()}


def plain_maps(opened: Opened, train: Embeddings, explained: int) -> Maps:
    """Without a decomposition: of the cosine of both embeddings (``common``), and of the squared distance of the
    embedding from its mean over ``train`` (``individual``)."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    means = {name: torch.from_numpy(rows.mean(axis=0)) for name, rows in train.embeds.items()}
    for inputs in _batches(opened, explained):
        with torch.no_grad():
            embeds = opened.model(**inputs).embeds
        for name, other in (opened.pair, opened.pair[::-1]):
            source = GradientInput(opened.model, name, inputs[name])
            cosine, distance = _Plain(name, source, None), _Plain(name, source, means[name])
            common = attribute(cosine, source.value, (*source.further, embeds[other]), Attribution.gradient)
            own = attribute(distance, source.value, source.further, Attribution.gradient)
            for part, values in zip(PARTS, (common, own), strict=True):
                found.setdefault((name, part), []).append(_lengths(values))
    return {key: np.concatenate(maps) for key, maps in found.items()}


@dataclass(frozen=True)
class _Plain:
    """A number of an embedding alone. mean: None for the cosine with the other embedding, the last further tensor."""

    name: str
    source: GradientInput
    mean: Tensor | None

    def __call__(self, value: Tensor, *rest: Tensor) -> Tensor:
        if self.mean is None:
            *further, other = rest
            own = self.source.run(value, *further).embeds[self.name]
            return torch.cosine_similarity(own, other, dim=1)
        return (self.source.run(value, *rest).embeds[self.name] - self.mean).square().sum(dim=1)


def random_codes(fitted: Decomposition, seed: int) -> Decomposition:
    """``fitted`` with random white directions of the embeddings in place of its common and individual ones."""
    draw, parts = torch.Generator().manual_seed(seed), {}
    for name in fitted.pair:
        part = fitted.parts[name]
        assert part.maps is not None
        white = fitted.directions[name]
        widths = [maps.shape[1] for maps in part.maps]
        turned, _ = torch.linalg.qr(torch.randn(white.shape[1], white.shape[1], generator=draw, dtype=white.dtype))
        common, individual, _ = (white @ turned).split([*widths, white.shape[1] - sum(widths)], dim=1)
        parts[name] = replace(part, maps=(common, individual))
    return replace(fitted, parts=parts)


def shuffled_pairs(train: Embeddings, pair: tuple[str, str], settings: Settings, seed: int) -> Decomposition:
    """The closed form of pairs that don't belong together."""
    order = np.random.default_rng(seed).permutation(len(train))
    embeds = {**train.embeds, pair[1]: train.embeds[pair[1]][order]}
    return fit(replace(train, embeds=embeds), pair, settings, CodesOrigin.closed_form)


def shares(maps: Maps) -> dict[str, float]:
    """Of the mass, the part on the half where it should lie; ``common first`` and so on."""
    halves = {"common": slice(None, SIDE), "individual": slice(SIDE, None)}
    return {f"{part} {name}": float(values[:, :, halves[part]].sum(axis=(1, 2)).mean())
            for (name, part), values in maps.items()}  # fmt: skip


def alike(maps: Maps, closed: Maps) -> dict[str, float]:
    """Mean rank correlation of the maps of the same sample, over samples and modalities; ``like common`` and so on."""
    found: dict[str, list[float]] = {}
    for (name, part), values in maps.items():
        pairs = zip(values, closed[name, part], strict=True)
        correlations = [rank_correlation(one, two) for one, two in pairs]
        found.setdefault(f"like {part}", []).extend(c for c in correlations if c is not None)
    return {name: float(np.mean(values)) for name, values in found.items()}


def _batches(opened: Opened, explained: int) -> list[Mapping[str, dict[str, Tensor]]]:
    return [batch.inputs for batch in opened.stream("test").split_batches(BATCH, explained)]


def _lengths(values: Tensor) -> np.ndarray:
    """[e, c, h, w] -> [e, h, w] of the sum 1."""
    lengths = values.double().norm(dim=1)
    return (lengths / lengths.sum(dim=(1, 2), keepdim=True)).numpy()
