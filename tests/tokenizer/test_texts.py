"""The texts that a tokenizer learns from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpretrain.data.index import ShardError
from mmpretrain.tokenizer.texts import Texts, length_counts
from tests.data.small_dataset import Sample, write_split


def with_a_second_text(number: int, sample: Sample) -> Sample:
    """Every third caption is empty; a title beside the caption."""
    caption = "" if number % 3 == 0 else f"caption {number}"
    return sample | {"caption.txt": caption, "title.txt": f"title {number}"}


def test_texts_come_in_order_and_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    write_split(tmp_path / "train", (4, 3), with_a_second_text)
    texts = Texts(str(tmp_path), "train", "caption")
    done: list[int] = []
    assert list(texts(done.append)) == ["caption 1", "caption 2", "caption 4", "caption 5"]
    assert (texts.samples, texts.skipped, done) == (7, 3, [0, 7])
    assert list(texts()) and texts.skipped == 3  # a second time counts anew


def test_a_limit_takes_samples_that_are_evenly_spaced(tmp_path: Path) -> None:
    write_split(tmp_path / "train", (4, 4))
    assert Texts(str(tmp_path), "train", limit=2).samples == 2
    assert list(Texts(str(tmp_path), "train", limit=2)()) == ["a light digit"] * 2  # numbers 0 and 4
    assert Texts(str(tmp_path), "train", limit=99).samples == 8


def test_a_modality_that_is_not_there_or_not_clear_is_said_with_what_there_is(tmp_path: Path) -> None:
    write_split(tmp_path / "train", (2,), with_a_second_text)
    with pytest.raises(ShardError, match="has the texts caption, title: name one with --modality"):
        Texts(str(tmp_path), "train")
    with pytest.raises(ShardError, match=r"picture is a text .* hold it as picture.png"):
        Texts(str(tmp_path), "train", "picture")


def test_all_captions_of_a_sample_are_read_wherever_they_lie(tmp_path: Path) -> None:
    """In JSON beside the image, as img2dataset has them; the field is found, or said."""

    def in_json(number: int, sample: Sample) -> Sample:
        texts = [f"one {number}", f"two {number}"]
        return {"__key__": sample["__key__"], "jpg": b"", "json": json.dumps({"caption": texts, "alt": "x", "url": 1})}

    write_split(tmp_path / "train", (2,), in_json)
    assert list(Texts(str(tmp_path), "train")()) == ["one 0", "two 0", "one 1", "two 1"]
    assert list(Texts(str(tmp_path), "train", "words", member=["json"], field=["alt"])()) == ["x", "x"]
    wrong = Texts(str(tmp_path), "train", "words", member=["json"], field=["nothing"])
    assert not list(wrong()) and wrong.skipped == 2 and wrong.cause == "it has no text for 'words'"


def test_counts_grow_with_the_longest_text() -> None:
    counts = length_counts(iter([1, 1, 70, 500]), longest=100)
    assert counts[[1, 70, 100]].tolist() == [2, 1, 1] and counts.sum() == 4
