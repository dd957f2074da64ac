"""Texts: special tokens and padding are never touched, shares are right, and what masks comes from the tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mmpretrain.config.data import AugmentConfig
from mmpretrain.data.augment.texts import Vocabulary, augment_texts
from tests.data.augment.small_batches import batch, config, draws, view
from tests.data.augment.small_batches import everything as samples_of_all_kinds
from tests.small_tokenizer import small_tokenizer

PAD, UNKNOWN, CLS, SEP, MASK = range(5)
VOCABULARY = Vocabulary(special=(PAD, UNKNOWN, CLS, SEP, MASK), pad=PAD, mask=MASK)
COUNT, LENGTH = 2000, 12
WORDS = torch.arange(COUNT) % 10 + 1
PLACE = torch.arange(LENGTH)


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """[CLS], 1 to 10 different words, [SEP], padding; the last word of every third text is unknown."""
    ids = PLACE + 9
    ids = torch.where(PLACE == 0, CLS, ids).expand(COUNT, LENGTH)
    ids = torch.where(WORDS[:, None] + 1 == PLACE, SEP, ids)
    ids = torch.where((WORDS[:, None] == PLACE) & (torch.arange(COUNT) % 3 == 0)[:, None], UNKNOWN, ids)
    mask = (WORDS[:, None] + 2 > PLACE).long()
    return ids * mask, mask


def test_masking_hits_the_share_of_words_and_nothing_else() -> None:
    ids, mask = texts()
    found, found_mask = augment_texts(ids, mask, VOCABULARY, AugmentConfig(mask=0.15), draws(COUNT))
    changed = found != ids
    words = ids > MASK
    assert torch.equal(found_mask, mask) and (found[changed] == MASK).all() and not changed[~words].any()
    count, total = int(changed.sum()), int(words.sum())
    assert abs(count - 0.15 * total) < 5 * (total * 0.15 * 0.85) ** 0.5


def test_deleting_takes_one_word_and_closes_the_gap() -> None:
    ids, mask = texts()
    found, found_mask = augment_texts(ids, mask, VOCABULARY, AugmentConfig(delete=0.5), draws(COUNT))
    shorter = found_mask.sum(dim=1) < mask.sum(dim=1)
    able = (ids > MASK).sum(dim=1) > 1
    assert not shorter[~able].any()
    assert abs(int(shorter.sum()) - 0.5 * int(able.sum())) < 5 * (0.25 * int(able.sum())) ** 0.5
    places = []
    for before, after, attention, length in zip(
        ids[shorter].tolist(),
        found[shorter].tolist(),
        found_mask[shorter].tolist(),
        mask[shorter].sum(1).tolist(),
        strict=True,
    ):
        gone = next(at for at in range(length) if after[at] != before[at])
        assert before[gone] > MASK and after == [*before[:gone], *before[gone + 1 :], PAD]
        assert attention == [1] * (length - 1) + [0] * (LENGTH - length + 1)
        places.append(gone)
    assert set(places) == set(range(1, 11))
    assert torch.equal(found[~shorter], ids[~shorter]) and torch.equal(found_mask[~shorter], mask[~shorter])


def test_a_text_that_fills_its_length_ends_in_padding() -> None:
    ids = torch.arange(10, 16).expand(8, 6).contiguous()
    found, mask = augment_texts(ids, torch.ones_like(ids), VOCABULARY, AugmentConfig(delete=1), draws(8))
    assert (found[:, -1] == PAD).all() and (mask.sum(dim=1) == 5).all()


def test_both_can_be_asked_for() -> None:
    ids, mask = texts()
    found, found_mask = augment_texts(ids, mask, VOCABULARY, AugmentConfig(delete=1, mask=1), draws(COUNT))
    assert not (found > MASK).any()
    assert torch.equal(mask.sum(1) - found_mask.sum(1), ((ids > MASK).sum(1) > 1).long())


def test_the_unknown_token_masks_where_there_is_no_mask_token() -> None:
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer())
    vocabulary = Vocabulary.of(tokenizer)
    assert (vocabulary.pad, vocabulary.mask) == (PAD, UNKNOWN) and set(vocabulary.special) == {PAD, UNKNOWN, CLS, SEP}
    settings, whole = samples_of_all_kinds()
    found = view(settings, whole)["caption"]["input_ids"]
    assert (found == UNKNOWN).any() and not (whole.inputs["caption"]["input_ids"] == UNKNOWN).any()


def test_a_mask_token_is_preferred() -> None:
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer())
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    vocabulary = Vocabulary.of(tokenizer)
    assert vocabulary.mask == tokenizer.mask_token_id == len(tokenizer) - 1
    assert vocabulary.mask in vocabulary.special


def test_an_unknown_token_that_ends_texts_does_not_mask() -> None:
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer())
    tokenizer.unk_token = tokenizer.sep_token  # as CLIP's
    assert Vocabulary.of(tokenizer).mask is None


def test_nothing_to_mask_with_is_one_sentence(tmp_path: Path) -> None:
    whole = AutoTokenizer.from_pretrained(small_tokenizer())
    PreTrainedTokenizerFast(tokenizer_object=whole.backend_tokenizer, pad_token="[PAD]").save_pretrained(tmp_path)
    settings, samples = samples_of_all_kinds()
    settings.model.encoders["caption"].tokenizer = str(tmp_path)
    with pytest.raises(
        ValueError, match="caption: its tokenizer has neither a mask token nor an unknown token of its own"
    ):
        view(settings, samples)
    caption = settings.data.modalities["caption"]
    caption.augment = AugmentConfig(delete=1)
    view(config(caption=caption), batch({"caption": samples.inputs["caption"]}))
