"""Members of a sample become objects: captions of every form, labels wherever they lie."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from mmpretrain.config.data import Kind, LabelForm, ModalityConfig
from mmpretrain.data.decode import SampleError
from mmpretrain.data.members import Holders, Members
from mmpretrain.data.samples import label_of, objects_of

LABEL = Holders(("label.cls",))


def caption(sample: dict[str, bytes], holders: Holders, number: float | None = None) -> Any:
    """The caption of a sample; number: what a draw gives."""
    draw = None if number is None else lambda name: number
    modalities = {"caption": ModalityConfig(Kind.text)}
    return objects_of(sample, modalities, Members({"caption": holders}), draw)["caption"]


def encoded(value: Any) -> bytes:
    """JSON."""
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("member", "content", "fields", "text"),
    [
        ("caption.txt", b"a cat", (), "a cat"),
        ("caption.json", encoded("a cat"), (), "a cat"),
        ("caption.json", encoded(["a cat", "a pet"]), (), "a cat"),
        ("json", encoded({"caption": "a cat", "url": "x"}), ("caption",), "a cat"),
        ("json", encoded({"caption": ["", "a cat"], "alt": None}), ("alt", "caption"), "a cat"),
        ("json", b"\xef\xbb\xbf" + encoded("a cat"), (), "a cat"),
    ],
)
def test_a_text_in_any_form(member: str, content: bytes, fields: tuple[str, ...], text: str) -> None:
    assert caption({member: content}, Holders((member,), fields)) == text


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        (b"{", (), "json: not JSON"),
        (b"\xff", (), "not UTF-8"),
        (encoded({"caption": "a"}), (), "an object with caption: name those of texts in data.modalities.NAME.field"),
        (encoded(7), (), "is 7, and a string"),
        (encoded([["a"]]), (), "a string or a list of strings"),
        (encoded(["a"]), ("caption",), "no JSON object, so it has no 'caption'"),
        (encoded({"other": "a"}), ("caption",), "there is no text in it"),
        (encoded([" ", ""]), (), "there is no text in it"),
        (b"[" * 100_000, (), "not JSON"),
        (b'"' + b"a" * (2 << 20) + b'"', (), "longer than"),
    ],
)
def test_a_json_text_that_is_none(content: bytes, fields: tuple[str, ...], message: str) -> None:
    with pytest.raises(SampleError, match=message):
        caption({"json": content}, Holders(("json",), fields))


def test_one_of_several_texts_is_drawn_by_weight() -> None:
    sample = {"txt": b"short", "json": encoded(["long 1", "long 2"])}
    holders = Holders(("txt", "json"), several=True)
    assert [caption(sample, holders, number) for number in (0.0, 0.32, 0.34, 0.67, 0.999)] == [
        *["short"] * 2,
        "long 1",
        *["long 2"] * 2,
    ]
    weighted = Holders(("txt", "json"), weights=(3.0, 1.0), several=True)
    assert [caption(sample, weighted, number) for number in (0.74, 0.76, 0.9)] == ["short", "long 1", "long 2"]
    assert caption(sample, holders) == "short"  # an evaluation takes the first
    never = Holders(("txt", "json"), weights=(0.0, 1.0), several=True)
    assert caption(sample, never) == "long 1"
    assert caption({"txt": b"short"}, weighted, 0.9) == "short"  # what a sample lacks is left out
    by_field = Holders(("json",), ("a", "b"), (1.0, 3.0))
    assert [caption({"json": encoded({"a": "x", "b": "y"})}, by_field, number) for number in (0.2, 0.3)] == ["x", "y"]


def test_two_members_are_ambiguous_unless_the_config_names_both() -> None:
    sample = {"caption.txt": b"a", "caption.json": encoded("b")}
    with pytest.raises(SampleError, match=r"it has caption\.txt and caption\.json for 'caption': exactly one"):
        caption(sample, Holders(("caption.txt", "caption.json")))


@pytest.mark.parametrize(
    ("sample", "holders"),
    [
        ({"label.cls": b"6\n"}, LABEL),
        ({"cls": b"6"}, Holders(("cls",))),
        ({"json": encoded({"class": 6})}, Holders(("json",), ("class",))),
        ({"json": encoded({"class": "6"})}, Holders(("json",), ("class",))),
    ],
)
def test_labels_wherever_they_lie(sample: dict[str, bytes], holders: Holders) -> None:
    assert label_of(sample, holders, 7) == 6


@pytest.mark.parametrize("data", [b"", b"7", b"-1", b"1.0", b"six", b"\xff", b"9" * 5000, b"0x1"])
def test_labels_outside_the_classes(data: bytes) -> None:
    with pytest.raises(SampleError, match=r"label\.cls"):
        label_of({"label.cls": data}, LABEL, 7)


def test_a_label_that_is_missing_or_hidden_in_json() -> None:
    with pytest.raises(SampleError, match=r"it has no label\.cls"):
        label_of({}, LABEL, 7)
    with pytest.raises(SampleError, match="'None' is not a class number"):
        label_of({"json": b"{}"}, Holders(("json",), ("class",)), 7)


@pytest.mark.parametrize(
    ("content", "form", "label"),
    [
        (b"[2, 0, 2]", LabelForm.several, [0, 2]),
        (b" 1 2,0\n", LabelForm.several, [0, 1, 2]),
        (b"[]", LabelForm.several, []),
        (b"", LabelForm.several, []),
        (b"-1.5e1\n", LabelForm.value, -15.0),
        (b"3", LabelForm.value, 3.0),
    ],
)
def test_labels_of_several_classes_and_measured_values(content: bytes, form: LabelForm, label: object) -> None:
    assert label_of({"label.cls": content}, LABEL, 3, form) == label


def test_labels_of_such_forms_in_a_field_of_json() -> None:
    holders, sample = Holders(("json",), ("y",)), {"json": encoded({"y": [2, 1]})}
    assert label_of(sample, holders, 3, LabelForm.several) == [1, 2]
    assert label_of({"json": encoded({"y": 0.25})}, holders, 0, LabelForm.value) == 0.25


@pytest.mark.parametrize(
    ("content", "form", "message"),
    [
        (b"[0, 3]", LabelForm.several, "class 3 is not below data.classes=3"),
        (b"[0, x]", LabelForm.several, "b'x' is not a class number"),
        (b"[[1]]", LabelForm.several, "is not a class number"),
        (b"0 " * (1 << 20), LabelForm.several, "bytes of numbers, more than"),
        (b"nan", LabelForm.value, "b'nan' is not a finite number"),
        (b"inf", LabelForm.value, "is not a finite number"),
        (b"", LabelForm.value, "is not a finite number"),
        (b"1" * 65, LabelForm.value, "is not a finite number"),
    ],
)
def test_labels_of_such_forms_that_are_none(content: bytes, form: LabelForm, message: str) -> None:
    with pytest.raises(SampleError, match=re.escape(message)):
        label_of({"label.cls": content}, LABEL, 3, form)
