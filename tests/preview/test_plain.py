"""Arrays, sounds and tensors without a class of their own are drawn by their shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.preview.drawing import spectrogram
from mmpretrain.preview.plain import PlainPreview
from tests.preview.markup import embedded

VECTOR = ModalityConfig(Kind.vector, [4])


@pytest.mark.parametrize(
    ("value", "tag", "says"),
    [
        (np.arange(4.0), "<img", "[4] from 0 to 3: 0, 1, 2, 3"),
        (np.ones((2, 3)), "<img", "[2, 3] from 1 to 1"),
        (np.zeros((2, 5, 7)), "<img", "[2, 5, 7] from 0 to 0"),
        (np.sin(np.arange(2000)), "<svg", "[2000] from"),
        ({"array": np.sin(np.arange(8000)), "sampling_rate": 16000}, "<audio controls", "0.50 s at 16000 Hz"),
        ({"array": np.zeros((100, 2)), "sampling_rate": 100}, "<svg", "1.00 s at 100 Hz"),
        (np.zeros((0, 3)), "empty", "[0, 3]"),
        (Image.new("RGB", (3, 2)), "<img", "x"),
        ("<b>", "&lt;b&gt;", "p"),
    ],
    ids=["vector", "matrix", "stack", "row", "sound", "stereo", "nothing", "image", "text"],
)
def test_a_value_is_drawn_by_its_shape(value: Any, tag: str, says: str) -> None:
    shown = str(PlainPreview("x", VECTOR, None, None).decoded(value))
    assert tag in shown and says in shown


def test_a_tone_is_a_line_in_the_spectrogram() -> None:
    """At its height: a quarter of half the rate from the bottom."""
    tone = np.sin(np.arange(8000) * 2 * np.pi * 1000 / 8000)
    image = embedded(spectrogram(tone, "x"))
    darkest = np.asarray(image).argmin(axis=0) / image.height
    assert np.abs(darkest - 0.75).max() < 0.03
    assert spectrogram(np.zeros(3), "x")  # shorter than a window, and silent


def test_tensors_are_drawn_with_their_masks_counted() -> None:
    tensors = {
        "input_features": torch.randn(1, 20, 64),
        "attention_mask": torch.tensor([1, 1, 0]),
        "length": torch.tensor(7),
    }
    shown = str(PlainPreview("x", VECTOR, None, None).seen(tensors, None))
    assert "[1, 20, 64] from" in shown and "attention_mask: 2 of 3 count" in shown and "length: 7" in shown


def test_lengths_of_sequences_and_sounds_are_counted() -> None:
    preview = PlainPreview("x", ModalityConfig(Kind.sequence, [5, 3]), None, None)
    assert preview.limits == {"length": 5} and PlainPreview("x", VECTOR, None, None).limits == {}
    measured = preview.measured(np.zeros((7, 3)))
    assert measured.numbers["length"] == 7 and measured.words == {"shape": "3"}
    sounds = [PlainPreview("x", ModalityConfig(Kind.audio), entry, None) for entry in (None, {"seconds": 10.0})]
    assert [shown.limits for shown in sounds] == [{}, {"seconds": 10}]
    sound = preview.measured({"array": np.zeros(50), "sampling_rate": 100})
    assert sound.numbers == {"seconds": 0.5} and sound.words == {"sampling rate": "100 Hz"}
