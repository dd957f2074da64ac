"""Layer-wise decay of the learning rate: which layer a parameter belongs to, in encoders of many families."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from mmpretrain.config.engine import OptimConfig
from mmpretrain.config.model import EncoderConfig
from mmpretrain.engine.layer_decay import LayersNotFoundError, depths_of, layer_problems
from mmpretrain.engine.optimizer import parameter_groups
from mmpretrain.models.encoders_mmpretrain import Encoder
from tests.engine import runs

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
STAGES = {"depths": [1, 2], "image_size": 32}
# architecture -> its config, and a parameter (its beginning) of every depth from 0 to n + 1; "" where there is none
FAMILIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "vit": (SMALL, ["embeddings.cls_token", "layers.0", "layers.1", "layernorm"]),
    "bert": (SMALL, ["embeddings.LayerNorm", "encoder.layer.0", "encoder.layer.1", ""]),
    "roberta": (SMALL, ["embeddings.word", "encoder.layer.0", "encoder.layer.1", ""]),
    "clip_vision_model": (SMALL, ["pre_layrnorm", "encoder.layers.0", "encoder.layers.1", "post_layernorm"]),
    "clip_text_model": (SMALL, ["embeddings.token", "encoder.layers.0", "encoder.layers.1", "final_layer_norm"]),
    "siglip_vision_model": (SMALL, ["embeddings", "encoder.layers.0", "encoder.layers.1", "head.attention"]),
    "siglip_text_model": (SMALL, ["embeddings", "encoder.layers.0", "encoder.layers.1", "final_layer_norm"]),
    "clap_text_model": (SMALL, ["embeddings", "encoder.layer.0", "encoder.layer.1", ""]),
    "gpt2": ({"n_embd": 16, "n_layer": 2, "n_head": 2}, ["wpe", "h.0", "h.1", "ln_f"]),
    "mpnet": (SMALL, ["encoder.relative_attention_bias", "encoder.layer.0", "encoder.layer.1", ""]),
    "swin": (
        {**STAGES, "embed_dim": 8, "num_heads": [2, 2]},
        ["embeddings", "encoder.layers.0.downsample", "encoder.layers.1.blocks.0", "encoder.layers.1.blocks.1",
         "layernorm"],
    ),
    "convnext": (
        {**STAGES, "hidden_sizes": [8, 16], "num_stages": 2},
        ["embeddings", "encoder.stages.0", "encoder.stages.1.downsampling", "encoder.stages.1.layers.1", "layernorm"],
    ),
    "resnet": (
        {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 2]},
        ["embedder", "encoder.stages.0", "encoder.stages.1.layers.0", "encoder.stages.1.layers.1", ""],
    ),
    "wav2vec2": (
        {**SMALL, "num_conv_pos_embedding_groups": 2},
        ["feature_extractor", "encoder.layers.0", "encoder.layers.1", ""],
    ),
}  # fmt: skip


def encoder(architecture: str, config: dict[str, Any], pool: str = "mean") -> Encoder:
    """On the meta device."""
    with torch.device("meta"):
        return Encoder("a", {"architecture": architecture, "config": config, "pool": pool})


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_parameter_has_the_depth_of_its_layer(architecture: str) -> None:
    config, beginnings = FAMILIES[architecture]
    backbone = encoder(architecture, config, "pooler" if architecture == "siglip_vision_model" else "mean").backbone
    depths, count = depths_of("a", backbone)
    assert count == len(beginnings) - 2
    assert depths.keys() == dict(backbone.named_parameters()).keys()
    for depth, beginning in enumerate(beginnings):
        found = {d for name, d in depths.items() if beginning and name.startswith(beginning)}
        assert found == ({depth} if beginning else set()), beginning
    assert {depth for depth in depths.values() if 0 < depth <= count} == set(range(1, count + 1))


def test_t5_and_clap_have_their_layers_although_lists_lie_inside_of_them() -> None:
    t5 = transformers.T5EncoderModel(transformers.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2))
    depths, count = depths_of("a", t5)
    assert count == 2 and depths["shared.weight"] == 0 and depths["encoder.final_layer_norm.weight"] == 3
    assert {d for name, d in depths.items() if name.startswith("encoder.block.1.layer.1")} == {2}
    sound = {"depths": [1, 1, 2, 1], "num_attention_heads": [1] * 4, "patch_embeds_hidden_size": 8, "hidden_size": 64}
    assert depths_of("a", encoder("clap_audio_model", sound, "pooler").backbone)[1] == 5


def model(*, image: nn.Module | None = None) -> nn.Module:
    """Two encoders of 2 and of 3 layers, and projections."""
    encoders = nn.ModuleDict({
        "image": image or encoder("vit", SMALL),
        "text": encoder("bert", {**SMALL, "num_hidden_layers": 3}),
    })  # fmt: skip
    return nn.ModuleDict({"encoders": encoders, "projections": nn.ModuleDict({"text": nn.Linear(2, 2)})})


def scales(target: nn.Module, decay: float | None) -> dict[str, float]:
    """Parameter -> its factor of the learning rate, where that of the texts' encoder is 0.1."""
    names = {id(p): name for name, p in target.named_parameters()}
    encoders = {"image": EncoderConfig(), "text": EncoderConfig(lr_scale=0.1)}
    groups = parameter_groups(target, OptimConfig(layer_decay=decay), encoders)
    return {names[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}


def test_each_encoder_has_its_own_depth_and_keeps_its_scale() -> None:
    found = scales(model(), 0.5)
    assert found["encoders.image.backbone.embeddings.cls_token"] == 0.5**3
    assert found["encoders.image.backbone.layers.1.layernorm_before.weight"] == 0.5
    assert found["encoders.image.backbone.layernorm.bias"] == 1
    assert found["encoders.text.backbone.embeddings.word_embeddings.weight"] == 0.1 * 0.5**4
    assert found["encoders.text.backbone.encoder.layer.0.output.dense.bias"] == 0.1 * 0.5**3
    assert found["projections.text.weight"] == 0.1
    assert set(scales(model(), None).values()) == set(scales(model(), 1.0).values()) == {1.0, 0.1}


def test_adapters_belong_to_the_layer_that_they_are_in() -> None:
    peft = pytest.importorskip("peft")
    target = model()
    image: Any = target.get_submodule("encoders.image")
    image.backbone = peft.get_peft_model(image.backbone, peft.LoraConfig(target_modules=["q_proj"], r=2))
    found = {name: scale for name, scale in scales(target, 0.5).items() if "lora_A" in name}
    assert [scale for name, scale in found.items() if "layers.0." in name] == [0.25]
    assert [scale for name, scale in found.items() if "layers.1." in name] == [0.5]


def test_an_encoder_without_layers_is_refused_unless_it_is_frozen() -> None:
    flat = encoder("mlp", {"input_size": 4, "hidden_size": 4, "output_size": 4}, "cls")
    target = model(image=flat)
    with pytest.raises(LayersNotFoundError, match=r"no layers were found in model.encoders.image \(VectorMLP\)"):
        scales(target, 0.5)
    assert len(layer_problems(target, 0.5)) == 1 and not layer_problems(target, None)
    flat.requires_grad_(False)
    assert not layer_problems(target, 0.5)
    target.requires_grad_(False)
    assert "optim.layer_decay has no effect" in layer_problems(target, 0.5)[0]
    config = transformers.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2)
    with pytest.raises(LayersNotFoundError, match=r"2 lists of layers \(encoder.block, decoder.block\)"):
        depths_of("text", transformers.T5Model(config))


def test_the_decay_changes_the_training_alike_at_every_stage(ranks: Callable) -> None:
    tokens = ["method=clip", "optim.layer_decay=0.3", "optim.warmup_samples=0", "optim.lr=0.01"]
    whole = ranks(1, runs.train, [*tokens, "engine=zero0"], 5)[0]
    flat = ranks(1, runs.train, [*tokens, "optim.layer_decay=null", "engine=zero0"], 5)[0]
    assert max(abs(a - b) for a, b in zip(whole, flat, strict=True)) > 1e-3
    for stage in (1, 3):
        divided = ranks(2, runs.train, [*tokens, f"engine=zero{stage}"], 5)[0]
        assert max(abs(a - b) for a, b in zip(whole, divided, strict=True)) <= 1e-5
