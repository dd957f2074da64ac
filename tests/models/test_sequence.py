"""The encoder of feature sequences: against torch's transformer layers, padding, pooling, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from mmpretrain.assembly.build import build_model
from mmpretrain.assembly.check import check_model
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.methods.names import ClipConfig
from mmpretrain.config.model import EncoderConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.models.attention_mmpretrain import Block
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.pooling_mmpretrain import StateForm, pool_states
from mmpretrain.models.sequence_mmpretrain import SequenceTransformer
from tests.models.fused import SEQUENCE
from tests.models.small import small_config
from tests.submodules import every

VALUES = torch.linspace(-1, 1, 3 * 6 * 4).reshape(3, 6, 4).sin()
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])


def torchs(block: Block, dropout: float) -> nn.TransformerEncoderLayer:
    """torch's layer with the same weights."""
    attention, width = block.attention, block.hidden.in_features
    layer = nn.TransformerEncoderLayer(
        width, attention.heads, block.hidden.out_features, dropout, batch_first=True, norm_first=block.pre_norm
    )
    layer.self_attn.in_proj_weight.data = torch.cat([attention.query.weight, attention.key_value.weight])
    layer.self_attn.in_proj_bias.data = torch.cat([attention.query.bias, attention.key_value.bias])
    pairs = [(layer.self_attn.out_proj, attention.output), (layer.linear1, block.hidden), (layer.linear2, block.output)]
    for theirs, ours in [*pairs, (layer.norm1, block.attention_norm), (layer.norm2, block.mlp_norm)]:
        theirs.load_state_dict(ours.state_dict())
    return layer


@pytest.mark.parametrize("pre_norm", [True, False])
def test_same_as_torchs_layers(pre_norm: bool) -> None:
    torch.manual_seed(0)
    model = SequenceTransformer(4, 10, layers=2, heads=5, ff=16, dropout=0.3, pre_norm=pre_norm)
    for tensor in model.parameters():
        tensor.data += 0.1 * torch.randn_like(tensor)
    x = nn.functional.conv1d(VALUES.transpose(1, 2), model.input.weight[:, :, None]).transpose(1, 2)
    for block in every(model.layers, Block):
        x = torchs(block, 0.0)(x, src_key_padding_mask=MASK == 0)
    counts = MASK.bool()
    assert torch.allclose(model.eval()(VALUES, MASK)[counts], x[counts], atol=1e-5)


def test_dropout_is_that_of_torchs_layers() -> None:
    """One sequence, so that draws have one order; not of the attention weights, which each kernel draws its own way."""
    torch.manual_seed(0)
    model, values = SequenceTransformer(4, 10, layers=1, heads=5, ff=16, dropout=0.5), VALUES[:1]
    (block,) = every(model.layers, Block)
    block.attention.dropout = 0.0
    layer = torchs(block, 0.5)
    layer.self_attn.dropout = 0.0
    torch.manual_seed(1)
    expected = layer(model.input(values))
    torch.manual_seed(1)
    assert torch.allclose(model(values), expected, atol=1e-5)
    block.attention.dropout = 0.5
    torch.manual_seed(1)
    assert not torch.allclose(model(values), expected, atol=1e-2)
    block.attention.dropout = block.dropout = 0.0
    assert torch.allclose(model(values), model.eval()(values))


def test_published_sizes() -> None:
    """MOSI's vision encoder in CoMM: 20 features to 40, five layers of five heads, ff 2048."""
    model = SequenceTransformer(20, 40)
    layer = 4 * 40 * 40 + 4 * 40 + 2 * 40 * 2048 + 2048 + 40 + 4 * 40
    assert sum(p.numel() for p in model.parameters()) == 20 * 40 + 5 * layer


def encoder(pool: str = "mean") -> Encoder:
    """A sequence encoder in evaluation mode."""
    torch.manual_seed(0)
    spec = {"architecture": "sequence", "config": {"input_size": 4, **SEQUENCE}, "pool": pool}
    return Encoder("motion", spec).eval()


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_padding_does_not_change_an_embedding(pool: str) -> None:
    model, other = encoder(pool), VALUES.clone()
    other[1, 3:], other[2, 1:] = 7.0, -7.0
    embeds = model(values=VALUES, attention_mask=MASK)
    assert torch.equal(model(values=other, attention_mask=MASK), embeds)
    assert torch.allclose(model(values=VALUES[1:2, :3]), embeds[1:2], atol=1e-6)
    states = model.states(values=VALUES, attention_mask=MASK)
    assert (model.form, model.state_size, model.output_size) == (StateForm.tokens, 16, 16) and states.mask is MASK
    expected = states.values[1, :3].mean(0) if pool == "mean" else states.values[1, 2]
    assert torch.allclose(embeds[1], expected, atol=1e-6)


def test_sequence_without_any_step_stays_finite() -> None:
    model = encoder()
    values = VALUES.clone().requires_grad_()
    embeds = model(values=values, attention_mask=torch.cat([MASK[:2], torch.zeros(1, 6)]).long())
    embeds[:, 0].sum().backward()
    assert embeds.isfinite().all() and not embeds[2].any()
    gradients = [tensor.grad for tensor in (values, *model.parameters())]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_last_token_that_counts() -> None:
    states = torch.arange(24.0).reshape(2, 4, 3)
    found = pool_states(states, torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1]]), "last")
    assert torch.equal(found, torch.stack([states[0, 1], states[1, 3]]))
    assert torch.equal(pool_states(states, None, "last"), states[:, -1])
    assert torch.equal(pool_states(states, torch.zeros(2, 4), "last"), states[:, 0])


def with_motion(config: dict[str, Any], **options: Any) -> Config:
    """The small config with a sequence in the place of the vector."""
    whole = small_config(ClipConfig())
    whole.data.modalities["genes"] = ModalityConfig(Kind.sequence, [6, 4])
    whole.model.encoders["genes"] = EncoderConfig("sequence", config, **options)
    return whole


def test_sizes_come_from_the_data() -> None:
    model = build_model(with_motion(dict(SEQUENCE), pool=Pool.last)).eval()
    spec = model.config.encoders["genes"]
    assert spec == {"architecture": "sequence", "config": {"input_size": 4, **SEQUENCE}, "pool": "last"}
    assert model(genes={"values": VALUES, "attention_mask": MASK}).embeds["genes"].shape == (3, 8)


@pytest.mark.parametrize("shape", [(3, 6, 5), (3, 4)])
def test_other_features_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"'motion': values has shape .*, expected \[batch, steps, 4\]"):
        encoder()(values=torch.zeros(shape))


def test_half_precision() -> None:
    inputs = {"values": VALUES, "attention_mask": MASK}
    whole = encoder()(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert 0 < (encoder()(**inputs) - whole).abs().max() < 0.1
    half = encoder().to(torch.bfloat16)(**inputs)
    assert half.dtype is torch.bfloat16 and (half - whole).abs().max() < 0.2


WRONG = [
    ({"heads": 2}, "config.width is missing: the sequence needs it"),
    ({"width": 10, "heads": 3}, "config.heads is 3: it must divide width=10"),
    ({"width": 12}, "config.heads is 5: it must divide width=12"),
    ({"width": 10, "dropout": 1}, "config.dropout is 1: a number from 0 to below 1 is needed"),
    ({"width": 10, "layers": 0}, "config.layers is 0: a whole number above 0 is needed"),
    ({"width": 10, "pre_norm": "no"}, "config.pre_norm is 'no': true or false is needed"),
    ({"width": 10, "input_size": 3}, "config.input_size is 3, but the data has 4 features: leave it out"),
    ({"width": 10, "hidden_size": 3}, "config.hidden_size: unknown keyword"),
]


@pytest.mark.parametrize(("config", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_refused_by_preflight(config: dict[str, Any], message: str) -> None:
    problems = check_model(with_motion(config)).problems
    assert len(problems) == 1 and message in problems[0] and "model.encoders.genes" in problems[0]


def test_config_alone_refuses() -> None:
    found = EncoderConfig("sequence", pool=Pool.flatten).problems("motion")
    assert found == ["model.encoders.motion.pool is flatten: sequence knows mean, last"]
    config = with_motion({})
    config.model.encoders["genes"] = EncoderConfig("mlp", {})
    assert any(
        "genes.architecture is mlp but data.modalities.genes is a sequence: use sequence" in p
        for p in config.problems()
    )
