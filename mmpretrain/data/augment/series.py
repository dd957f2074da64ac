"""Augmentations of vectors and of sequences of vectors.

Shapes: b samples; vectors of n features; sequences of T time steps with F features each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.augment import AugmentConfig
from mmpretrain.data.augment.constants import constant
from mmpretrain.data.augment.draws import Draws, Tensors, rows, within


class VectorAugmentation:
    """Augments the ``values`` of vectors."""

    def __init__(self, entry: Mapping[str, Any], tokenizer: None) -> None:
        """Nothing of either is needed."""

    def __call__(self, tensors: Tensors, config: AugmentConfig, draws: Draws) -> Tensors:
        """See :class:`Augmentation`."""
        return {"values": augment_vectors(tensors["values"], config, draws)}


class SequenceAugmentation:
    """Augments the ``values`` of sequences."""

    def __init__(self, entry: Mapping[str, Any], tokenizer: None) -> None:
        """Nothing of either is needed."""

    def __call__(self, tensors: Tensors, config: AugmentConfig, draws: Draws) -> Tensors:
        """See :class:`Augmentation`."""
        return {"values": augment_sequences(tensors["values"], tensors["attention_mask"], config, draws)}


def augment_vectors(values: Tensor, config: AugmentConfig, draws: Draws) -> Tensor:
    """Vectors [b, n] -> swapped halves, zeros, noise, as drawn: [b, n]. A middle feature goes to the front."""
    coins = draws.coins(config)
    if "swap" in coins:
        values = torch.where(coins["swap"][:, None], values.roll(-(values.shape[1] // 2), dims=1), values)
    return _drop_and_noise(values, _chosen(values, config).expand_as(values), config, coins, draws)


def augment_sequences(values: Tensor, attention_mask: Tensor, config: AugmentConfig, draws: Draws) -> Tensor:
    """Sequences [b, T, F], padded behind ``attention_mask`` [b, T] -> shuffled, with zeros, noisy, as drawn: [b, T, F].

    What is padding stays zero; shares are of the steps that may be touched.
    """
    coins = draws.coins(config)
    real = attention_mask.bool()
    if "shuffle" in coins:
        order = _keys("shuffle", real, draws).argsort(dim=1, stable=True)
        shuffled = values.gather(1, order[..., None].expand_as(values))
        values = torch.where(rows(coins["shuffle"], values), shuffled, values)
    if config.silent is not None:
        real = real & (values.square().mean(dim=2) <= config.silent**2)
    changed = _drop_and_noise(values, real, config, coins, draws)
    return changed if config.features is None else torch.where(_chosen(values, config), changed, values)


def _chosen(values: Tensor, config: AugmentConfig) -> Tensor:
    """bool, as wide as the last dimension: the features that may be touched."""
    if config.features is None:
        return torch.ones(values.shape[-1], dtype=torch.bool, device=values.device)
    features = set(config.features)
    return constant(tuple(place in features for place in range(values.shape[-1])), torch.bool, values.device)


def _drop_and_noise(
    values: Tensor, real: Tensor, config: AugmentConfig, coins: dict[str, Tensor], draws: Draws
) -> Tensor:
    """Zeros at some of the places of dimension 1 that are ``real`` (bool [b, n]), then noise at all of those."""
    if "drop" in coins:
        share = within(draws.uniform("drop share"), config.drop_share)
        count = (share * real.sum(dim=1)).round() * coins["drop"]
        rank = _keys("drop", real, draws).argsort(dim=1, stable=True).argsort(dim=1)
        values = values.masked_fill(_as_wide(rank < count[:, None], values), 0)
    if "noise" in coins:
        noise = draws.normal("noise", *values.shape[1:]).mul_(config.noise_std)
        values = values + noise.masked_fill_(~_as_wide(real & coins["noise"][:, None], values), 0)
    return values


def _keys(use: str, real: Tensor, draws: Draws) -> Tensor:
    """Random keys [b, n] to sort by, behind all of which come places that are not ``real``."""
    return draws.uniform(use, real.shape[1]).masked_fill(~real, 2)


def _as_wide(places: Tensor, values: Tensor) -> Tensor:
    """[b, n] for ``values`` [b, n] or [b, n, F]."""
    return places.reshape(*places.shape, *(1,) * (values.dim() - 2))
