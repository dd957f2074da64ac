"""attn_implementation= of a release reaches its backbones; so do checkpointing and the embeddings of ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.models.tools import fused_model, tool_inputs, tool_model

ALL = ("picture", "caption", "genes", "steps")


def implementations(model: Any) -> list[str]:
    """Of the picture's and the caption's backbone."""
    return [model.encoders[name].backbone.config._attn_implementation for name in ("picture", "caption")]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    tool_model().save_pretrained(folder)
    return folder


CHOICES = [
    (None, ["sdpa", "sdpa"]),
    ("eager", ["eager", "eager"]),
    ({"picture": "eager"}, ["eager", "sdpa"]),
    ({"": "eager", "caption": "sdpa"}, ["eager", "sdpa"]),
]


@pytest.mark.parametrize(("asked", "found"), CHOICES, ids=str)
def test_attention_is_handed_to_the_backbones(release: Path, asked: Any, found: list[str], tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(release, attn_implementation=asked)
    assert implementations(model) == found
    model.save_pretrained(tmp_path)
    assert "eager" not in (tmp_path / "config.json").read_text()
    if asked is not None:
        model = MMPretrainModel.from_pretrained(release)
        model.set_attn_implementation(asked)
        assert implementations(model) == found


def test_attention_changes_no_answer(release: Path) -> None:
    eager, default = (MMPretrainModel.from_pretrained(release, attn_implementation=a) for a in ("eager", None))
    for name, embed in default.get_embeds(**tool_inputs()).items():
        torch.testing.assert_close(eager.get_embeds(**tool_inputs())[name], embed, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"sound": "eager"}, "no encoder of sound; this model has"), ({"caption": "none"}, "modality 'caption': .*none")],
)
def test_attention_that_cannot_be_names_the_modality(release: Path, asked: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MMPretrainModel.from_pretrained(release, attn_implementation=asked)
    with pytest.raises(ValueError, match=message):
        MMPretrainModel.from_pretrained(release).set_attn_implementation(asked)


def gradients(model: MMPretrainModel) -> dict[str, torch.Tensor]:
    """Of a loss of all modalities together, by parameter."""
    model.train().zero_grad()
    sum(embed.square().sum() for embed in model.get_embeds(**tool_inputs(*ALL)).values()).backward()  # type: ignore
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_checkpointing_leaves_the_gradients_as_they_are() -> None:
    model: Any = fused_model(*ALL)
    plain = gradients(model)
    model.gradient_checkpointing_enable()
    parts = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False)]
    kinds = {type(part).__name__ for part in parts}
    assert {"ViTLayer", "BertLayer", "Block"} <= kinds
    calls = []
    hook = model.encoders["steps"].backbone.layers[0].hidden.register_forward_hook(lambda *_: calls.append(1))
    found = gradients(model)
    hook.remove()
    assert len(calls) == 2, "the layer is computed again in the backward pass"
    assert found.keys() == plain.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-5, atol=1e-7)
    model.gradient_checkpointing_disable()
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def checkpointing(*names: str) -> None:
    """Switched on for a model with these encoders."""
    model: Any = tool_model(*names)
    model.gradient_checkpointing_enable()


def test_checkpointing_says_which_encoders_have_none(caplog: pytest.LogCaptureFixture) -> None:
    checkpointing("picture", "genes")
    assert "not supported by the encoder of genes" in caplog.text
    with pytest.raises(ValueError, match=r"none of the encoders \(genes\) supports it"):
        checkpointing("genes")


def test_the_only_text_is_resized_and_its_size_saved(tmp_path: Path) -> None:
    model: Any = tool_model()
    before = model.get_input_embeddings().weight.clone()
    layer = model.resize_token_embeddings(40)
    assert layer is model.get_input_embeddings() is model.get_input_embeddings("caption")
    assert layer.weight.shape == (40, 64) and torch.equal(layer.weight[:30], before)
    model.save_pretrained(tmp_path)
    assert MMPretrainModel.from_pretrained(tmp_path).get_input_embeddings().weight.shape == (40, 64)


def test_embeddings_can_be_put_in_their_place() -> None:
    model: Any = tool_model()
    model.set_input_embeddings(torch.nn.Embedding(50, 64))
    assert model.encoders["caption"].backbone.get_input_embeddings().num_embeddings == 50
    assert model.config.encoders["caption"]["config"]["vocab_size"] == 50
    assert model.get_output_embeddings() is None


def test_embeddings_of_no_or_an_unknown_text_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="it has no encoder of texts"):
        tool_model("picture", "genes").get_input_embeddings()
    with pytest.raises(NotImplementedError, match=r"called 'genes' .* name one of caption"):
        tool_model("caption", "genes").resize_token_embeddings(40, modality="genes")
