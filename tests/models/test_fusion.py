"""CoMM's fusion: against attention over what is left when masked tokens are dropped, bit for bit where it must be."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpretrain.assembly.build import build_model
from mmpretrain.assembly.check import check_model
from mmpretrain.config.model import EncoderConfig, FusionConfig, Pool
from mmpretrain.models.attention_mmpretrain import Block
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.fusion_mmpretrain import FeatureTokenizer, Fusion, TokenConverter, position_code
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.pooling_mmpretrain import StateForm, States
from tests.models.fused import NAMES, WIDTH, Factorizing, Fusing, Inputs, four_config, four_inputs
from tests.models.small import VIT, fresh_interpreter, small_config, small_model
from tests.models.test_modeling import INPUTS
from tests.submodules import every, submodule


def four_model(**fusion: object) -> MMPretrainModel:
    """A model with a fusion of four modalities."""
    torch.manual_seed(0)
    return build_model(four_config(Fusing(), fusion)).eval()


def test_number_of_parameters_is_the_published_one() -> None:
    assert sum(p.numel() for p in Fusion({"tokens": (StateForm.tokens, 512)}, 512, 8).parameters()) == 3_153_920
    converters = Fusion({"picture": (StateForm.map, 256), "genes": (StateForm.vector, 10)}, 512, 8).converters
    assert sum(p.numel() for p in converters.parameters()) == 256 * 512 + 512 + 2 * 10 * 512


@pytest.mark.parametrize("layers", [1, 3])
def test_initial_weights(layers: int) -> None:
    torch.manual_seed(0)
    fusion = Fusion({"genes": (StateForm.vector, 200)}, 256, 8, layers)
    outer = (2 * layers * 256) ** -0.5
    for block in every(fusion.blocks, Block):
        attention = block.attention
        stds = [(attention.query, 1 / 16), (attention.key_value, 1 / 16), (attention.output, outer)]
        for layer, std in [*stds, (block.hidden, 512**-0.5), (block.output, outer)]:
            assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.02)
            assert not layer.bias.any()
    assert float(fusion.cls.detach().std()) == pytest.approx(1, rel=0.15)
    tokenizer = fusion.converters["genes"]
    assert all(float(p.detach().std()) == pytest.approx(1, rel=0.03) for p in tokenizer.parameters())


def left_over(fusion: Fusion, tokens: list[Tensor]) -> Tensor:
    """[1, d] of one sample: [CLS] and the tokens that are not masked, through torch's own attention."""
    x = torch.cat([fusion.cls, *tokens], dim=1)
    for block in every(fusion.blocks, Block):
        own = block.attention
        attention = nn.MultiheadAttention(x.shape[2], own.heads, batch_first=True, dtype=x.dtype)
        attention.in_proj_weight.data = torch.cat([own.query.weight, own.key_value.weight])
        attention.in_proj_bias.data = torch.cat([own.query.bias, own.key_value.bias])
        attention.out_proj.load_state_dict(own.output.state_dict())
        y = block.attention_norm(x)
        x = x + attention(y, y, y, need_weights=False)[0]
        y = block.hidden(block.mlp_norm(x))
        x = x + block.output(y * torch.sigmoid(1.702 * y))
    return fusion.norm(x)[:, 0]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_masking_is_dropping(layers: int) -> None:
    """float64; lengths differ between samples, and samples lack modalities."""
    model = four_model(layers=layers).double()
    fusion, inputs = submodule(model, "fusion", Fusion), four_inputs()
    for tensor in fusion.parameters():
        tensor.data += 0.1 * torch.randn_like(tensor)
    present = {"picture": torch.tensor([True, False, True, False, True]), "motion": torch.tensor([False] + [True] * 4)}
    for name, rows in present.items():
        inputs[name]["present"] = rows
    output = model(**inputs)
    states = {}
    for name in NAMES:
        tensors = {key: tensor for key, tensor in inputs[name].items() if key != "present"}
        states[name] = submodule(model, f"encoders.{name}", Encoder).states(**tensors)
    tokens = {name: fusion.converters[name](states[name].values) for name in NAMES}
    for row in range(5):
        kept = {}
        for name in NAMES:
            masks = states[name].mask
            mask = torch.ones(tokens[name].shape[1]) if masks is None else masks[row]
            there = name not in present or bool(present[name][row])
            kept[name] = tokens[name][row : row + 1, mask.bool() & there]
            alone = left_over(fusion, [kept[name]])
            assert torch.allclose(output.embeds[name][row], alone[0], atol=1e-12)
        assert torch.allclose(output.fused_embeds[row], left_over(fusion, list(kept.values()))[0], atol=1e-12)


@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("layers", [1, 2])
def test_modality_alone_knows_nothing_of_the_others(layers: int, half: bool) -> None:
    """Bit for bit; what all see together changes."""
    model, inputs, other = four_model(layers=layers), four_inputs(), four_inputs(1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        before = model(**inputs)
        for name in NAMES:
            after = model(**{**other, name: inputs[name]})
            assert torch.equal(after.embeds[name], before.embeds[name])
            assert not torch.equal(after.fused_embeds, before.fused_embeds)
            changed = model(**{**inputs, name: other[name]})
            assert all(torch.equal(changed.embeds[n], before.embeds[n]) == (n != name) for n in NAMES)
            assert not (changed.fused_embeds == before.fused_embeds).all(dim=1).any()


@pytest.mark.parametrize("layers", [1, 2])
def test_subset_is_the_rest_masked(layers: int) -> None:
    model, inputs = four_model(layers=layers), four_inputs()
    whole = model(**inputs)
    some = {name: inputs[name] for name in ("caption", "motion")}
    output = model(**some)
    assert list(output.embeds) == ["motion", "caption"]
    masked = model(**without(inputs, "picture", "genes"))
    assert torch.allclose(output.fused_embeds, masked.fused_embeds, atol=1e-6)
    assert not torch.allclose(output.fused_embeds, whole.fused_embeds, atol=1e-2)
    for name in NAMES:
        alone = model(**without(inputs, *(n for n in NAMES if n != name)))
        assert torch.allclose(alone.fused_embeds, whole.embeds[name], atol=1e-6)
        assert torch.allclose(model(**{name: inputs[name]}).fused_embeds, whole.embeds[name], atol=1e-6)


def without(inputs: Inputs, *names: str) -> Inputs:
    """``inputs`` of samples that all lack ``names``."""
    lacking = {"present": torch.zeros(5, dtype=torch.bool)}
    return {name: {**tensors, **(lacking if name in names else {})} for name, tensors in inputs.items()}


def test_missing_modality_alone_is_nothing_and_teaches_nothing() -> None:
    model, inputs = four_model(), four_inputs()
    inputs["genes"]["present"] = torch.tensor([True, False, False, True, True])
    embeds = model(**inputs).embeds["genes"]
    assert torch.equal(embeds[1], embeds[2]) and not torch.equal(embeds[0], embeds[1])
    embeds[1:3, 0].sum().backward()
    gradients = [p.grad for n, p in model.named_parameters() if n.startswith(("encoders.genes", "fusion.converters"))]
    assert all(g is None or not g.any() for g in gradients)
    of_cls = submodule(model, "fusion", Fusion).cls.grad
    assert of_cls is not None and of_cls.any()


def test_gradients_reach_what_they_must() -> None:
    model = four_model(layers=2).train()
    output = model(**four_inputs())
    names, parameters = zip(*model.encoders.named_parameters(), strict=True)
    for name in NAMES:
        out = output.embeds[name][:, 0].sum()
        found = torch.autograd.grad(out, parameters, retain_graph=True, allow_unused=True)
        reached = {n.split(".")[0] for n, g in zip(names, found, strict=True) if g is not None and g.any()}
        assert reached == {name}
    output.fused_embeds[:, 0].sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_feature_map_becomes_tokens_by_a_1x1_convolution_and_positions() -> None:
    torch.manual_seed(0)
    converter, values = TokenConverter(6, 8, linear=True), torch.randn(2, 6, 2, 3)
    linear = submodule(converter, "linear", nn.Linear)
    convolved = F.conv2d(values, linear.weight[:, :, None, None], linear.bias)
    expected = convolved.flatten(2).transpose(1, 2) + position_code(2, 3, torch.zeros(8))
    assert torch.allclose(converter(values), expected, atol=1e-6)
    code = position_code(2, 3, torch.zeros(8)).double()
    for place, (row, column) in enumerate([(r, c) for r in range(2) for c in range(3)]):
        angles = torch.tensor([row, row / 100, column, column / 100], dtype=torch.float64)
        by_hand = [angles[:2].sin(), angles[:2].cos(), angles[2:].sin(), angles[2:].cos()]
        assert torch.allclose(code[place], torch.cat(by_hand), atol=1e-6)


def test_tokens_of_vectors() -> None:
    tokenizer, x = FeatureTokenizer(3, 4), torch.randn(2, 3)
    assert torch.allclose(tokenizer(x)[1, 2], x[1, 2] * tokenizer.weight[2] + tokenizer.bias[2])
    one = Fusion({"wide": (StateForm.vector, 8), "narrow": (StateForm.vector, 3)}, 8, 2, vectors="one").converters
    assert not list(one["wide"].parameters()) and one["narrow"](x).shape == (2, 1, 8)
    assert torch.equal(one["wide"](torch.ones(2, 8)), torch.ones(2, 1, 8))


def test_tokens_of_the_right_width_pass_as_they_are() -> None:
    converters = submodule(four_model(), "fusion", Fusion).converters
    assert sorted(n for n in NAMES if list(converters[n].parameters())) == ["genes", "picture"]
    assert list(submodule(four_model(width=20), "fusion", Fusion).converters["motion"].parameters())


def test_embeddings_are_as_wide_as_the_fusion() -> None:
    model = four_model()
    assert model.embed_sizes == dict.fromkeys(NAMES, WIDTH) and not len(model.projections)
    output = model(**dict(reversed(four_inputs().items())))
    assert list(output.embeds) == list(NAMES) and output.fused_embeds.shape == (5, WIDTH)
    assert (output.logits, output.shared_embeds, output.unique_embeds) == (None, None, None)


@pytest.mark.parametrize(
    ("states", "width", "heads", "message"),
    [
        ({"x": (StateForm.tokens, 8)}, 8, 3, "3 attention heads cannot share a width of 8"),
        ({"x": (StateForm.map, 8)}, 6, 2, "positions needs a width that 4 divides, not 6"),
    ],
)
def test_widths_that_do_not_fit(states: dict, width: int, heads: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Fusion(states, width, heads)


def test_mask_of_another_shape_is_refused() -> None:
    fusion = Fusion({"x": (StateForm.tokens, 8)}, 8, 2)
    with pytest.raises(ValueError, match=r"'x': a mask of shape \[2, 4\] for tokens of shape \[2, 3\]"):
        fusion({"x": States(torch.zeros(2, 3, 8), torch.ones(2, 4))}, {})


def test_half_precision() -> None:
    model, inputs = four_model().train(), four_inputs()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**inputs)
    output.fused_embeds[:, 0].float().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    whole = model.eval()(**inputs).fused_embeds
    half = model.to(torch.bfloat16)(**inputs).fused_embeds
    assert half.dtype is torch.bfloat16 and torch.allclose(half.float(), whole, atol=0.2)


def test_nothing_that_deepspeed_or_loading_breaks(tmp_path: Path) -> None:
    model = four_model(layers=2)
    assert all(parameter.ndim > 0 for parameter in model.parameters())
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(tensor + 1)
    model.save_pretrained(tmp_path)
    again = MMPretrainModel.from_pretrained(tmp_path)
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in model.state_dict().items())
    assert torch.equal(again(**four_inputs()).fused_embeds, model(**four_inputs()).fused_embeds)


OPEN = """
import pickle
import torch
from transformers import AutoModel
for name, (inputs, expected) in pickle.load(open("expected.pkl", "rb")).items():
    model, info = AutoModel.from_pretrained(name, trust_remote_code=True, output_loading_info=True)
    assert not any(info.values()), info
    output = model(**inputs)
    assert list(output) == list(expected)
    for key, tensor in expected.items():
        pairs = zip(tensor.values(), output[key].values()) if isinstance(tensor, dict) else [(tensor, output[key])]
        assert all(torch.equal(a, b) for a, b in pairs), key
"""


@pytest.mark.processes
def test_releases_open_where_this_package_is_absent(tmp_path: Path) -> None:
    expected = {}
    for method in (Fusing(), Factorizing()):
        model, inputs = build_model(four_config(method)).eval(), four_inputs()
        model.save_pretrained(tmp_path / method.name)
        with torch.no_grad():
            expected[method.name] = (inputs, dict(model(**inputs)))
    (tmp_path / "expected.pkl").write_bytes(pickle.dumps(expected))
    fresh_interpreter(OPEN, tmp_path, ours=False)


def test_present_without_a_fusion_changes_nothing() -> None:
    model = small_model()
    marked = {name: {**tensors, "present": torch.tensor([True, False])} for name, tensors in INPUTS.items()}
    assert torch.equal(model(**marked).logits, model(**INPUTS).logits)


def test_preflight_counts_the_fusion() -> None:
    problems, notes, _ = check_model(four_config(Fusing()))
    model = four_model()
    assert problems == []
    fusion = submodule(model, "fusion", Fusion)
    counts = [sum(p.numel() for p in module.parameters()) for module in (fusion, fusion.converters, model)]
    assert f"fusion: {counts[0]:,} parameters, {counts[1]:,} of them make tokens" in notes
    assert notes[-1].startswith(f"model: {counts[2]:,} parameters")


def test_preflight_refuses_what_cannot_be_fused() -> None:
    config = four_config(Fusing(), {"width": 18, "heads": 3})
    assert check_model(config).problems == [
        "model.fusion: the code of a feature map's positions needs a width that 4 divides, not 18"
    ]
    config = small_config(Fusing(), embed_dim=None, fusion=FusionConfig(16, 4))
    assert check_model(config).problems == []
    config.model.encoders["picture"] = EncoderConfig("vit", {**VIT, "patch_size": 3})
    assert "do not tile" in check_model(config).problems[0]
    config.data.modalities["picture"].size = [8, 8]
    vitdet = {key: value for key, value in VIT.items() if key != "intermediate_size"}
    config.model.encoders["picture"] = EncoderConfig("vitdet", vitdet)
    (problem,) = check_model(config).problems
    assert "states of shape [2, 16, 4, 4], which the fusion cannot take for tokens of width 16" in problem


def test_feature_maps_of_transformers_are_converted_too() -> None:
    config = small_config(Fusing(), embed_dim=None, fusion=FusionConfig(8, 4))
    resnet = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
    config.model.encoders["picture"] = EncoderConfig("resnet", resnet)
    assert check_model(config).problems == []
    model = build_model(config).eval()
    # As wide as the fusion already, and convolved nevertheless.
    assert [tuple(p.shape) for p in model.fusion.converters["picture"].parameters()] == [(8, 8), (8,)]
    assert model(**INPUTS).fused_embeds.shape == (2, 8)


def test_projection_and_fusion_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="embed_dim projects pooled encoder outputs"):
        MMPretrainConfig(embed_dim=8, fusion={"width": 8, "heads": 2})


def test_config_refuses_what_a_fusion_does_not_use() -> None:
    config = four_config(Fusing())
    config.model.encoders["caption"].pool = Pool.mean
    (found,) = (problem for problem in config.problems() if "fuses tokens" in problem)
    assert found.startswith("model.encoders.caption.pool")
    assert FusionConfig(30, 4).problems() == ["model.fusion.heads is 4: it must divide model.fusion.width=30"]
    assert FusionConfig(layers=0).problems() == ["model.fusion.layers is 0: it must be at least 1"]


def test_a_projection_asked_for_is_left_out_and_said_so() -> None:
    config = four_config(Fusing(), embed_dim=8)
    problems, notes, model = check_model(config)
    assert problems == [] and model is not None and model.config.embed_dim is None
    assert "model.embed_dim has no effect with method=fusing: model.fusion.width counts" in notes
