"""The model that ships: shapes, pooling, order of modalities, initialization, what ZeRO needs of it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import BertConfig, ViTConfig

from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.encoders_mmpretrain import Encoder, pool_states
from mmpretrain.models.heads_mmpretrain import MLPHead
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel, MMPretrainOutput
from tests.models.small import BERT, MLP, VIT, small_model
from tests.submodules import submodule

MLP_SPEC = {"architecture": "mlp", "config": {"input_size": 7, **MLP}, "pool": "cls"}
INPUTS = {
    "picture": {"pixel_values": torch.linspace(-1, 1, 64).reshape(2, 1, 8, 4)},
    "caption": {
        "input_ids": torch.tensor([[2, 4, 5, 3, 0, 0], [2, 6, 3, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]),
    },
    "genes": {"values": torch.linspace(0, 1, 14).reshape(2, 7)},
}


def test_outputs_of_all_modalities_and_of_a_subset() -> None:
    model = small_model()
    output = model(**INPUTS)
    assert output.logits.shape == (2, 3)
    assert {name: tuple(e.shape) for name, e in output.embeds.items()} == {m: (2, 8) for m in INPUTS}
    assert (output.fused_embeds, output.shared_embeds, output.unique_embeds) == (None, None, None)
    alone = model(genes=INPUTS["genes"])
    assert alone.logits is None
    assert torch.equal(alone.embeds["genes"], output.embeds["genes"])
    assert torch.equal(model.get_embeds(**INPUTS)["caption"], output.embeds["caption"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "at least one of picture, caption, genes"),
        ({"sound": {}}, "unknown modality 'sound'"),
        ({"genes": torch.zeros(2, 7)}, "pass a dict"),
        ({"genes": {"values": torch.zeros(2, 6)}}, r"'genes': values has shape \[2, 6\], expected \[batch, 7\]"),
        ({"genes": {"pixel_values": torch.zeros(2, 7)}}, "needs values, got pixel_values"),
        ({"picture": {"pixel_values": torch.zeros(2, 3, 8, 4)}}, "'picture'"),
    ],
)
def test_wrong_inputs_are_named(inputs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model()(**inputs)


def test_classifier_sees_the_embeddings_in_the_order_of_modalities() -> None:
    model = small_model()
    output = model(**dict(reversed(INPUTS.items())))
    fused = torch.cat([output.embeds[name] for name in ("picture", "caption", "genes")], dim=1)
    assert model.classifier is not None
    assert torch.equal(model.classifier(fused), output.logits)


def test_order_of_modalities_survives_the_sorted_json(tmp_path: Path) -> None:
    model = small_model()
    model.save_pretrained(tmp_path)
    again = MMPretrainModel.from_pretrained(tmp_path)
    assert again.config.modalities == ["picture", "caption", "genes"]
    assert torch.equal(again(**INPUTS).logits, model(**INPUTS).logits)


def test_config_round_trip_and_its_errors(tmp_path: Path) -> None:
    config = small_model().config
    config.save_pretrained(tmp_path)
    assert MMPretrainConfig.from_pretrained(tmp_path).to_diff_dict() == config.to_diff_dict()
    with pytest.raises(ValueError, match="pool is 'max'"):
        MMPretrainConfig(encoders={"genes": {**MLP_SPEC, "pool": "max"}})
    with pytest.raises(ValueError, match="do not match"):
        MMPretrainConfig(encoders={"genes": MLP_SPEC}, modalities=["genes", "caption"])


def test_heads_and_vector_encoder_are_xavier_with_zero_bias() -> None:
    torch.manual_seed(0)
    config = MMPretrainConfig(
        encoders={"x": {**MLP_SPEC, "config": {"input_size": 300, "hidden_size": 500, "output_size": 400}}},
        embed_dim=200,
        classifier_hidden=300,
        num_labels=3,
    )
    model = MMPretrainModel(config)
    layers = [m for m in [*model.modules(), *MLPHead(300, 500, 40).modules()] if isinstance(m, nn.Linear)]
    assert len(layers) == 7
    for layer in layers:
        expected = (2 / (layer.in_features + layer.out_features)) ** 0.5
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.06)
        assert layer.bias is None or not layer.bias.any()
    assert model.projections["x"].bias is None


def test_transformers_encoders_keep_their_own_initialization() -> None:
    config = BertConfig(hidden_size=128, initializer_range=0.005).to_dict()
    config["num_attention_heads"] = 2
    config["num_hidden_layers"] = 1
    spec = {"architecture": "bert", "config": config, "pool": "cls"}
    model = MMPretrainModel(MMPretrainConfig(encoders={"text": spec}))
    weights = submodule(model, "encoders.text.backbone.encoder.layer.0.attention.self.query", nn.Linear).weight
    assert float(weights.detach().std()) == pytest.approx(0.005, rel=0.05)


@pytest.mark.parametrize(("pool", "poolers"), [("cls", 0), ("mean", 0), ("pooler", 2)])
@pytest.mark.parametrize("config", [ViTConfig(**VIT, image_size=[8, 4], num_channels=1), BertConfig(**BERT)])
def test_unused_poolers_do_not_exist(config: ViTConfig | BertConfig, pool: str, poolers: int) -> None:
    encoder = Encoder("x", {"architecture": config.model_type, "config": config.to_dict(), "pool": pool})
    assert sum("pooler" in name for name, _ in encoder.named_parameters()) == poolers
    inputs = INPUTS["picture"] if config.model_type == "vit" else INPUTS["caption"]
    encoder(**inputs).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_pooling_by_hand() -> None:
    states = torch.arange(12.0).reshape(1, 3, 4)
    assert torch.equal(pool_states(states, None, "cls"), states[:, 0])
    assert torch.equal(pool_states(states, None, "mean"), states.mean(1))
    masked = pool_states(states, torch.tensor([[1, 1, 0]]), "mean")
    assert torch.equal(masked, states[:, :2].mean(1))
    assert not pool_states(states, torch.zeros(1, 3), "mean").any()
    feature_map = states.transpose(1, 2).reshape(1, 4, 3, 1)
    assert torch.equal(pool_states(feature_map, None, "mean"), states.mean(1))


def test_padding_does_not_change_an_embedding() -> None:
    model = small_model()
    short = {key: tensor[:1, :4] for key, tensor in INPUTS["caption"].items()}
    long = {key: tensor[:1] for key, tensor in INPUTS["caption"].items()}
    assert torch.allclose(
        model.get_embeds(caption=short)["caption"], model.get_embeds(caption=long)["caption"], atol=1e-6
    )


def test_half_precision_weights_take_float_inputs() -> None:
    model: nn.Module = small_model()  # transformers' own ``to`` is annotated as one without arguments
    output = model.to(torch.bfloat16)(**INPUTS)
    assert output.logits.dtype is torch.bfloat16 and output.logits.isfinite().all()


def test_frozen_encoder_stays_in_evaluation_mode() -> None:
    model = small_model()
    model.encoders["caption"].requires_grad_(False)
    model.train()
    picture, caption = (submodule(model, f"encoders.{name}", Encoder) for name in ("picture", "caption"))
    assert not caption.training and not caption.backbone.training
    assert model.training and picture.backbone.training


def test_nothing_that_deepspeed_or_loading_breaks() -> None:
    model = small_model()
    assert all(parameter.ndim > 0 for parameter in model.parameters())
    assert len({parameter.data_ptr() for parameter in model.parameters()}) == len(list(model.parameters()))
    ours = [m for m in model.modules() if type(m).__module__.startswith("mmpretrain")]
    assert not any(m._non_persistent_buffers_set for m in ours)


def test_output_survives_hooks_that_rebuild_it() -> None:
    """ZeRO-3 walks an output and replaces its tensors in place."""
    from deepspeed.runtime.zero.utils import apply_to_tensors_only

    for first in (None, torch.ones(2, 3)):
        output = MMPretrainOutput(logits=first, embeds={"a": torch.ones(2), "b": torch.ones(2)})
        again = apply_to_tensors_only(lambda tensor: tensor * 2, copy.copy(output))
        assert torch.equal(again.embeds["b"], torch.full((2,), 2.0))
        assert (again.logits is None) == (first is None)
        assert first is None or torch.equal(again.logits, first * 2)
