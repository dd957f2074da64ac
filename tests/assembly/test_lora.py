"""LoRA in encoders: which layers, what is refused, and that the sum of weights is the model with adapters."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModel

from mmpretrain.assembly.build import build_model
from mmpretrain.assembly.check import check_model
from mmpretrain.assembly.lora import chosen_layers, noted_calls
from mmpretrain.assembly.lora_weights import Layout, MergedState
from mmpretrain.config.lora import LoraConfig
from mmpretrain.config.model import EncoderConfig
from mmpretrain.config.root import Config
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.problems import UnusableError
from tests.models.small import BERT, VIT, small_config
from tests.models.test_modeling import INPUTS

LARGE = ["picture", "caption"]
GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16, "bos_token_id": 0, "eos_token_id": 1}
LEVIT = {"image_size": 32, "hidden_sizes": [16, 16, 16], "num_attention_heads": [1, 1, 1], "depths": [1, 1, 1]}
LEVIT |= {"key_dim": [4, 4, 4], "drop_path_rate": 0}


def config_with(**lora: Any) -> Config:
    """The small config with LoRA in its two encoders of transformers."""
    return small_config(lora=LoraConfig(**{"rank": 2, "modalities": LARGE, **lora}))


def built(config: Config) -> MMPretrainModel:
    """Its model, with the same base weights at every call."""
    torch.manual_seed(0)
    return build_model(config)


def randomized(model: nn.Module) -> None:
    """As after some training: every B is something."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.3)


def merged(model: MMPretrainModel, scaling: float) -> MMPretrainModel:
    """The same without adapters."""
    assert isinstance(model.config, MMPretrainConfig)
    plain = MMPretrainModel(model.config)
    plain.load_state_dict(dict(MergedState(model.state_dict(), Layout.of(model.state_dict(), plain, scaling))))
    return plain.eval()


def layers(architecture: str, config: dict[str, Any], targets: list[str] | None = None) -> list[str]:
    """What is chosen of a model on the meta device."""
    with torch.device("meta"):
        model = AutoModel.from_config(CONFIG_MAPPING[architecture](**config))
    return chosen_layers(LoraConfig(rank=2, targets=targets), model)


@pytest.mark.parametrize(
    ("architecture", "config", "count"),
    [
        ("bert", BERT, 6),  # and not the pooler's
        ("gpt2", GPT2, 4),
        ("siglip_vision_model", VIT | {"image_size": 4}, 6),  # and none of the head that pools by attention
    ],
)
def test_all_linear_layers_of_attention_and_mlp(architecture: str, config: dict, count: int) -> None:
    found = layers(architecture, config)
    assert len(found) == count and not any(word in name for name in found for word in ("pool", "embed", "head"))


def test_targets_are_the_ends_of_names() -> None:
    assert layers("bert", BERT, ["query", "intermediate.dense"]) == [
        "encoder.layer.0.attention.self.query",
        "encoder.layer.0.intermediate.dense",
    ]
    # torch's attention takes the weights out of this layer.
    assert "head.attention.out_proj" not in layers("siglip_vision_model", VIT | {"image_size": 4}, ["out_proj"])


def test_only_adapters_and_what_is_no_encoder_train_and_nothing_changes_at_the_start() -> None:
    model, plain = built(config_with()), built(small_config())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    inside = {name for name in trained if name.startswith(("encoders.picture.", "encoders.caption."))}
    assert inside and all(".lora_" in name for name in inside)
    assert {name for name in trained - inside} == {
        name for name, _ in plain.named_parameters() if not name.startswith(("encoders.picture.", "encoders.caption."))
    }
    assert all(name.startswith(f"encoders.{name.split('.')[1]}.backbone.") for name in inside)
    assert torch.equal(model.eval()(**INPUTS).logits, plain.eval()(**INPUTS).logits)


def test_adapters_start_from_the_seed_and_every_option_acts() -> None:
    first, again = built(config_with()).state_dict(), built(config_with()).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in first.items())
    few, more = built(config_with(targets=["query", "q_proj"])), built(config_with(rank=3))
    assert sum(".lora_A." in name for name in few.state_dict()) == 2
    assert {p.shape[0] for name, p in more.named_parameters() if ".lora_A." in name} == {3}
    one = built(config_with(modalities=["caption"]))
    assert not any(".lora_" in n and "picture" in n for n, _ in one.named_parameters())
    assert all(p.requires_grad for n, p in one.named_parameters() if "picture" in n)


def test_the_sum_of_weights_gives_the_same_embeddings() -> None:
    config = config_with(alpha=3.0)
    config.model.encoders["caption"] = EncoderConfig(
        "gpt2", dict(GPT2), tokenizer=config.model.encoders["caption"].tokenizer
    )
    model = built(config)
    randomized(model)
    plain = merged(model.eval(), config.model.lora.scaling)
    untouched = merged(model, 0.0)
    for name in ("picture", "caption"):
        ours, sums = model(**INPUTS).embeds[name], plain(**INPUTS).embeds[name]
        assert (ours - sums).abs().max() < 1e-6
        assert (ours - untouched(**INPUTS).embeds[name]).abs().max() > 1e-3


def test_dropout_and_checkpointing_act_on_adapters() -> None:
    config = config_with(dropout=0.5)
    for name in LARGE:
        config.model.encoders[name].checkpointing = True
        config.model.encoders[name].config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = built(config).train()
    randomized(model)

    def run(seed: int) -> tuple[Tensor, list[Tensor]]:
        torch.manual_seed(seed)
        model.zero_grad()
        logits = model(**INPUTS).logits
        logits.square().sum().backward()
        return logits.detach(), [p.grad.clone() for n, p in model.named_parameters() if ".lora_" in n]

    (first, gradients), (again, same), (other, _) = run(1), run(1), run(2)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert all(torch.equal(*pair) for pair in zip(gradients, same, strict=True))
    # Computed again for the backward with the same draws: as without checkpointing.
    for name in LARGE:
        model.get_submodule(f"encoders.{name}.backbone").gradient_checkpointing_disable()
    kept, plain = run(1)
    assert torch.equal(first, kept)
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(gradients, plain, strict=True))


def test_batch_norms_beside_adapters_keep_their_statistics() -> None:
    config = config_with(modalities=["picture"])
    config.data.modalities["picture"].size = [32, 32]
    config.data.modalities["picture"].channels = 3
    config.model.encoders["picture"] = EncoderConfig("levit", dict(LEVIT))
    model = built(config).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "picture" in name}
    model(picture={"pixel_values": torch.randn(2, 3, 32, 32)})
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers() if "picture" in name)


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"targets": ["quer"]}, "'quer'"),
        ({"targets": ["query", "dense", "q_proj", "nothing"]}, "'nothing' names no linear layer of picture or caption"),
        ({"targets": ["nothing"]}, "names no linear layer of encoder picture"),
        ({"modalities": ["genes"]}, "of this project's own"),
    ],
)
def test_what_cannot_be_is_said_before_and_when_it_is_built(lora: dict, said: str) -> None:
    config = config_with(**lora)
    checked = check_model(config)
    assert checked.model is None and any(said in problem for problem in [*checked.problems, *config.problems()])
    with pytest.raises(UnusableError, match=said.replace("(", r"\(")):
        built(config)


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    assert "pip install 'mmpretrain-contrastive[finetune]'" in " ".join(check_model(config_with()).problems)


def test_preflight_counts_what_trains_and_tells_of_ranks_that_are_too_high() -> None:
    checked = check_model(config_with(rank=16))
    notes = "\n".join(checked.notes)
    trained = sum(p.numel() for p in built(config_with(rank=16)).parameters() if p.requires_grad)
    assert not checked.problems and f"{trained:,} of them trained" in notes
    assert "encoder caption: LoRA of rank 16 in 6 layers" in notes and "rank=16 is not below" in notes
    assert "starts from random weights" in notes


def test_layers_that_are_never_called_are_noticed() -> None:
    model = built(config_with())
    encoder = model.encoders["caption"]
    with noted_calls(encoder) as none:
        encoder(**INPUTS["caption"])
    assert none == []
    layer = model.get_submodule("encoders.caption.backbone.encoder.layer.0.attention.self.query")
    layer.forward = lambda x: nn.functional.linear(x, layer.weight)  # type: ignore[arg-type]
    with noted_calls(encoder) as passed_over:
        encoder(**INPUTS["caption"])
    assert passed_over == ["encoder.layer.attention.self.query"]
