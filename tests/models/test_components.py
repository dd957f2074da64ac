"""Common and individual codes: what the module computes, gradients of scores by inputs, and vectors as they are.

Section 11 of MUCMM (reconstruction), checks 4 and 9."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.assembly.build import build_model
from mmpretrain.assembly.check import check_model
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.evaluation import EvaluationConfig
from mmpretrain.config.methods.names import MucmmConfig
from mmpretrain.config.model import ComponentsConfig, EncoderConfig, ModelConfig
from mmpretrain.config.root import Config
from mmpretrain.models.components_mmpretrain import Code, Components
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.models.small import MLP, small_config

SIZES = {"first": 6, "second": 5}


def vectors(hidden: int | None = None, common: int = 2, individual: int = 3, **components: Any) -> Config:
    """Two modalities of vectors that are embeddings already."""
    modalities = {name: ModalityConfig(Kind.vector, [size]) for name, size in SIZES.items()}
    return Config(
        method=MucmmConfig(),
        data=DataConfig("vectors", "nowhere", modalities=modalities, global_batch=64),
        evaluation=EvaluationConfig(final=[]),
        model=ModelConfig(
            encoders={name: EncoderConfig("identity") for name in SIZES},
            components=ComponentsConfig(common=common, individual=individual, hidden=hidden, **components),
        ),
    )


def model_of(config: Config) -> MMPretrainModel:
    """In float64, with frozen numbers that are no longer those of the start."""
    torch.manual_seed(0)
    model = build_model(config).double().eval()
    for part in model.components.modules():
        for name, buffer in part.named_buffers(recurse=False):
            buffer.copy_(torch.randn_like(buffer) / (1 if name == "center" else 2))
    return model


def part_of(model: MMPretrainModel, name: str) -> Components:
    """The components of a modality."""
    part = model.components[name]
    assert isinstance(part, Components)
    return part


def weight_of(code: Code) -> Tensor:
    """Of a linear head, [k, d]."""
    assert isinstance(code.head, nn.Linear)
    return code.head.weight


def inputs(rows: int = 4) -> dict[str, Tensor]:
    """Random vectors of both modalities."""
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(rows, size, generator=generator, dtype=torch.float64) for name, size in SIZES.items()}


def codes(model: MMPretrainModel, values: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Common and individual codes of these vectors."""
    output = model(**{name: {"values": rows} for name, rows in values.items()})
    return output.shared_embeds, output.unique_embeds


def test_codes_are_rotated_heads_of_whitened_embeddings() -> None:
    model, values = model_of(vectors()), inputs()
    common, individual = codes(model, values)
    for name, rows in values.items():
        part = part_of(model, name)
        x = (rows - part.center) @ part.whitening
        by_hand = (x @ weight_of(part.common).T - part.common.mean) @ part.common.rotation
        torch.testing.assert_close(common[name], by_hand)
        assert common[name].shape == (4, 2) and individual[name].shape == (4, 3)


def test_widths_are_those_of_the_config() -> None:
    model = build_model(vectors(individual_of={"second": 1}))
    assert {name: part_of(model, name).individual.width for name in SIZES} == {"first": 3, "second": 1}
    assert [part_of(model, name).common.width for name in SIZES] == [2, 2]


def test_linear_heads_start_orthogonal_and_the_rest_as_the_identity() -> None:
    part = part_of(build_model(vectors()), "first")
    for code in (part.common, part.individual):
        torch.testing.assert_close(weight_of(code) @ weight_of(code).T, torch.eye(code.width))
        assert torch.equal(code.rotation, torch.eye(code.width)) and not code.mean.any()
    assert torch.equal(part.whitening, torch.eye(6)) and not part.center.any() and not part.rho.any()
    assert not [name for name, _ in part.named_parameters() if "head" not in name]


def score(common: dict[str, Tensor], individual: dict[str, Tensor]) -> Tensor:
    """A number in which codes of both kinds take part."""
    return (common["first"] * common["second"]).sum() + individual["first"].square().sum()


@pytest.mark.parametrize("hidden", [None, 7])
def test_gradients_of_scores_by_inputs_are_those_of_finite_differences(hidden: int | None) -> None:
    model = model_of(vectors(hidden=hidden)).requires_grad_(False)

    def scores(first: Tensor, second: Tensor) -> Tensor:
        return score(*codes(model, {"first": first, "second": second}))

    values = tuple(rows.requires_grad_() for rows in inputs(2).values())
    assert torch.autograd.gradcheck(scores, values, rtol=1e-6, atol=1e-8)


def test_saliency_leaves_nothing_in_the_model() -> None:
    model, values = model_of(vectors()), inputs()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    asked = values["first"].requires_grad_()
    (gradient,) = torch.autograd.grad(score(*codes(model, values)), asked)
    assert gradient.any() and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_codes_keep_their_type_under_autocast() -> None:
    part, x = Components(6, 2, 3), torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = part(x.bfloat16())
    assert [code.dtype for code in found] == [torch.float32] * 2
    assert torch.equal(found[0], part(x.bfloat16().float())[0])


def test_a_modality_alone_has_codes_too() -> None:
    model, values = model_of(vectors()), inputs()
    both, _ = codes(model, values)
    alone, _ = codes(model, {"second": values["second"]})
    assert alone.keys() == {"second"} and torch.equal(alone["second"], both["second"])


def test_vectors_pass_as_they_are() -> None:
    model, values = model_of(vectors()), inputs()
    output = model(**{name: {"values": rows} for name, rows in values.items()})
    assert all(torch.equal(output.embeds[name], rows) for name, rows in values.items())
    with pytest.raises(ValueError, match=r"values has shape \[4, 5\], expected \[batch, 6\]"):
        model(first={"values": values["second"]})


def problems(config: Config) -> str:
    """What is wrong with the config or the model, in one line."""
    return " / ".join(config.problems() or check_model(config).problems)


def too_wide(config: Config) -> None:
    """More common dimensions than embeddings have."""
    config.model.components.common = 4


def no_such_modality(config: Config) -> None:
    """Individual dimensions of a modality that does not exist."""
    config.model.components.individual_of = {"third": 2}


def nothing(config: Config) -> None:
    """No individual dimension at all."""
    config.model.components.individual_of = {"first": 0}


def keyword(config: Config) -> None:
    """An option for an encoder that takes none."""
    config.model.encoders["first"].config = {"hidden_size": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (too_wide, "model.components: 4 common and 3 individual dimensions cannot come out of an embedding of 6"),
        (no_such_modality, "model.components.individual_of.third: data.modalities has no third, only first, second"),
        (nothing, "model.components.individual_of.first is 0: it must be at least 1"),
        (keyword, "model.encoders.first.config.hidden_size: unknown keyword"),
    ],
)
def test_what_cannot_be_built_is_named_before_the_start(change: Callable[[Config], None], message: str) -> None:
    config = vectors()
    assert not problems(config)
    change(config)
    assert message in problems(config)


def test_no_head_but_those_of_methods_that_decompose() -> None:
    config = small_config()
    assert not build_model(config).components
    whole = replace(config, method=MucmmConfig(), model=replace(config.model, components=ComponentsConfig(2, 3)))
    whole.model.encoders["genes"] = EncoderConfig("mlp", dict(MLP))
    assert [note for note in check_model(whole).notes if note == f"components: {3 * 8 * 5} parameters"]
    assert weight_of(part_of(build_model(whole), "genes").common).shape == (2, 8)
