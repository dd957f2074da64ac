"""Augmentations of tokenized texts. Shapes: b samples, L tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.augment import AugmentConfig
from mmpretrain.data.augment.constants import constant
from mmpretrain.data.augment.draws import Draws, Tensors


@dataclass(frozen=True)
class Vocabulary:
    """What an augmentation must know of a tokenizer: ids of all its special tokens, of the padding, and of the token
    that masks (None: it has no mask token, and no unknown token of its own)."""

    special: tuple[int, ...]
    pad: int
    mask: int | None

    @classmethod
    def of(cls, tokenizer: Any) -> Vocabulary:
        """That of a transformers tokenizer; its unknown token masks where it has no mask token."""
        framing = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
        mask = tokenizer.mask_token_id
        # CLIP's and GPT-2's unknown token is the one that ends a text.
        if mask is None and tokenizer.unk_token_id not in (*framing, tokenizer.pad_token_id):
            mask = tokenizer.unk_token_id
        return cls(tuple(tokenizer.all_special_ids), tokenizer.pad_token_id, mask)


class TextAugmentation:
    """Augments ``input_ids`` and ``attention_mask``. tokenizer: what made them; it is looked at when it is needed."""

    def __init__(self, entry: Mapping[str, Any], tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, tensors: Tensors, config: AugmentConfig, draws: Draws) -> Tensors:
        """See :class:`Augmentation`."""
        if not config.operations:
            return tensors
        ids, mask = augment_texts(tensors["input_ids"], tensors["attention_mask"], self._vocabulary, config, draws)
        return {"input_ids": ids, "attention_mask": mask}

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self._tokenizer)


def augment_texts(
    input_ids: Tensor, attention_mask: Tensor, vocabulary: Vocabulary, config: AugmentConfig, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Tokens and their mask, int64 [b, L] each -> the same with tokens deleted and masked as drawn.

    Special tokens (the tokenizer's ``all_special_ids``, so unknown words too) are left alone. Deleting takes one token,
    which is a word only where words are one token, and never the last one. Raises ValueError if there is nothing to
    mask with.
    """
    coins = draws.coins(config)
    if "delete" in coins:
        words = _words(input_ids, attention_mask, vocabulary)
        input_ids, attention_mask = _delete(input_ids, attention_mask, words, coins["delete"], vocabulary.pad, draws)
    if "mask" in coins:
        if vocabulary.mask is None:
            raise ValueError(nothing_masks(draws.modality))
        words = _words(input_ids, attention_mask, vocabulary)
        chosen = words & (draws.uniform("mask", input_ids.shape[1]) < config.mask) & coins["mask"][:, None]
        input_ids = input_ids.masked_fill(chosen, vocabulary.mask)
    return input_ids, attention_mask


def nothing_masks(modality: str) -> str:
    """What to say of a tokenizer without a token that masks."""
    return (
        f"data.modalities.{modality}: its tokenizer has neither a mask token nor an unknown token of its own, and"
        " augmentations mask tokens: set mask=0 where it is augmented (augment: {delete: 1.0} drops a token instead),"
        " or choose another tokenizer"
    )


def _words(input_ids: Tensor, attention_mask: Tensor, vocabulary: Vocabulary) -> Tensor:
    """bool [b, L]: which tokens may be changed."""
    special = constant(vocabulary.special, input_ids.dtype, input_ids.device)
    return attention_mask.bool() & ~torch.isin(input_ids, special)


def _delete(
    input_ids: Tensor, attention_mask: Tensor, words: Tensor, coin: Tensor, pad: int, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Without one random token of ``words`` where ``coin`` [b] is set and there are two; the rest moves up."""
    length = input_ids.shape[1]
    out = draws.uniform("delete", length).masked_fill(~words, -1).argmax(dim=1)
    out = torch.where(coin & (words.sum(dim=1) > 1), out, length)  # behind the end: nothing moves
    place = torch.arange(length, device=input_ids.device)
    behind = place >= out[:, None]
    source = (place + behind.long()).clamp(max=length - 1)
    freed = behind & (place == length - 1)
    return (
        input_ids.gather(1, source).masked_fill(freed, pad),
        attention_mask.gather(1, source).masked_fill(freed, 0),
    )
