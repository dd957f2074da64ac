"""Images as users have them: arrays, tensors, files and addresses give the pixels of the picture."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmpretrain.data.kinds.audio import decode as decode_sound
from mmpretrain.models import reading_mmpretrain
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from tests.data.tones import RATE, encoded, tone

COLORS = np.random.default_rng(0).integers(0, 256, (8, 4, 3), dtype=np.uint8)
GREY = COLORS[:, :, 0]


def pixels(image: Any, channels: int = 3) -> torch.Tensor:
    """Of one image, or of several."""
    entry = {"kind": "image", "size": [8, 4], "channels": channels}
    return MMPretrainProcessor({"x": entry})(x=image)["x"]["pixel_values"]


@pytest.mark.parametrize(
    "given",
    [
        COLORS,
        COLORS.transpose(2, 0, 1),
        torch.tensor(COLORS),
        torch.tensor(COLORS).permute(2, 0, 1) / 255,
        (COLORS / 255).astype(np.float32),
        COLORS / 255,
        (torch.tensor(COLORS) / 255).requires_grad_(),
        np.dstack([COLORS, np.full((8, 4), 255, np.uint8)]),
    ],
    ids=["hwc", "chw", "tensor", "chw floats", "float32", "float64", "with gradient", "opaque rgba"],
)
def test_arrays_give_the_pixels_of_their_picture(given: Any) -> None:
    assert torch.equal(pixels(given), pixels(Image.fromarray(COLORS)))
    assert torch.equal(pixels([given, given]), pixels([Image.fromarray(COLORS)] * 2))


def test_grey_arrays_may_have_a_channel_or_none() -> None:
    expected = pixels(Image.fromarray(GREY), 1)
    for given in (GREY, GREY[None], GREY[:, :, None], torch.tensor(GREY)[None]):
        assert torch.equal(pixels(given, 1), expected)
    assert torch.equal(pixels(GREY.astype(np.uint16) * 257, 1), expected)


def test_an_array_of_four_dimensions_is_a_batch() -> None:
    batch = np.stack([COLORS, 255 - COLORS])
    assert torch.equal(pixels(batch), pixels(list(batch)))
    assert torch.equal(pixels(torch.tensor(batch)), pixels(list(batch)))
    optional = MMPretrainProcessor({"x": {"kind": "image", "size": [8, 4], "channels": 3, "optional": True}})
    assert optional(x=batch)["x"]["present"].tolist() == [True, True]
    assert optional(x=COLORS)["x"]["present"].tolist() == [True]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((3, 8, 3), np.uint8), r"shape \[3, 8, 3\], whose channels may stand first or last"),
        (np.zeros((8, 4, 2), np.uint8), r"shape \[8, 4, 2\]: 1 or 3 channels"),
        (np.zeros(8, np.uint8), r"an image is \[h, w\]"),
        (np.zeros((0, 4), np.uint8), "without pixels"),
        (COLORS.astype(np.float32), r"floats from \d+ to \d+: floats are needed from 0 to 1"),
        (np.full((8, 4), np.nan), "floats from nan to nan"),
        (-(COLORS / 255), "floats from -0.9"),
        (COLORS.astype(np.int64), "an array of int64: uint8"),
        ("nowhere.png", "'nowhere.png', and there is no such file"),
        (b"bytes", "a bytes: PIL images are needed"),
        ([[COLORS]], "a list: PIL images are needed"),
        ("http://127.0.0.1:9/x.png", "which cannot be fetched"),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence(given: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"modality 'x' has .*{said}") as error:
        pixels(given)
    assert "\n" not in str(error.value)


def test_files_are_read_as_the_picture_that_they_hold(tmp_path: Path) -> None:
    path, clear = tmp_path / "a.png", tmp_path / "clear.png"
    Image.fromarray(COLORS).save(path)
    assert torch.equal(pixels(path), pixels(COLORS)) and torch.equal(pixels([str(path)]), pixels(COLORS))
    Image.new("RGBA", (4, 8), (255, 0, 0, 0)).save(clear)
    assert torch.equal(pixels(str(clear)), torch.ones(1, 3, 8, 4))  # white, as a viewer shows it


def test_files_of_other_programs_and_too_large_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow would start Ghostscript for an EPS."""
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 8\nshowpage\n")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        pixels(tmp_path / "a.eps")
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    monkeypatch.setattr(reading_mmpretrain, "MOST_PIXELS", 31)
    with pytest.raises(ValueError, match="4 x 8 pixels are more than 31"):
        pixels(tmp_path / "a.png")
    monkeypatch.setattr(reading_mmpretrain, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        pixels(tmp_path / "a.png")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the folder."""
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tmp_path))) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def test_addresses_are_fetched(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGBA", (4, 8), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert torch.equal(pixels(f"{server}/clear.png"), torch.ones(1, 3, 8, 4))
    with pytest.raises(ValueError, match="404"):
        pixels(f"{server}/other.png")
    monkeypatch.setattr(reading_mmpretrain, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        pixels(f"{server}/clear.png")


def sounds(**given: Any) -> torch.Tensor:
    """The waveforms of 0.5 s at RATE."""
    entry = {"kind": "audio", "sampling_rate": RATE, "seconds": 0.5, "waveform": True}
    return MMPretrainProcessor({"x": entry})(**given)["x"]["waveform"]


def test_files_of_sound_are_heard_as_in_training(tmp_path: Path) -> None:
    stereo = np.stack([tone(0), tone(1)], axis=1)
    for name, wave in (("mono.wav", tone(0)), ("stereo.flac", stereo)):
        (tmp_path / name).write_bytes(encoded(wave, form=name.split(".")[1].upper()))
        decoded = decode_sound((tmp_path / name).read_bytes())
        assert torch.equal(sounds(audio=tmp_path / name), sounds(x=decoded))
    both = sounds(audio=[str(tmp_path / "mono.wav"), tone(1)], sampling_rate=RATE)
    assert torch.equal(both[0], sounds(audio=str(tmp_path / "mono.wav"))[0]) and both.shape == (2, RATE // 2)
    with pytest.raises(ValueError, match="has 16000 Hz, and sampling_rate says 8000"):
        sounds(audio=str(tmp_path / "mono.wav"), sampling_rate=8000)
    with pytest.raises(ValueError, match="which cannot be read as a sound"):
        sounds(audio="nowhere.wav")


def test_tensors_of_any_kind_are_vectors_sequences_and_sounds() -> None:
    entries = {"genes": {"kind": "vector", "size": [2]}, "steps": {"kind": "sequence", "size": [3, 2]}}
    found = MMPretrainProcessor(entries)(genes=torch.ones(2, requires_grad=True), steps=torch.ones(3, 2).bfloat16())
    assert torch.equal(found["genes"]["values"], torch.ones(1, 2)) and found["steps"]["values"].shape == (1, 3, 2)
    assert torch.equal(
        sounds(audio=torch.tensor(tone(0)).requires_grad_(), sampling_rate=RATE),
        sounds(audio=tone(0), sampling_rate=RATE),
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"genes": ["a", "b"]}, r"'genes' needs vectors of 2 features, got shape \[\]"),
        ({"genes": [[1, None]]}, r"'genes' needs vectors of 2 features, got shape \[\]"),
        ({"genes": [1.0, np.inf, 2][1:]}, "'genes' needs vectors"),
        ({"genes": [[1.0, np.nan]]}, "'genes' has values that are no finite numbers"),
        ({"genes": [[1.0, 1e300]]}, "'genes' has values that are no finite numbers"),
        ({"steps": [[[1.0, np.inf]]]}, "'steps' has values that are no finite numbers"),
        ({"steps": "abc"}, r"'steps' needs sequences of shape \[time steps, 2\], got shape \[\]"),
    ],
)
def test_what_is_no_number_is_said(given: dict[str, Any], said: str) -> None:
    entries = {"genes": {"kind": "vector", "size": [2]}, "steps": {"kind": "sequence", "size": [3, 2]}}
    with pytest.raises(ValueError, match=said):
        MMPretrainProcessor(entries)(**given)
