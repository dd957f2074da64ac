"""Encoders of texts that look back alone train without a mask of padding: the same numbers, and flash kernels."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mmpretrain.assembly.unmasked import take_masks
from mmpretrain.config.model import EncoderConfig
from mmpretrain.config.root import Config
from mmpretrain.distributed.world import World
from mmpretrain.problems import UnusableError
from mmpretrain.training.first_look import settle_padding
from tests.assembly.test_padding import LONG, built, config_of

ENDS = {"bos_token_id": 2, "eos_token_id": 3}
TEXTS = ["a", "a bold light seven three digit"]


def bare(architecture: str) -> Config:
    """Captions by this architecture, whose attention is told of no padding."""
    more = ENDS if architecture == "clip_text_model" else {}
    return config_of(EncoderConfig(architecture, {**LONG, **more}, padding_mask=False))


def test_an_encoder_that_looks_back_gives_the_same_without_a_mask_and_leaves_the_choice_of_kernel_to_torch() -> None:
    config = bare("clip_text_model")
    model, processor = built(config)
    encoder, texts = model.encoders["caption"].eval(), processor(caption=TEXTS)["caption"]
    seen: list[tuple[Tensor | None, bool]] = []
    kernel = F.scaled_dot_product_attention

    def attention(*arguments: Any, **options: Any) -> Tensor:
        seen.append((options.get("attn_mask"), options.get("is_causal", False)))
        return kernel(*arguments, **options)

    with mock.patch.object(F, "scaled_dot_product_attention", attention), torch.no_grad():
        with_mask = encoder(**texts)
        told = seen.pop()
        assert take_masks(config, model, processor) == []
        seen.clear()
        without = encoder(**texts)
    assert told[0] is not None and seen[-1][0] is None and seen[-1][1]
    torch.testing.assert_close(without, with_mask, rtol=1e-5, atol=1e-6)


def test_an_encoder_that_sees_padding_is_refused() -> None:
    config = bare("bert")
    with pytest.raises(
        UnusableError, match=r"caption\.padding_mask is false, but the encoder gives a sample another emb"
    ):
        settle_padding(config, *built(config), World.single())


def test_what_has_no_padding_is_refused() -> None:
    config = bare("clip_text_model")
    config.model.encoders["picture"].padding_mask = False
    assert any("picture.padding_mask is false" in problem for problem in take_masks(config, *built(config)))


def test_it_has_no_effect_on_encoders_of_this_project() -> None:
    config = config_of()
    config.model.encoders["genes"].padding_mask = False
    assert any("genes.padding_mask=false has no effect" in problem for problem in config.problems())
