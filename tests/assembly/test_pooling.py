"""The pooling of each architecture, and that it is what transformers itself takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, CLIPTextConfig, CLIPTextModel

from mmpretrain.assembly.pooling import default_pool
from mmpretrain.assembly.transformers_encoder import architecture_entry
from mmpretrain.config.architectures import Pool
from mmpretrain.config.kind import Kind
from mmpretrain.models.encoders_mmpretrain import Encoder
from tests.models.small import BERT


@pytest.mark.parametrize(
    ("kind", "architecture", "config", "pool"),
    [
        (Kind.text, "gpt2", {}, Pool.last),
        (Kind.text, "llama", {}, Pool.last),
        (Kind.text, "qwen3", {}, Pool.last),
        (Kind.text, "clip_text_model", {}, Pool.last),
        (Kind.text, "bert", {"is_decoder": True}, Pool.last),
        (Kind.text, "bert", {}, Pool.cls),
        (Kind.text, "xlm-roberta", {}, Pool.cls),
        (Kind.text, "gemma3_text", {"use_bidirectional_attention": True}, Pool.mean),
        (Kind.text, "t5", {}, Pool.mean),
        (Kind.image, "vit", {"num_hidden_layers": 1}, Pool.cls),
        (Kind.image, "swin", {"depths": [1], "num_heads": [2]}, Pool.mean),
        (Kind.image, "siglip_vision_model", {}, Pool.pooler),
        (Kind.image, "resnet", {}, Pool.mean),
    ],
)
def test_the_architecture_decides(kind: Kind, architecture: str, config: dict[str, Any], pool: Pool) -> None:
    assert default_pool(CONFIG_MAPPING[architecture](**config), kind) is pool


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_last_token_of_clips_texts_is_the_one_that_transformers_takes(kernel: str) -> None:
    """Also where padding has the end token's id, as in CLIP's own tokenizer."""
    torch.manual_seed(0)
    config = CLIPTextConfig(**BERT, vocab_size=20, bos_token_id=18, eos_token_id=19, pad_token_id=19)
    encoder = Encoder("caption", architecture_entry(config, Pool.last)).eval()
    encoder.backbone.set_attn_implementation(kernel)  # type: ignore[operator]
    ids = torch.tensor([[18, 3, 4, 19, 19, 19], [18, 5, 6, 7, 8, 19]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6])
    assert isinstance(encoder.backbone, CLIPTextModel)
    backbone: Any = encoder.backbone
    right = backbone(input_ids=ids, attention_mask=mask).pooler_output
    found = encoder(input_ids=ids, attention_mask=mask)
    assert torch.equal(found, right) and not torch.allclose(found[0], found[1])
    alone = encoder(input_ids=ids[:1, :4], attention_mask=mask[:1, :4])
    assert torch.allclose(alone, found[:1], atol=1e-5)
