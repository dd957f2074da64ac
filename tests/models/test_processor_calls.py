"""The processor is called as transformers' own are: keywords, options, and errors that name the modality."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, ProcessorMixin, WhisperFeatureExtractor

from mmpretrain.config.data import RESERVED
from mmpretrain.models.calls_mmpretrain import OPTIONS
from mmpretrain.models.inputs_mmpretrain import MULTIPLE
from mmpretrain.models.processing_mmpretrain import MMPretrainInputs, MMPretrainProcessor
from tests.small_tokenizer import small_tokenizer

IMAGE = {"kind": "image", "size": [8, 4], "channels": 1}
TEXT = {"kind": "text", "max_length": 20}
SOUND = {"kind": "audio", "sampling_rate": 16000, "seconds": 0.2}
PICTURE = np.random.default_rng(0).integers(0, 256, (8, 4), dtype=np.uint8)
WORDS = ["a seven", "a bold light digit"]  # 4 and 6 tokens


def processor(**entries: Any) -> MMPretrainProcessor:
    """Of these modalities."""
    texts, sounds = ([n for n, e in entries.items() if e["kind"] == kind] for kind in ("text", "audio"))
    return MMPretrainProcessor(
        entries,
        {name: AutoTokenizer.from_pretrained(small_tokenizer()) for name in texts},
        {name: WhisperFeatureExtractor(chunk_length=0.2) for name in sounds},
    )


def same(one: MMPretrainInputs, other: MMPretrainInputs) -> bool:
    """Whether both hold the same tensors under the same names."""
    flat = [{(n, k): t for n, tensors in batch.items() for k, t in tensors.items()} for batch in (one, other)]
    return flat[0].keys() == flat[1].keys() and all(torch.equal(t, flat[1][key]) for key, t in flat[0].items())


def test_keywords_of_transformers_mean_the_only_modality_of_a_kind() -> None:
    whole = processor(left=IMAGE, caption=TEXT, noise=SOUND)
    assert isinstance(whole, ProcessorMixin)
    wave = np.zeros(100, np.float32)
    expected = whole(left=PICTURE, caption=WORDS, noise=wave, sampling_rate=16000)
    assert list(expected) == ["left", "caption", "noise"]
    assert same(whole(images=PICTURE, text=WORDS, audio=wave, sampling_rate=16000), expected)
    assert same(whole(PICTURE, WORDS, wave, sampling_rate=16000), expected)
    assert same(whole(PICTURE, WORDS, audios=wave, audio_kwargs={"sampling_rate": 16000}), expected)
    assert same(whole(None, WORDS), whole(text=WORDS))


def test_a_modality_of_that_name_is_meant_before_all_others() -> None:
    both = processor(text=TEXT, caption=TEXT)
    assert list(both(text=WORDS)) == ["text"] and list(both(caption=WORDS)) == ["caption"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": PICTURE}, "images may mean left or right: name the modality, as left=..."),
        ({"audio": [0.0]}, "audio was passed, and none of the modalities left, right, caption is of that kind"),
        ({"videos": PICTURE}, "unknown modality 'videos'"),
        ({"text": WORDS, "caption": WORDS}, "'caption' was given twice"),
        ({"text": [[1, 2]]}, "'caption' needs strings, got a list; token ids go to the model itself"),
        ({"text": [1, 2]}, "'caption' needs strings, got a int"),
        ({"text": WORDS, "return_tensors": "tf"}, "return_tensors is 'tf': use 'pt'"),
        ({"text": WORDS, "padding": "most"}, "padding is 'most': use one of"),
        ({"text": WORDS, "padding": 1}, "padding is 1: use one of"),
        ({"text": WORDS, "truncation": "only_second"}, "truncation is 'only_second'"),
        ({"text": WORDS, "max_length": 21}, "max_length is 21, and modality 'caption' takes 3 to 20 tokens"),
        ({"text": WORDS, "max_length": 2}, "max_length is 2"),
        ({"text": WORDS, "text_kwargs": {"stride": 3}}, "text_kwargs has stride"),
        ({"text": ["digit " * 30], "truncation": False}, "'caption' has a text of 32 tokens, and 20 count"),
        ({"text": WORDS, "padding": False}, "'caption' needs all of its 20 places"),
        ({"images": None}, "no modality was passed"),
    ],
)
def test_what_a_call_cannot_mean_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as error:
        processor(left=IMAGE, right=IMAGE, caption=TEXT)(**given)
    assert said in str(error.value)


@pytest.mark.parametrize("padding", [None, True, "longest", "max_length"])
def test_padding_never_falls_short_of_what_the_encoder_needs(padding: Any) -> None:
    found = processor(caption=TEXT)(text=WORDS, padding=padding)
    assert same(found, processor(caption=TEXT)(text=WORDS)) and found.input_ids.shape == (2, 20)
    by_batch = processor(caption=TEXT | {MULTIPLE: 8})(text=WORDS, padding=padding)
    assert by_batch.input_ids.shape == (2, 20 if padding == "max_length" else 8)
    assert torch.equal(by_batch.input_ids[:, :8], found.input_ids[:, :8])


def test_without_padding_texts_of_one_length_make_a_tensor() -> None:
    free = processor(caption=TEXT | {MULTIPLE: 8})
    assert free(text="a seven", padding=False).input_ids.shape == (1, 4)
    with pytest.raises(ValueError, match="'caption' has texts of 4 to 6 tokens, which make no tensor without padding"):
        free(text=WORDS, padding=False)


def test_a_text_is_cut_to_the_length_that_is_asked_for() -> None:
    fixed, free = processor(caption=TEXT), processor(caption=TEXT | {MULTIPLE: 8})
    found = fixed(text=WORDS, max_length=5)
    assert found.input_ids.shape == (2, 20) and found.attention_mask.sum(1).tolist() == [4, 5]
    assert found.input_ids[1, 4] == fixed.tokenizer.sep_token_id and not found.input_ids[1, 5:].any()
    assert free(text=WORDS, max_length=5).input_ids.tolist() == found.input_ids[:, :5].tolist()
    assert free(text=WORDS, max_length=5, padding="max_length").input_ids.shape == (2, 5)
    assert same(fixed(text=WORDS, truncation=False), fixed(text=WORDS))


def test_arrays_of_numpy_are_given_where_they_are_asked_for() -> None:
    whole = processor(left=IMAGE, caption=TEXT)
    found, tensors = whole(PICTURE, WORDS, return_tensors="np"), whole(PICTURE, WORDS, return_tensors="pt")
    assert all(isinstance(array, np.ndarray) for group in found.values() for array in group.values())
    assert same(found.convert_to_tensors("pt"), tensors)


def test_parts_are_those_of_the_first_modality_of_a_kind() -> None:
    whole = processor(left=IMAGE, right=IMAGE | {"size": [2, 2]}, caption=TEXT, noise=SOUND)
    assert whole.image_processor.modality == "left" and whole.feature_extractor.modality == "noise"
    assert whole.tokenizer is whole.tokenizers["caption"]
    assert whole.model_input_names == ["pixel_values", "input_ids", "attention_mask", "input_features"]
    ids = whole(text="a seven").input_ids
    assert whole.batch_decode(ids, skip_special_tokens=True) == [whole.decode(ids[0], skip_special_tokens=True)]
    assert list(whole.to_dict()["modalities"]) == ["left", "right", "caption", "noise"] and '"left"' in repr(whole)
    alone = processor(left=IMAGE)
    assert not hasattr(alone, "tokenizer") and not hasattr(alone, "feature_extractor")
    with pytest.raises(ValueError, match="no tokenizer"):
        alone.decode([1])
    with pytest.raises(ValueError, match="'padding' is called like a keyword"):
        processor(padding=IMAGE)


def test_no_run_has_a_modality_that_its_processor_would_refuse() -> None:
    assert set(OPTIONS) <= set(RESERVED)
