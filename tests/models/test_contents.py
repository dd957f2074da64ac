"""What tensors hold: padding on the left gives the embeddings of padding on the right, and nothing waits for a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BertConfig,
    CLIPTextConfig,
    GPT2Config,
    ModernBertConfig,
    RobertaConfig,
    Wav2Vec2Config,
    WhisperConfig,
)

from mmpretrain.models import contents_mmpretrain as contents
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.contents_mmpretrain import Contents
from mmpretrain.models.intake_mmpretrain import takes
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.models.small import LAYERS

PAD, END = 1, 2
LENGTHS = (3, 5, 7)
TEXT: dict[str, Any] = {
    **LAYERS,
    "vocab_size": 30,
    "max_position_embeddings": 16,
    "pad_token_id": PAD,
    "eos_token_id": END,
    "bos_token_id": 0,
}
SMALL_GPT2 = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=16, vocab_size=30, eos_token_id=END, bos_token_id=0)
MODERN = ModernBertConfig(**TEXT, cls_token_id=0, sep_token_id=END)
TEXTS = {
    "bert-cls": (BertConfig(**TEXT), "cls"),
    "bert-pooler": (BertConfig(**TEXT), "pooler"),
    "roberta-mean": (RobertaConfig(**TEXT), "mean"),
    "clip-pooler": (CLIPTextConfig(**TEXT), "pooler"),
    "gpt2-last": (SMALL_GPT2, "last"),
    "modernbert-cls": (MODERN, "cls"),
}


def of_one(architecture: str, config: dict[str, Any], pool: str) -> MMPretrainModel:
    torch.manual_seed(0)
    spec = {"architecture": architecture, "config": config, "pool": pool}
    return MMPretrainModel(MMPretrainConfig(encoders={"x": spec})).eval()


def texts() -> dict[str, Tensor]:
    """Three of different lengths, padded on the right."""
    ids = torch.randint(3, 30, (3, 8), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(8) < torch.tensor(LENGTHS)[:, None]).long()
    ids[torch.arange(3), torch.tensor(LENGTHS) - 1] = END
    return {"input_ids": torch.where(mask.bool(), ids, PAD), "attention_mask": mask}


def padded_left(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same samples with their padding in front."""
    mask = tensors["attention_mask"]
    shifts = (mask.shape[1] - mask.sum(dim=1)).tolist()
    return {
        key: torch.stack([row.roll(shift, 0) for row, shift in zip(tensor, shifts, strict=True)])
        for key, tensor in tensors.items()
    }


@pytest.mark.parametrize("name", TEXTS)
def test_texts_padded_on_the_left_have_the_same_embeddings(name: str) -> None:
    config, pool = TEXTS[name]
    model, right = of_one(config.model_type, config.to_dict(), pool), texts()
    left = padded_left(right)
    found, wanted = (model.get_text_features(**t, output_hidden_states=True) for t in (left, right))
    assert torch.equal(found.pooler_output, wanted.pooler_output)
    # What is said of single tokens stands where the caller has them.
    counts, places = (t["attention_mask"].bool() for t in (left, right))
    for ours, theirs in zip(found.hidden_states, wanted.hidden_states, strict=True):
        assert torch.equal(ours[counts], theirs[places])
    assert torch.equal(found.last_hidden_state[counts], wanted.last_hidden_state[places])


def test_attention_weights_stand_where_the_caller_has_the_tokens() -> None:
    model, right = of_one("bert", BertConfig(**TEXT).to_dict(), "cls"), texts()
    backbone: Any = model.encoders["x"].backbone
    backbone.set_attn_implementation("eager")
    found, wanted = (model(x=t, output_attentions=True).attentions["x"][0] for t in (padded_left(right), right))
    for row, length in enumerate(LENGTHS):
        assert torch.equal(found[row, :, 8 - length :, 8 - length :], wanted[row, :, :length, :length])


def test_sequences_and_waveforms_padded_on_the_left_have_the_same_embeddings() -> None:
    mask = texts()["attention_mask"]
    values = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0)) * mask[:, :, None]
    model = of_one("sequence", {"input_size": 4, "width": 8, "layers": 1, "heads": 2, "ff": 8}, "last")
    right = {"values": values, "attention_mask": mask}
    assert torch.equal(model(x=padded_left(right)).embeds["x"], model(x=right).embeds["x"])
    convolutions: dict[str, Any] = {
        "conv_dim": [16],
        "conv_kernel": [4],
        "conv_stride": [2],
        "num_feat_extract_layers": 1,
    }
    groups: dict[str, Any] = {
        "num_conv_pos_embedding_groups": 2,
        "num_conv_pos_embeddings": 4,
        "feat_extract_norm": "layer",
    }
    model = of_one("wav2vec2", Wav2Vec2Config(**LAYERS, **convolutions, **groups).to_dict(), "mean")
    mask = mask.repeat_interleave(16, dim=1)
    right = {"input_values": torch.randn(3, 128) * mask, "attention_mask": mask}
    assert torch.equal(model.get_audio_features(padded_left(right))[-1], model.get_audio_features(right)[-1])


def test_encoders_that_read_from_the_first_place_refuse_it() -> None:
    sizes: dict[str, Any] = {
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_attention_heads": 2,
    }
    tokens: dict[str, Any] = {
        "vocab_size": 30,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 0,
    }
    config = WhisperConfig(**sizes, num_mel_bins=4, max_source_positions=8, **tokens)
    model = of_one("whisper", config.to_dict(), "mean")
    mask = torch.ones(2, 16).long()
    mask[1, :4] = 0
    with pytest.raises(ValueError, match=r"modality 'x' is padded on the left, .*: pad on the right"):
        model(input_features=torch.zeros(2, 4, 16), attention_mask=mask)


def test_a_sample_of_which_nothing_counts_is_refused_unless_it_is_said_to_be_absent() -> None:
    model, tensors = of_one("bert", BertConfig(**TEXT).to_dict(), "mean"), texts()
    tensors["attention_mask"][1] = 0
    with pytest.raises(ValueError, match="modality 'x': the attention_mask of sample 1 is 0 everywhere"):
        model(x=tensors)
    assert model(x={**tensors, "present": torch.tensor([True, False, True])}).embeds["x"].shape == (3, 16)


def test_a_training_step_on_a_gpu_looks_at_no_numbers_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    monkeypatch.setattr(contents, "can_look", lambda tensor: True)
    monkeypatch.setattr(contents, "check_ids", lambda *_: looks.append("ids"))
    monkeypatch.setattr(contents, "padded_on_the_left", lambda *_: looks.append("mask"))
    wanted = takes("input_ids", lambda input_ids, attention_mask: None)
    tensors = {"input_ids": SimpleNamespace(device=torch.device("cuda")), "attention_mask": None}
    look = Contents()
    for _ in range(3):
        assert not look.left("x", tensors, wanted, True, lambda name: 30)
    assert looks == ["mask"]
    look.left("x", tensors, wanted, False, lambda name: 30)
    assert looks == ["mask", "ids", "mask"]


def test_nothing_is_looked_at_without_content() -> None:
    with torch.device("meta"):
        model = of_one("sequence", {"input_size": 4, "width": 8, "layers": 1, "heads": 2, "ff": 8}, "last")
        found = model(values=torch.zeros(3, 8, 4), attention_mask=torch.ones(3, 8))
    assert found.embeds["x"].shape == (3, 8)
