"""Deletion curves of maps: what is left of a score when the inputs are taken away that its map calls strongest.

As of Petsiuk et al. 2018 (RISE, arXiv 1806.07421). With f the fraction of a sample's inputs that is gone, S the score
of the part, and sums over the explained samples,

    kept(f) = 1 - sum |S(f) - S(0)| / M,    area = the integral of kept from 0 to 1

by the map's own order, and as the mean over ``ORDERS`` random orders; M is the largest of these sums of both, so that
kept lies between 0 and 1. What is taken away becomes what an average sample has there (pictures, vectors: the mean
over samples of the split of the fit), the mean over time (sequences), the mean value (sounds), or the mean of the table
of token embeddings; tokens that the tokenizer adds stay. Shapes: b rows of a batch, v positions, o orders.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmpretrain.config.kind import Kind
from mmpretrain.data.batch import PRESENT
from mmpretrain.data.decode import Raw
from mmpretrain.explain.attribution_maps import Scored, attribution_maps, output_codes
from mmpretrain.explain.decomposition import Decomposition
from mmpretrain.explain.opened import Opened
from mmpretrain.explain.saliency import TOKENS, GradientInput
from mmpretrain.explain.scores import common_score, individual_score
from mmpretrain.explain.settings import Wanted

ORDERS, STEPS = 3, 10
REFERENCES = 64  # samples that a mean input is of
TOGETHER = 32  # rows that go through the model at a time
PARTS = ("common", "own")
FRACTIONS = tuple(step / STEPS for step in range(STEPS + 1))

Curves = tuple[list[float] | None, list[float] | None]


def deletion_curves(
    opened: Opened, fitted: Decomposition, wanted: Wanted, raws: Sequence[Mapping[str, Raw]], keys: Sequence[str]
) -> dict[tuple[str, str], Curves]:
    """(kept, kept_random) of every modality and part of the decoded samples ``raws``; None where less than two
    positions can be taken away, or the score does not move."""
    means = _mean_inputs(opened, wanted.fit_split)
    moved: dict[tuple[str, str], list[np.ndarray]] = {(name, part): [] for name in fitted.pair for part in PARTS}
    fitted = fitted.to(opened.device)
    for raw, key in zip(raws, keys, strict=True):
        inputs = opened.processor(**{name: [raw[name]] for name in fitted.pair})
        maps = attribution_maps(opened, fitted, wanted.form, inputs, seed=zlib.crc32(key.encode()))
        given = {name: _on(opened, inputs[name]) for name in fitted.pair}
        for name, other in (fitted.pair, fitted.pair[::-1]):
            with torch.no_grad():
                code = output_codes(fitted.parts[other], other, opened.model(**{other: given[other]})).common
            source = GradientInput(opened.model, name, given[name])
            scored = Scored(name, fitted.parts[name], source, wanted.form, fitted.weights(wanted.form))
            taken = _Taken.of(opened, name, given[name], source, means.get(name))
            if taken is not None:
                for part, curve in zip(PARTS, _moves(scored, taken, maps[name], code, key), strict=True):
                    moved[name, part].append(curve)
    return {place: _kept(curves) for place, curves in moved.items()}


def _kept(curves: list[np.ndarray]) -> Curves:
    """curves: [1 + ORDERS, STEPS + 1] of |S(f) - S(0)| each, the map's own order first."""
    total = np.sum(curves, axis=0) if curves else np.zeros((1 + ORDERS, len(FRACTIONS)))
    moved = np.stack([total[0], total[1:].mean(axis=0)])
    if not moved.max() > 0:
        return None, None
    own, random = (1 - moved / moved.max()).tolist()
    return own, random


def _on(opened: Opened, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.to(opened.device) for key, tensor in tensors.items() if key != PRESENT}


def _mean_inputs(opened: Opened, split: str) -> dict[str, Tensor]:
    """Modality of pictures or vectors -> the mean [1, ...] of what its encoder gets."""
    batch = next(iter(opened.stream(split).split_batches(REFERENCES, REFERENCES)))
    found = {}
    for name, kind in opened.kinds.items():
        if kind in (Kind.image, Kind.vector):
            tensors = batch.inputs[name]
            value = next(tensor for tensor in tensors.values() if tensor.is_floating_point())
            there = tensors.get(PRESENT, torch.ones(len(value), dtype=torch.bool))
            if there.any():
                found[name] = value[there].mean(dim=0, keepdim=True).to(opened.device)
    return found


@dataclass(frozen=True)
class _Taken:
    """What can be taken away of an input ``value`` [1, ...]. positions: int64 [v], of a flat map; channels: the
    dimension of ``value`` that a position has all of, None if it has none. neutral: broadcasts to ``value``, what comes
    instead."""

    value: Tensor
    positions: Tensor
    channels: int | None
    neutral: Tensor

    @classmethod
    def of(
        cls, opened: Opened, name: str, tensors: Mapping[str, Tensor], source: GradientInput, mean: Tensor | None
    ) -> _Taken | None:
        """None if there are less than two positions."""
        value, kind = source.value, opened.kinds[name]
        channels = 2 if source.mean_token is not None else 1 if value.dim() == 4 else None
        shape = [size for place, size in enumerate(value.shape) if place not in (0, channels)]
        counts = torch.ones(shape, dtype=torch.bool)
        mask = tensors.get("attention_mask")
        if mask is not None and mask.shape[1] == shape[0] and kind is not Kind.audio:
            counts &= mask[0].bool().cpu().view(-1, *[1] * (len(shape) - 1))
        if source.mean_token is not None:
            special = opened.tokenizers[name].all_special_ids
            counts &= ~torch.isin(tensors[TOKENS][0].cpu(), torch.tensor(special))
        positions = counts.flatten().nonzero().flatten()
        neutral = source.mean_token if source.mean_token is not None else mean
        if neutral is None:
            neutral = value.mean(dim=1, keepdim=True) if kind is Kind.sequence else value.mean()
        return cls(value, positions, channels, neutral) if len(positions) > 1 else None

    def strength(self, values: Tensor) -> Tensor:
        """[v]: the lengths of a map [1, ...] in the shape of ``value``."""
        found = values.abs() if self.channels is None else values.norm(dim=self.channels)
        return found.flatten().cpu()[self.positions]

    def without(self, orders: Tensor) -> Tensor:
        """[o * (STEPS + 1), ...]: the input with growing fractions of the positions taken away, in each of the orders
        (int64 [o, v], places among ``positions``)."""
        shape = [size for place, size in enumerate(self.value.shape) if place != self.channels][1:]
        rows = []
        for order in orders:
            for fraction in FRACTIONS:
                gone = torch.zeros(int(np.prod(shape)), dtype=torch.bool)
                gone[self.positions[order[: round(fraction * len(order))]]] = True
                there = gone.view(1, *shape).to(self.value.device)
                there = there if self.channels is None else there.unsqueeze(self.channels)
                rows.append(torch.where(there, self.neutral, self.value))
        return torch.cat(rows)


def _moves(scored: Scored, taken: _Taken, maps: tuple[Tensor, Tensor], other: Tensor, key: str) -> list[np.ndarray]:
    """|S(f) - S(0)| of the common and of the individual score, [1 + ORDERS, STEPS + 1] each: by the score's own map,
    and in random orders."""
    draw = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    randoms = [torch.randperm(len(taken.positions), generator=draw) for _ in range(ORDERS)]
    own = [taken.strength(values).argsort(descending=True, stable=True) for values in maps]
    scores: list[list[Tensor]] = [[], []]
    further = scored.source.further
    with torch.no_grad():
        for rows in taken.without(torch.stack([*own, *randoms])).split(TOGETHER):
            rest = [tensor.expand(len(rows), *tensor.shape[1:]) for tensor in further]
            codes = scored.codes(rows, rest)
            common = common_score(codes.common, other.expand(len(rows), -1), scored.form.common, scored.weights)
            scores[0].append(common)
            scores[1].append(individual_score(codes, scored.part.loadings, scored.form.individual))
    found = []
    for place, parts in enumerate(scores):
        table = torch.cat(parts).view(2 + ORDERS, len(FRACTIONS)).double().cpu().numpy()
        found.append(np.abs(table - table[:, :1])[[place, *range(2, 2 + ORDERS)]])
    return found
