"""Vectors and sequences: exact counts of what is dropped, untouched padding, noise of the right size."""

from __future__ import annotations

import pytest
import torch

from mmpretrain.config.data import AugmentConfig
from mmpretrain.data.augment.series import augment_sequences, augment_vectors
from tests.data.augment.small_batches import draws

COUNT, STEPS, FEATURES = 3000, 10, 3
LENGTHS = torch.arange(COUNT) % STEPS + 1
MASK = (torch.arange(STEPS) < LENGTHS[:, None]).long()
# Every time step of a sample tells its number, from 1 on.
VALUES = ((torch.arange(STEPS) + 1.0)[None, :, None] * MASK[..., None]).expand(COUNT, STEPS, FEATURES).contiguous()


def coin_is_fair(changed: torch.Tensor, share: float = 0.5) -> bool:
    """Whether about ``share`` of the flags are set, within five standard deviations."""
    count = len(changed)
    return abs(int(changed.sum()) - share * count) < 5 * (count * share * (1 - share)) ** 0.5


def test_drop_zeroes_the_rounded_share_of_real_steps() -> None:
    found = augment_sequences(VALUES, MASK, AugmentConfig(drop=1, drop_share=[0.2, 0.2]), draws(COUNT))
    gone = (found == 0).all(dim=2) & MASK.bool()
    assert torch.equal(gone.sum(dim=1), (0.2 * LENGTHS.float()).round().long())
    kept = ~gone[..., None].expand_as(found)
    assert torch.equal(found[kept], VALUES[kept])
    full = gone[LENGTHS == STEPS].float().mean(dim=0)  # no step is dropped more often than another
    assert (full - 0.2).abs().max() < 5 * (0.2 * 0.8 / 300) ** 0.5


def test_the_share_is_uniform_and_the_coin_fair() -> None:
    values = torch.ones(COUNT, 100, 1)
    mask = torch.ones(COUNT, 100, dtype=torch.int64)
    found = augment_sequences(values, mask, AugmentConfig(drop=0.5, drop_share=[0.1, 0.8]), draws(COUNT))
    share = (found == 0).float().mean(dim=(1, 2))
    dropped = share > 0
    assert coin_is_fair(dropped)
    assert 0.095 <= share[dropped].min() < 0.12 and 0.78 < share[dropped].max() <= 0.805
    assert abs(share[dropped].mean() - 0.45) < 5 * 0.7 / (12 * 1400) ** 0.5


def test_shuffle_permutes_real_steps_and_leaves_padding() -> None:
    found = augment_sequences(VALUES, MASK, AugmentConfig(shuffle=1), draws(COUNT))
    assert torch.equal(found[MASK == 0], VALUES[MASK == 0])
    assert torch.equal(found.sort(dim=1).values, VALUES.sort(dim=1).values)
    assert torch.equal(found[..., 0], found[..., 1])  # whole steps move
    first = found[LENGTHS == STEPS][:, 0, 0]
    counts = torch.bincount(first.long(), minlength=STEPS + 1)[1:]
    assert (counts - 30).abs().max() < 5 * 30**0.5


def test_noise_has_its_deviation_and_spares_padding() -> None:
    found = augment_sequences(VALUES, MASK, AugmentConfig(noise=0.5, noise_std=0.1), draws(COUNT)) - VALUES
    noisy = (found != 0).flatten(1).any(dim=1)
    assert coin_is_fair(noisy)
    assert not found[MASK == 0].any()
    sample = found[noisy][MASK[noisy].bool()]
    assert abs(sample.std() - 0.1) < 5 * 0.1 / (2 * sample.numel()) ** 0.5
    assert abs(sample.mean()) < 5 * 0.1 / sample.numel() ** 0.5


@pytest.mark.parametrize("size", [6, 7])
def test_swap_exchanges_halves(size: int) -> None:
    values = torch.arange(float(size)).expand(COUNT, size).contiguous()
    found = augment_vectors(values, AugmentConfig(swap=0.5), draws(COUNT))
    swapped = torch.cat([values[:, size // 2 :], values[:, : size // 2]], dim=1)
    changed = (found != values).any(dim=1)
    assert coin_is_fair(changed) and torch.equal(found[changed], swapped[changed])


def test_vectors_lose_features_and_get_noise() -> None:
    values = torch.ones(COUNT, 20)
    found = augment_vectors(values, AugmentConfig(drop=1, drop_share=[0.1, 0.1]), draws(COUNT))
    assert ((found == 0).sum(dim=1) == 2).all() and (found[found != 0] == 1).all()
    noise = augment_vectors(values, AugmentConfig(noise=1, noise_std=0.01), draws(COUNT)) - 1
    assert abs(noise.std() - 0.01) < 5 * 0.01 / (2 * noise.numel()) ** 0.5


def test_noise_comes_after_dropping() -> None:
    found = augment_vectors(torch.ones(50, 8), AugmentConfig(drop=1, drop_share=[1, 1], noise=1), draws(50))
    assert (found != 0).all() and found.abs().max() < 1


def test_chosen_features_alone_are_touched() -> None:
    """A unique augmentation spares what the other modality speaks of."""
    config = AugmentConfig(noise=1, drop=1, drop_share=[0.5, 0.5], features=[0, 2, 3, 5])
    values = torch.ones(COUNT, 6)
    found = augment_vectors(values, config, draws(COUNT))
    assert torch.equal(found[:, [1, 4]], values[:, [1, 4]])
    dropped = found[:, [0, 2, 3, 5]].sub(0).abs() < 0.5
    assert (dropped.sum(dim=1) == 2).all() and (found[:, [0, 2, 3, 5]] != 1).all()  # half of the four, noise on all
    config = AugmentConfig(noise=1, features=[1])
    moved = augment_sequences(VALUES, MASK, config, draws(COUNT)) != VALUES
    assert torch.equal(moved[..., 1], MASK.bool()) and not moved[..., [0, 2]].any()


def test_silent_steps_alone_are_touched() -> None:
    """Steps tell their number, so that the first four have a root mean square of at most 4."""
    found = augment_sequences(VALUES, MASK, AugmentConfig(noise=1, silent=4.0), draws(COUNT))
    quiet = (MASK.bool() & (VALUES[..., 0] <= 4))[..., None].expand_as(VALUES)
    assert torch.equal(found[~quiet], VALUES[~quiet]) and (found[quiet] != VALUES[quiet]).all()
    gone = augment_sequences(VALUES, MASK, AugmentConfig(drop=1, drop_share=[1.0, 1.0], silent=4.0), draws(COUNT))
    assert not gone[quiet].any() and torch.equal(gone[~quiet], VALUES[~quiet])
