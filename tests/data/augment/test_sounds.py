"""Sounds: parts of the right length, gains of the right size, noise relative to the sound, and zeros behind it."""

from __future__ import annotations

import pytest
import torch
from transformers import Wav2Vec2FeatureExtractor

from mmpretrain.config.data import AugmentConfig
from mmpretrain.data.augment.sounds import SoundAugmentation, augment_sounds
from tests.data.augment.small_batches import draws
from tests.data.augment.test_series import coin_is_fair

COUNT, SAMPLES, MOST = 2000, 200, 100
LENGTHS = torch.arange(COUNT) % SAMPLES + 1
# Every sample of a wave tells its number, from 1 on.
WAVES = (torch.arange(SAMPLES) + 1.0) * (torch.arange(SAMPLES) < LENGTHS[:, None])


def test_nothing_set_keeps_the_first_part() -> None:
    found, length = augment_sounds(WAVES, LENGTHS, MOST, AugmentConfig(), draws(COUNT))
    assert torch.equal(found, WAVES[:, :MOST]) and torch.equal(length, LENGTHS.clamp(max=MOST))


def test_crop_keeps_a_share_of_the_time_from_any_place() -> None:
    found, length = augment_sounds(WAVES, LENGTHS, MOST, AugmentConfig(crop=[0.25, 0.25]), draws(COUNT))
    assert torch.equal(length, (0.25 * LENGTHS).round().long().clamp(min=1))
    heard = torch.arange(MOST) < length[:, None]
    assert not found[~heard].any() and found[heard].min() >= 1
    steps = found[:, 1:] - found[:, :-1]
    assert (steps[heard[:, 1:]] == 1).all()  # one piece
    last = found[:, 0] + length - 1
    assert (last <= LENGTHS).all()
    whole = LENGTHS == SAMPLES
    assert found[whole, 0].min() < 40 and last[whole].max() > 160


def test_crop_of_long_sounds_fits_the_encoder() -> None:
    _, length = augment_sounds(WAVES, LENGTHS, MOST, AugmentConfig(crop=[1.0, 1.0]), draws(COUNT))
    assert torch.equal(length, LENGTHS.clamp(max=MOST))


def test_gain_is_fair_and_within_its_limits() -> None:
    config = AugmentConfig(gain=0.5, decibels=[-6, 6])
    found, _ = augment_sounds(torch.ones(COUNT, MOST), LENGTHS.clamp(max=MOST), MOST, config, draws(COUNT))
    decibels = 20 * found[:, 0].log10()
    louder = decibels != 0
    assert coin_is_fair(louder)
    assert -6.001 <= decibels.min() < -5.5 and 5.5 < decibels.max() <= 6.001


def test_noise_is_relative_to_the_sound_and_spares_silence_and_padding() -> None:
    waves = WAVES[:, :MOST].clone()
    waves[0] = 0
    length = LENGTHS.clamp(max=MOST)
    found, _ = augment_sounds(waves, length, MOST, AugmentConfig(noise=1, noise_std=0.1), draws(COUNT))
    noise = found - waves
    assert not noise[0].any() and not noise[torch.arange(MOST) >= length[:, None]].any()
    full = length == MOST
    ratio = noise[full].square().mean().sqrt() / waves[full].square().mean().sqrt()
    assert abs(ratio - 0.1) < 0.002


def test_a_sound_draws_the_same_in_any_batch() -> None:
    config = AugmentConfig(crop=[0.5, 1], gain=0.5, noise=0.5)
    augmentation = SoundAugmentation(
        {"sampling_rate": 1000, "seconds": 0.5}, Wav2Vec2FeatureExtractor(sampling_rate=1000)
    )
    waves = WAVES.repeat(1, 3)
    whole = augmentation({"waveform": waves[:8], "length": LENGTHS[:8] * 3}, config, draws(8))["input_values"]
    assert whole.shape == (8, 500)
    part = draws(8)
    tail = augmentation(
        {"waveform": waves[5:8], "length": LENGTHS[5:8] * 3},
        config,
        type(part)(part.step, part.view, part.modality, part.positions[5:]),
    )["input_values"]
    assert torch.equal(whole[5:], tail)


def test_without_waveforms_it_says_so() -> None:
    with pytest.raises(ValueError, match="'x': sounds are augmented from their waveforms"):
        SoundAugmentation({}, None)({"input_values": WAVES}, AugmentConfig(), draws(COUNT))
