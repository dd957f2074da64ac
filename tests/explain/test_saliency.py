"""Attributions are the derivatives they are called; section 11 of MUCMM (reconstruction), checks 3, 4 and 9."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpretrain.assembly.build import build_processor
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.explain.attribution_maps import attribution_maps, output_codes
from mmpretrain.explain.decomposition import CodesOrigin, Decomposition, ModalityPart, fit
from mmpretrain.explain.opened import Opened
from mmpretrain.explain.saliency import GradientInput, attribute
from mmpretrain.explain.scores import Codes, common_score, individual_score
from mmpretrain.explain.settings import Attribution, AttributionForm, CommonScore, IndividualScore, Settings
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.explain.explained import components_model, linear_world
from tests.models.small import small_config, small_model, small_samples

STEP = 1e-5


def identity_model() -> MMPretrainModel:
    """Vectors of the linear world are their own embeddings."""
    encoders = {
        name: {"architecture": "identity", "config": {"input_size": width}, "pool": "cls"}
        for name, width in (("first", 8), ("second", 6))
    }
    return MMPretrainModel(MMPretrainConfig(encoders)).double().eval()


def opened(model: Any, sizes: dict[str, int]) -> Opened:
    """A model as if it had been opened with data of vectors."""
    modalities = {name: ModalityConfig(Kind.vector, [size]) for name, size in sizes.items()}
    data = DataConfig(name="made up", path="nowhere", modalities=modalities)
    return Opened(model, dict, {}, {}, data, None, torch.device("cpu"))


def random_part(embed: int, common: int, individual: int) -> ModalityPart:
    """A part whose model gives the codes, with loadings of no meaning."""
    draw = torch.Generator().manual_seed(embed)
    loadings = [torch.randn(embed, width, generator=draw).double() for width in (common, individual)]
    return ModalityPart(
        torch.zeros(embed).double(), torch.ones(embed).double(), embed, None, (loadings[0], loadings[1])
    )


def differences(score: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    """Central differences of ``score`` ([b, ...] -> [b]) in every element of ``value``."""
    found = torch.empty_like(value)
    for place in range(value[0].numel()):
        moved = torch.zeros_like(value)
        moved.view(len(value), -1)[:, place] = STEP
        found.view(len(value), -1)[:, place] = (score(value + moved) - score(value - moved)) / (2 * STEP)
    return found


def close(found: Tensor, expected: Tensor, relative: float = 1e-6) -> None:
    """Whether they agree to ``relative`` of the largest expected value."""
    assert (found - expected).abs().max() <= relative * expected.abs().max()


@pytest.mark.parametrize("hidden", [None, 5], ids=["linear heads", "MLP heads"])
@pytest.mark.parametrize(
    "form",
    [AttributionForm(), AttributionForm(CommonScore.cosine, IndividualScore.energy, weighted=True)],
    ids=["product and norm", "cosine and energy"],
)
def test_maps_are_finite_differences_of_the_scores(hidden: int | None, form: AttributionForm) -> None:
    model = components_model(hidden)
    parts = {name: random_part(8, 2, 3) for name in ("first", "second")}
    rho = torch.tensor([0.9, 0.4], dtype=torch.float64)
    fitted = Decomposition(("first", "second"), parts, rho, rho, {}, 0.1, 9, CodesOrigin.model)
    inputs = {name: {"values": torch.randn(3, 7, dtype=torch.float64)} for name in parts}
    found = attribution_maps(opened(model, {"first": 7, "second": 7}), fitted, form, inputs)

    codes = {name: partial(_codes, model, parts[name], name) for name in parts}
    weights = rho if form.weighted else None
    for name, other in (("first", "second"), ("second", "first")):
        value = inputs[name]["values"]
        with torch.no_grad():
            theirs = codes[other](inputs[other]["values"]).common
            scores = partial(_scores, codes[name], theirs, parts[name].loadings, form, weights)
            for number in (0, 1):
                close(found[name][number], differences(partial(_one_of, scores, number), value))


def _codes(model: MMPretrainModel, part: ModalityPart, name: str, value: Tensor) -> Codes:
    return output_codes(part, name, model(**{name: {"values": value}}))


def _one_of(scores: Callable[[Tensor], tuple[Tensor, Tensor]], number: int, value: Tensor) -> Tensor:
    return scores(value)[number]


def _scores(
    codes: Callable[[Tensor], Codes],
    theirs: Tensor,
    loadings: tuple[Tensor, Tensor],
    form: AttributionForm,
    weights: Tensor | None,
    value: Tensor,
) -> tuple[Tensor, Tensor]:
    """The common and the individual score, straight from the input."""
    mine = codes(value)
    return common_score(mine.common, theirs, form.common, weights), individual_score(mine, loadings, form.individual)


def test_linear_facts() -> None:
    """F1, F2 and F4 of section 5: what the gradients are when an embedding is its own input."""
    world = linear_world(3000, 1)
    fitted = fit(world, ("first", "second"), Settings(common=2, variance=1.0, draws=2), CodesOrigin.closed_form)
    inputs = {name: {"values": torch.from_numpy(world.embeds[name][:5]).double()} for name in fitted.pair}
    opened_model = opened(identity_model(), {"first": 8, "second": 6})
    common, individual = attribution_maps(opened_model, fitted, AttributionForm(), inputs)["first"]
    first, second = (fitted.parts[name] for name in fitted.pair)
    assert first.maps is not None and second.maps is not None
    theirs = (inputs["second"]["values"] - second.mean) @ second.maps[0]
    close(common, theirs @ first.maps[0].T, 1e-10)
    mine = (inputs["first"]["values"] - first.mean) @ first.maps[1]
    close(individual, 2 * mine @ first.maps[1].T, 1e-10)
    rows = torch.from_numpy(world.embeds["first"]).double()
    covariance = torch.cov(rows.T)
    covariance = covariance + 1e-4 * covariance.diagonal().mean() * torch.eye(8)
    close(common @ covariance @ first.maps[0], theirs, 1e-8)
    assert ((common @ covariance) * individual).sum(dim=1).abs().max() < 1e-8


def test_smoothgrad_is_the_mean_over_noisy_inputs_and_repeats_itself() -> None:
    value = torch.linspace(-1, 1, 8).view(2, 4)
    state = torch.get_rng_state()
    first, second = (attribute(lambda x: x.pow(2).sum(1), value, (), Attribution.smoothgrad) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())
    assert (first - 2 * value).abs().max() < 0.5 and not torch.equal(first, 2 * value)
    noiseless = attribute(lambda x: x.pow(2).sum(1), value, (), Attribution.smoothgrad, sigma=1e-9)
    assert torch.allclose(noiseless, 2 * value, atol=1e-5)


def test_smoothgrad_of_a_sample_is_its_own() -> None:
    """Another sample's range does not set its noise."""
    value, offset = torch.linspace(-1, 1, 8).view(2, 4), torch.ones(2, 4)
    wild = torch.stack([value[0], 1000 * value[1]])

    def score(x: Tensor, o: Tensor) -> Tensor:
        return (x + o).pow(4).sum(1)

    one, other = (attribute(score, v, (offset,), Attribution.smoothgrad) for v in (value, wild))
    assert torch.equal(one[0], other[0])
    again = attribute(score, value, (offset,), Attribution.smoothgrad, seed=1)
    assert not torch.equal(one, again)


def test_few_noisy_copies_go_through_the_model_at_a_time() -> None:
    sizes: list[int] = []

    def score(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.pow(2).sum(1)

    attribute(score, torch.randn(3, 4), (), Attribution.smoothgrad)
    assert sum(sizes) == 3 * 25 and max(sizes) <= 5


def test_input_x_gradient_and_further_arguments() -> None:
    value, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
    found = attribute(lambda x, w: (w * x).sum(1), value, (weight,), Attribution.input_x_gradient)
    assert found.tolist() == [[3, -2]]


@pytest.mark.parametrize("name", ["picture", "caption", "genes"])
def test_gradients_of_every_kind_of_input(name: str) -> None:
    """Texts by their token embeddings: the derivative, and the output when nothing was moved."""
    model = small_model().double()
    tensors = build_processor(small_config())(**{name: small_samples()[name]})[name]
    tensors = {key: t.double() if t.is_floating_point() else t for key, t in tensors.items()}
    source = GradientInput(model, name, tensors)
    with torch.no_grad():
        assert torch.equal(
            source.run(source.value, *source.further).embeds[name], model(**{name: tensors}).embeds[name]
        )

    def score(value: Tensor, *further: Tensor) -> Tensor:
        return source.run(value, *further).embeds[name].square().sum(dim=1)

    found = attribute(score, source.value, source.further, Attribution.gradient)
    with torch.no_grad():
        close(found, differences(lambda value: score(value, *source.further), source.value))
    assert all(parameter.grad is None for parameter in model.parameters())
    # Noise is drawn for several copies of the batch at a time, masks and token ids along with it.
    assert attribute(score, source.value, source.further, Attribution.smoothgrad).shape == source.value.shape
