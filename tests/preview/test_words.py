"""Tokens back as text: special, unknown and cut ones are marked, and nothing of a text becomes HTML."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer

from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.models.inputs_mmpretrain import text_tensors
from mmpretrain.preview.words import TextPreview
from tests.small_tokenizer import small_tokenizer


@pytest.fixture
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(small_tokenizer())


def seen(tokenizer: Any, text: str, length: int = 6) -> str:
    """What is shown of a text."""
    modality = ModalityConfig(Kind.text, max_length=length)
    tensors = text_tensors("caption", text, {"max_length": length}, tokenizer)
    row = {keyword: tensor[0] for keyword, tensor in tensors.items()}
    return str(TextPreview("caption", modality, {}, tokenizer).seen(row, text))


def test_tokens_are_marked(tokenizer: Any) -> None:
    shown = seen(tokenizer, "a green digit")
    assert shown.count('"token special"') == 2 and '<span class="token unknown" title="[UNK] = 1">' in shown
    assert "5 tokens, 1 of padding" in shown and ' title="digit = 9">digit</span>' in shown and "cut" not in shown


def test_what_is_cut_is_shown_struck_out(tokenizer: Any) -> None:
    shown = seen(tokenizer, "a bold light seven three digit")
    assert [f'<span class="token cut" title="{word}' in shown for word in ("seven", "three", "digit")] == [
        False,
        True,
        True,
    ]
    assert "6 tokens; cut: the text has 8, max_length is 6" in shown


def test_a_text_is_not_html(tokenizer: Any) -> None:
    preview = TextPreview("caption", ModalityConfig(Kind.text), {}, tokenizer)
    assert str(preview.decoded('<b onclick="x">')).startswith('<p class="text">&lt;b onclick=&#34;x&#34;&gt;</p>')
    assert str(preview.decoded(["one", "two"])).count('class="text"') == 2
    assert "<b>" not in seen(tokenizer, "<b>")


def test_lengths_are_those_before_cutting(tokenizer: Any) -> None:
    preview = TextPreview("caption", ModalityConfig(Kind.text, max_length=4), {}, tokenizer)
    assert preview.measured("a bold green seven").numbers == {"tokens": 6, "characters": 18, "unknown tokens": 1}
    assert preview.limits == {"tokens": 4}
    without = TextPreview("caption", ModalityConfig(Kind.text), None, None)
    assert without.measured(["a", "a longer one"]).numbers == {"characters": 12}
