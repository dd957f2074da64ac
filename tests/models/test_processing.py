"""The processor: each kind of sample, its errors, and saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mmpretrain.assembly.build import build_processor
from mmpretrain.models import resizing_mmpretrain as images
from mmpretrain.models.inputs_mmpretrain import MULTIPLE
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from tests.models.small import small_config, small_model, small_samples


def processor_of(**modality: Any) -> MMPretrainProcessor:
    """A processor with the single modality ``x``."""
    return MMPretrainProcessor({"x": modality})


def test_whole_samples_fit_the_model() -> None:
    inputs = build_processor(small_config())(**small_samples())
    assert inputs["picture"]["pixel_values"].shape == (2, 1, 8, 4)
    assert inputs["caption"]["input_ids"].shape == inputs["caption"]["attention_mask"].shape == (2, 8)
    assert inputs["genes"]["values"].shape == (2, 7)
    dtypes = {key: tensor.dtype for tensors in inputs.values() for key, tensor in tensors.items()}
    assert dtypes["pixel_values"] is dtypes["values"] is torch.float32 and dtypes["input_ids"] is torch.int64
    assert small_model()(**inputs).logits.shape == (2, 3)
    assert inputs.to("meta")["genes"]["values"].device.type == "meta"


def test_single_samples_are_batches_of_one() -> None:
    processor = build_processor(small_config())
    for name, samples in small_samples().items():
        alone, listed = processor(**{name: samples[0]})[name], processor(**{name: samples[:1]})[name]
        assert all(len(tensor) == 1 and torch.equal(tensor, listed[key]) for key, tensor in alone.items())


def test_image_values_by_hand() -> None:
    grey = processor_of(kind="image", size=[1, 2], channels=1)
    pixels = grey(x=Image.fromarray(np.array([[0, 255]], dtype=np.uint8)))["x"]["pixel_values"]
    assert torch.equal(pixels, torch.tensor([[[[-1.0, 1.0]]]]))
    color = processor_of(kind="image", size=[1, 1], channels=3, mean=[0, 0, 0.5], std=[1, 1, 0.25])
    red = color(x=Image.new("RGB", (1, 1), (255, 0, 255)))["x"]["pixel_values"]
    assert red.flatten().tolist() == [1.0, 0.0, 2.0]


def test_images_are_converted_and_resized_like_pillow() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8))
    pixels = processor_of(kind="image", size=[8, 4], channels=1)(x=image)["x"]["pixel_values"]
    expected = np.asarray(image.convert("L").resize((4, 8), Image.Resampling.BICUBIC), dtype=np.float32)
    levels = (pixels[0, 0].numpy() + 1) * 127.5
    assert np.abs(levels - expected).max() < 1 + 1e-3 and np.abs(levels - levels.round()).max() < 1e-3


def test_texts_are_cut_and_padded_on_the_right() -> None:
    processor = build_processor(small_config())
    processor.tokenizers["caption"].padding_side = "left"
    tokens = processor(caption=["a seven", "digit " * 20])["caption"]
    assert tokens["attention_mask"].sum(1).tolist() == [4, 8]
    assert tokens["input_ids"][0, 4:].tolist() == [processor.tokenizers["caption"].pad_token_id] * 4


def test_texts_are_cleaned_as_in_training() -> None:
    processor = build_processor(small_config())
    marked, plain = processor(caption=["\ufeffa seven", "a seven"])["caption"]["input_ids"]
    assert torch.equal(marked, plain)
    for text, message in (("a\0seven", "NUL characters"), ("a \ud83d", "halves of characters")):
        with pytest.raises(ValueError, match=f"modality 'caption' has a text with {message}"):
            processor(caption=text)


def test_vectors_are_scaled_by_train_statistics() -> None:
    processor = processor_of(kind="vector", size=[3], minimum=[0.0, -1.0, 2.0], maximum=[2.0, 1.0, 2.0])
    values = processor(x=np.array([[1.0, 1.0, 2.0], [4.0, -1.0, 2.0]]))["x"]["values"]
    assert torch.allclose(values, torch.tensor([[0.5, 1.0, 0.0], [2.0, 0.0, 0.0]]))
    unscaled = processor_of(kind="vector", size=[2])(x=torch.tensor([3.0, 4.0]))["x"]["values"]
    assert torch.equal(unscaled, torch.tensor([[3.0, 4.0]]))


def test_sequences_are_cut_and_padded_at_the_end() -> None:
    processor = processor_of(kind="sequence", size=[3, 2])
    long, short = np.arange(10.0).reshape(5, 2), np.ones((1, 2))
    found = processor(x=[long, short])["x"]
    assert found["values"].dtype is torch.float32 and found["attention_mask"].dtype is torch.int64
    assert found["values"].tolist() == [[[0, 1], [2, 3], [4, 5]], [[1, 1], [0, 0], [0, 0]]]
    assert found["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert torch.equal(processor(x=long)["x"]["values"], found["values"][:1])
    assert processor(x=np.ones((4, 2, 2)))["x"]["values"].shape == (4, 3, 2)
    for wrong in (np.ones(2), np.ones((0, 2)), np.ones((2, 3))):
        with pytest.raises(ValueError, match=r"'x' needs sequences of shape \[time steps, 2\], got shape"):
            processor(x=[wrong])


ENTRIES: dict[str, dict[str, Any]] = {
    "picture": {"kind": "image", "size": [8, 4], "channels": 1},
    "caption": {"kind": "text", "max_length": 8},
    "genes": {"kind": "vector", "size": [7], "minimum": [1.0] * 7, "maximum": [2.0] * 7},
    "motion": {"kind": "sequence", "size": [3, 2]},
}


@pytest.mark.parametrize("name", ENTRIES)
def test_optional_samples_may_be_none(name: str) -> None:
    tokenizers = build_processor(small_config()).tokenizers
    strict = MMPretrainProcessor({name: ENTRIES[name]}, tokenizers)
    lenient = MMPretrainProcessor({name: ENTRIES[name] | {"optional": True}}, tokenizers)
    first, second = (small_samples() | {"motion": [np.ones((2, 2)), np.ones((5, 2))]})[name]
    expected, found = strict(**{name: [first, second]})[name], lenient(**{name: [None, first, second]})[name]
    assert "present" not in expected and found["present"].tolist() == [False, True, True]
    for key, tensor in expected.items():
        assert torch.equal(found[key][1:], tensor)
        assert not tensor.is_floating_point() or not found[key][0].any()
    alone = lenient(**{name: first})[name]
    assert alone["present"].tolist() == [True] and all(len(tensor) == 1 for tensor in alone.values())
    nothing = lenient(**{name: [None, None]})[name]
    assert not nothing["present"].any() and {k: t[0].shape for k, t in nothing.items()} == {
        k: t[0].shape for k, t in found.items()
    }
    # Attention over nothing at all would be undefined.
    assert "attention_mask" not in found or found["attention_mask"].sum(dim=1).min() >= 1
    with pytest.raises(ValueError, match=r"(got|has) a NoneType|got shape"):
        strict(**{name: [first, None]})


def test_arrays_of_optional_samples_are_rows() -> None:
    vectors = processor_of(kind="vector", size=[2], optional=True)
    assert vectors(x=np.ones((3, 2)))["x"]["present"].tolist() == [True] * 3
    assert vectors(x=np.ones(2))["x"]["values"].shape == (1, 2)
    sequences = processor_of(kind="sequence", size=[4, 2], optional=True)
    assert sequences(x=np.ones((3, 4, 2)))["x"]["present"].tolist() == [True] * 3
    assert sequences(x=np.ones((4, 2)))["x"]["values"].shape == (1, 4, 2)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({}, "at least one of"),
        ({"sound": [1]}, "unknown modality 'sound'"),
        ({"picture": [7]}, "'picture' has a int: PIL images are needed, arrays, tensors, or paths of files"),
        ({"caption": [b"bytes"]}, "'caption' needs strings, got a bytes"),
        ({"genes": [np.zeros(6)]}, r"'genes' needs vectors of 7 features, got shape \[6\]"),
        ({"caption": []}, "'caption' got an empty list"),
    ],
)
def test_wrong_samples_are_named(samples: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_processor(small_config())(**samples)


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        ({"kind": "text", "max_length": 4}, "no tokenizer"),
        ({"kind": "vector", "size": [2], "minimum": [0.0]}, "minimum has 1 numbers, 2 are needed"),
        ({"kind": "vector", "size": [1], "minimum": [0.0]}, "minimum and maximum are needed together"),
        ({"kind": "image", "size": [1, 1], "channels": 3, "mean": [0.5]}, "mean has 1 numbers, 3 are needed"),
    ],
)
def test_unusable_processors_are_refused(modality: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processor_of(**modality)


def test_saved_processor_gives_the_same_tensors(tmp_path: Path) -> None:
    processor = build_processor(small_config())
    processor.modalities["genes"] |= {"minimum": [0.1] * 7, "maximum": [1 / 3] * 7, "optional": True}
    processor.save_pretrained(tmp_path)
    samples = small_samples()
    samples["genes"][0] = None
    before, after = processor(**samples), MMPretrainProcessor.from_pretrained(tmp_path)(**samples)
    assert after["genes"]["present"].tolist() == [False, True]
    assert list(after) == list(before)
    assert all(torch.equal(after[m][k], tensor) for m, tensors in before.items() for k, tensor in tensors.items())
    with pytest.raises(OSError):
        MMPretrainProcessor.from_pretrained(tmp_path / "tokenizer_caption")


@pytest.mark.parametrize("size", [(31, 47), (47, 31), (40, 40), (8, 21), (8, 250)])
def test_the_center_is_cut_out_as_clip_does(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    entry = {"kind": "image", "size": [8, 8], "channels": 3, "shortest_edge": 10, "mean": [0.0] * 3, "std": [1.0] * 3}
    found = MMPretrainProcessor({"picture": entry})(picture=[Image.fromarray(pixels)])["picture"]["pixel_values"][0]
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 10}, crop_size={"height": 8, "width": 8}, do_normalize=False)
    right = theirs(images=[Image.fromarray(pixels)], return_tensors="pt")["pixel_values"][0]
    assert (found - right).abs().max() * 255 < 1 + 1e-3


def test_a_strip_is_never_made_as_long_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of 400,000 pixels at an edge of 224 would be ten gigabytes."""
    entry = {"kind": "image", "size": [224, 224], "channels": 1, "shortest_edge": 224}
    processor, strip, resize = MMPretrainProcessor({"picture": entry}), Image.new("L", (400_000, 2)), images.resized
    asked: list[tuple[int, int]] = []

    def watched(pixels: np.ndarray, width: int, height: int, out: np.ndarray | None, resample: str) -> np.ndarray:
        asked.append((width, height))
        return resize(pixels, width, height, out, resample)

    monkeypatch.setattr(images, "resized", watched)
    assert processor(picture=strip)["picture"]["pixel_values"].shape == (1, 1, 224, 224)
    assert asked == [(32 * 224, 224)]


def test_what_is_cut_out_must_fit() -> None:
    entry = {"kind": "image", "size": [8, 12], "channels": 1, "shortest_edge": 10}
    with pytest.raises(ValueError, match=r"shortest_edge is 10, and \[8, 12\] is cut out of it"):
        MMPretrainProcessor({"picture": entry})


def test_with_a_multiple_samples_are_padded_to_the_longest_of_the_call() -> None:
    whole = build_processor(small_config())
    whole.modalities["caption"]["max_length"] = 20
    by_call = MMPretrainProcessor({"caption": whole.modalities["caption"] | {MULTIPLE: 8}}, whole.tokenizers)
    for words, length in ((6, 8), (7, 16), (15, 20)):  # with two tokens around them, and never beyond max_length
        texts = ["digit " * words, "a seven"]
        full, found = whole(caption=texts)["caption"], by_call(caption=texts)["caption"]
        assert all(torch.equal(found[key], full[key][:, :length]) for key in full)
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in found.values())
    motion = processor_of(kind="sequence", size=[11, 2], pad_to_multiple_of=4)
    assert [motion(x=[np.ones((n, 2)), np.ones((1, 2))])["x"]["values"].shape[1] for n in (1, 4, 5, 30)] == [
        4,
        4,
        8,
        11,
    ]


def test_a_text_of_no_token_is_padded_to_the_full_length() -> None:
    """Attention over padding alone sees how much of it there is."""
    processor = build_processor(small_config())
    processor.modalities["caption"] |= {"max_length": 20, MULTIPLE: 8}
    processor.tokenizers["caption"]._tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    assert processor(caption=["a seven"])["caption"]["input_ids"].shape == (1, 8)
    found = processor(caption=["a seven", ""])["caption"]
    assert found["input_ids"].shape == (2, 20) and found["attention_mask"].sum(dim=1).tolist() == [2, 0]
