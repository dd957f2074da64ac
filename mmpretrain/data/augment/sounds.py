"""Augmentations of sounds: of waveforms, from which the features are then made. Shapes: b sounds, N samples of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.augment import AugmentConfig
from mmpretrain.data.augment.draws import Draws, Tensors, within
from mmpretrain.models.audio_mmpretrain import extracted, samples_of


class SoundAugmentation:
    """Augments ``waveform`` and ``length`` (the view ``source``), and makes the encoder's tensors of the result.

    entry: of the modality in the processor. extractor: its feature extractor, which works on the CPU.
    """

    def __init__(self, entry: Mapping[str, Any], extractor: Any) -> None:
        self._entry, self._extractor = entry, extractor

    def __call__(self, tensors: Tensors, config: AugmentConfig, draws: Draws) -> Tensors:
        """See :class:`Augmentation`. Raises ValueError where there are no waveforms to start from."""
        if "waveform" not in tensors:
            raise ValueError(
                f"modality {draws.modality!r}: sounds are augmented from their waveforms, and none is here"
            )
        wave, length = augment_sounds(tensors["waveform"], tensors["length"], samples_of(self._entry), config, draws)
        rows = wave.cpu().numpy()
        heard = [row[:count] for row, count in zip(rows, length.tolist(), strict=True)]
        found = extracted(heard, self._entry, self._extractor)
        return {key: tensor.to(wave.device) for key, tensor in found.items()}


def augment_sounds(
    wave: Tensor, length: Tensor, most: int, config: AugmentConfig, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Waveforms [b, N] of ``length`` samples (int64 [b]) -> cropped, louder or softer, noisy, as drawn: [b, ``most``]
    and how many samples of each count. Behind them there are zeros; without a crop the first ``most`` are kept."""
    coins = draws.coins(config)
    start, kept = torch.zeros_like(length), length.clamp(max=most)
    if "crop" in coins and config.crop is not None:
        share = within(draws.uniform("crop share"), config.crop)
        part = (share * length).round().long().clamp(min=1, max=most)
        kept = torch.where(coins["crop"], part, kept)
        room = (draws.uniform("crop place") * (length - kept + 1)).long().minimum(length - kept)
        start = torch.where(coins["crop"], room, start)
    place = torch.arange(most, device=wave.device)
    heard = place < kept[:, None]
    taken = wave.gather(1, (start[:, None] + place).clamp(max=wave.shape[1] - 1)).masked_fill(~heard, 0)
    if "gain" in coins:
        factor = 10 ** (within(draws.uniform("gain"), config.decibels) / 20)
        taken = torch.where(coins["gain"][:, None], taken * factor[:, None], taken)
    if "noise" in coins:
        loudness = (taken.square().sum(dim=1) / kept).sqrt()
        noise = draws.normal("noise", most) * (config.noise_std * loudness)[:, None]
        taken = taken + noise.masked_fill(~(heard & coins["noise"][:, None]), 0)
    return taken, kept
