"""A trained tokenizer: what it knows, how it frames texts, and the encoders that take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel

from mmpretrain.assembly.tokenizers import open_tokenizer, vocabulary_size
from mmpretrain.console import CommandError
from mmpretrain.data.augment.texts import Vocabulary
from mmpretrain.data.writing import Outcome, Overwrite
from mmpretrain.tokenizer.training import SMALLEST, measure_lengths, refuse_folder, train_tokenizer, write_tokenizer

TEXTS = ["a red ramp, left", "a green ramp, right", "a red stair, left", "ein grüner Turm"] * 5


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    """One of 300 tokens, written and opened again."""
    write_tokenizer(train_tokenizer(iter(TEXTS), 300), tmp_path / "tokenizer", Overwrite.same_dataset)
    return open_tokenizer("key", str(tmp_path / "tokenizer"), None)


@pytest.mark.parametrize("text", ["a red ramp", "日本語 \U0001f600 \x07", "<|end|> <|pad|>"])
def test_every_text_is_framed_and_comes_back(tokenizer: Any, text: str) -> None:
    """Also one that spells special tokens: a caption cannot end itself."""
    ids = tokenizer(text)["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    assert not {*ids[1:-1]} & {*tokenizer.all_special_ids}
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text.strip()


def test_the_end_has_the_highest_id_and_augmentations_find_their_mask(tokenizer: Any) -> None:
    assert vocabulary_size(tokenizer) == len(tokenizer) <= 300
    assert tokenizer.eos_token_id == len(tokenizer) - 1 and tokenizer.pad_token_id == 0
    assert Vocabulary.of(tokenizer).mask == tokenizer.mask_token_id is not None


@pytest.mark.parametrize("legacy", [False, True])
def test_clip_pools_the_end_of_the_text(tokenizer: Any, legacy: bool) -> None:
    """By the id of its end token, and, as configs with the old id 2 say, by the highest one."""
    sizes: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    ends = 2 if legacy else tokenizer.eos_token_id
    config = CLIPTextConfig(vocab_size=len(tokenizer), eos_token_id=ends, pad_token_id=0, **sizes)
    torch.manual_seed(0)
    model = CLIPTextModel(config).eval()
    inputs = tokenizer(TEXTS[:3], padding="max_length", max_length=40, return_tensors="pt")
    states = model(**inputs)
    ends_at = inputs["attention_mask"].sum(dim=1) - 1
    assert torch.equal(states.pooler_output, states.last_hidden_state[torch.arange(3), ends_at])
    assert torch.cdist(states.pooler_output, states.pooler_output).fill_diagonal_(1).min() > 1e-4


def test_the_same_texts_give_the_same_files_and_others_are_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "tokenizer"
    assert write_tokenizer(train_tokenizer(TEXTS, 300), out, Overwrite.same_dataset) is Outcome.built
    assert write_tokenizer(train_tokenizer(TEXTS, 300), out, Overwrite.same_dataset) is Outcome.unchanged
    other = train_tokenizer(TEXTS, 280, lowercase=True)
    with pytest.raises(CommandError, match="--force"):
        write_tokenizer(other, out, Overwrite.same_dataset)
    assert write_tokenizer(other, out, Overwrite.anything) is Outcome.replaced
    assert len(AutoTokenizer.from_pretrained(out)) == 280
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]


def test_lengths_are_compared_with_the_limit() -> None:
    tokenizer = train_tokenizer(["b"], SMALLEST)  # every byte, and the space in front, is a token
    lengths = measure_lengths(tokenizer, ["a" * count for count in range(1, 101)], limit=53)
    assert (lengths.texts, lengths.longest, lengths.mean) == (100, 103, 53.5)
    assert lengths.cut == 0.5 and lengths.suggested == 104  # 99 texts have up to 102


@pytest.mark.parametrize(("texts", "size", "message"), [(["a"], 259, "--size is 259"), ([], 300, "no text")])
def test_what_gives_no_tokenizer_is_refused(texts: list[str], size: int, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        train_tokenizer(texts, size)


def test_a_folder_of_other_things_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    for place in (tmp_path, tmp_path / "photo.jpg"):
        with pytest.raises(CommandError, match="choose another --out"):
            refuse_folder(place, Overwrite.same_dataset)
    refuse_folder(tmp_path, Overwrite.anything)
    refuse_folder(tmp_path / "new", Overwrite.same_dataset)
