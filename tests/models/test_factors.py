"""FactorCL's heads: five MLPs per modality, in the order of the paper's terms; and the MLP that they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmpretrain.assembly.build import build_model
from mmpretrain.assembly.check import check_model
from mmpretrain.config.model import EncoderConfig, FactorsConfig
from mmpretrain.models.factors_mmpretrain import SHARED, UNIQUE, FactorHeads
from mmpretrain.models.heads_mmpretrain import MLPHead, VectorMLP
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.models.fused import NAMES, Factorizing, four_config, four_inputs
from tests.models.small import small_config
from tests.submodules import submodule


def four_model(**model: Any) -> MMPretrainModel:
    """A model with factor heads on four modalities."""
    torch.manual_seed(0)
    return build_model(four_config(Factorizing(), **model)).eval()


def test_mlp_of_the_paper() -> None:
    """mlp(d, h, o, L): Linear(d, h) ReLU, L times Linear(h, h) ReLU, Linear(h, o)."""
    torch.manual_seed(0)
    head, x = MLPHead(5, 7, 3, layers=2), torch.randn(4, 5)
    layers = [module for module in head.modules() if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(5, 7), (7, 7), (7, 7), (7, 3)]
    by_hand = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2], nn.ReLU(), layers[3])
    assert torch.equal(head(x), by_hand(x))
    assert list(MLPHead(5, 7, 3).state_dict()) == ["hidden.weight", "hidden.bias", "output.weight", "output.bias"]
    # The synthetic experiment's encoder.
    assert sum(p.numel() for p in VectorMLP(100, 512, 128, layers=2).parameters()) == 642_688


def test_shared_and_unique_parts_are_the_five_heads() -> None:
    torch.manual_seed(0)
    heads, x = FactorHeads(6, hidden=5, width=4, layers=1), torch.randn(3, 6)
    shared, unique = heads(x)
    assert shared.shape == (3, 8) and unique.shape == (3, 12)
    parts = [*shared.split(4, dim=1), *unique.split(4, dim=1)]
    assert [name for name in (*SHARED, *UNIQUE)] == [
        "shared_lower", "shared_upper", "task", "unique_upper", "unique_lower"
    ]  # fmt: skip
    assert all(torch.equal(part, heads.heads[name](x)) for name, part in zip((*SHARED, *UNIQUE), parts, strict=True))
    for part in parts:
        part.square().sum().backward(retain_graph=True)
    assert all(p.grad is not None and p.grad.any() for p in heads.parameters() if p.ndim > 1)


def test_each_head_has_weights_of_its_own() -> None:
    heads = FactorHeads(6, None, None, 1)
    x = torch.randn(3, 6)
    heads(x)[0][:, 0].sum().backward()
    assert {name.split(".")[1] for name, p in heads.named_parameters() if p.grad is not None and p.grad.any()} == {
        "shared_lower"
    }


def test_outputs_of_the_model() -> None:
    model, inputs = four_model(), four_inputs()
    output = model(**inputs)
    assert {name: tuple(e.shape) for name, e in output.embeds.items()} == {
        "motion": (5, 16), "picture": (5, 6), "caption": (5, 16), "genes": (5, 5)
    }  # fmt: skip
    for name in NAMES:
        shared, unique = model.factors[name](output.embeds[name])
        assert torch.equal(output.shared_embeds[name], shared) and shared.shape == (5, 6)
        assert torch.equal(output.unique_embeds[name], unique) and unique.shape == (5, 9)
    assert output.fused_embeds is None and output.logits is None
    alone = model(genes=inputs["genes"])
    assert list(alone.shared_embeds) == list(alone.unique_embeds) == ["genes"]


def test_widths_follow_the_embedding_unless_given() -> None:
    model = four_model(factors=FactorsConfig(layers=2), embed_dim=10)
    head = submodule(model, "factors.genes.heads.task", MLPHead)
    assert (head.hidden.in_features, head.hidden.out_features, head.output.out_features) == (10, 10, 10)
    assert len(head.further) == 2
    assert four_model(factors=FactorsConfig()).factors["genes"].width == 5


def test_preflight_counts_the_heads() -> None:
    problems, notes, _ = check_model(four_config(Factorizing()))
    assert (
        problems == [] and f"factors: {sum(p.numel() for p in four_model().factors.parameters()):,} parameters" in notes
    )
    bad = FactorsConfig(hidden=0, width=-1, layers=-1).problems()
    assert [problem.split(" ")[0] for problem in bad] == [f"model.factors.{k}" for k in ("hidden", "width", "layers")]


def test_only_for_methods_that_factorize() -> None:
    model = build_model(small_config())
    assert not len(model.factors) and model.fusion is None
    assert model.config.factors is None and model.config.fusion is None


def test_deeper_vector_encoder_by_config() -> None:
    config = small_config()
    config.model.encoders["genes"] = EncoderConfig("mlp", {"hidden_size": 6, "output_size": 5, "layers": 2})
    assert len(submodule(build_model(config), "encoders.genes.backbone", VectorMLP).further) == 2
    config.model.encoders["genes"].config["layers"] = -1
    assert check_model(config).problems == [
        "model.encoders.genes.config.layers is -1: a whole number of 0 or more is needed"
    ]
