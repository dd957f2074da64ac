"""The picture of a sound: deep tones below, later sound to the right, silence dark."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from mmpretrain.figures import spectrogram_image

RATE = 16_000


def brightness(wave: np.ndarray) -> np.ndarray:
    """[height, width] of the picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = spectrogram_image(wave, RATE)
    assert image.mode == "RGB" and image.size == (256, 96)
    return np.asarray(image).sum(axis=2)


def test_deep_tones_lie_below_and_time_runs_to_the_right() -> None:
    time = np.arange(RATE) / RATE
    deep, high = (np.sin(2 * np.pi * pitch * time) for pitch in (200, 5000))
    shown = brightness(np.concatenate([deep, high]))
    first, second = shown[:, 20:100].mean(axis=1), shown[:, 156:236].mean(axis=1)
    assert first.argmax() > 80 and second.argmax() < 30


@pytest.mark.parametrize("wave", [np.zeros(RATE), np.zeros(1)], ids=["silence", "one sample"])
def test_silence_is_dark(wave: np.ndarray) -> None:
    assert brightness(wave).max() < 20
