"""C-MCR as a method: its values where they are known, its noise, its options, and what stays frozen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmpretrain.config.kind import Kind
from mmpretrain.config.methods.names import CmcrConfig, Passes
from mmpretrain.config.model import ConnectedSpace, EncoderConfig, ModelConfig, ProjectorForm, ProjectorsConfig
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.methods.base import Losses, Method
from mmpretrain.methods.cmcr import intra_alignment
from mmpretrain.models.connected_mmpretrain import Connection
from tests.methods.toys import EMBEDDINGS, make_batch, make_config, make_method, make_step
from tests.submodules import submodule

SWAPPED = ("second_shared", "first_shared", "second_partner", "first_partner")


def losses_of(config: Config, batch: Batch, method: Method | None = None) -> Losses:
    """One step, without noise of its own."""
    method = method or make_method(config)
    return method.objective(method.encode(method.model, batch), make_step(), World.single())


def embeds_of(first: Tensor, partner: Tensor) -> dict[str, Tensor]:
    """The same shared rows, and the same partners, in both spaces."""
    return dict(zip(EMBEDDINGS, (first, first, partner, partner), strict=True))


@pytest.mark.parametrize(("temperature", "expected"), [(0.07, 10.570957), (1.0, 2.277460), (0.01, 72.196775)])
def test_contrast_has_the_values_that_are_known(temperature: float, expected: float) -> None:
    draw = np.random.default_rng(0)
    query, key = (torch.from_numpy(draw.standard_normal((8, 5))) for _ in range(2))
    pair = Pair(query, key)
    (result,) = contrastive([pair], scale=1 / temperature, world=World.single())
    assert result.loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("partner", "distance"), [(1, 0.0), (0, math.sqrt(2)), (-1, 2.0)])
def test_pull_of_equal_orthogonal_and_opposite_rows(partner: int, distance: float) -> None:
    axes = torch.eye(4, dtype=torch.float64, requires_grad=True)
    other = axes.roll(1, dims=0) if partner == 0 else partner * axes
    loss = intra_alignment(embeds_of(3 * axes, 0.5 * other))  # lengths must not matter
    assert loss.item() == pytest.approx(distance, abs=2e-6)
    loss.backward()
    assert axes.grad is not None and axes.grad.isfinite().all()


@pytest.mark.parametrize("width", [1, 2, 512])
def test_pull_of_any_rows_lies_between_0_and_2(width: int) -> None:
    """One sample at a time, of any length: a mean would hide it if one left the range."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(100):
        rows = [10 ** torch.randn(1, generator=draw) * torch.randn(1, width, generator=draw) for _ in EMBEDDINGS]
        assert 0 <= intra_alignment(dict(zip(EMBEDDINGS, rows, strict=True))).item() <= 2 + 1e-6


def test_pull_of_bfloat16_rows_is_computed_in_float32() -> None:
    rows = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    loss, exact = (
        intra_alignment(embeds_of(rows, 2.5 * rows)),
        intra_alignment(embeds_of(rows.double(), (2.5 * rows).double())),
    )
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(exact.item(), abs=1e-5)


def test_noise_has_its_size_and_no_noise_changes_nothing() -> None:
    """Section 3.2: in 512 dimensions the mean cosine of z and n(z + eps) is 1 / sqrt(1 + 512 * 0.004)."""
    rows = torch.nn.functional.normalize(torch.randn(400, 512, generator=torch.Generator().manual_seed(0)), dim=1)
    ids = torch.arange(400)
    batch = Batch({name: {"values": rows} for name in EMBEDDINGS}, None, ids, ids)
    noisy = make_method(make_config("cmcr")).prepare(batch, make_step())
    for inputs in noisy.inputs.values():
        assert (inputs["values"] * rows).sum(dim=1).mean().item() == pytest.approx(1 / math.sqrt(3.048), abs=0.02)
        assert inputs["values"].norm(dim=1).allclose(torch.ones(400))
    still = make_method(make_config("cmcr", noise=0.0)).prepare(batch, make_step())
    assert all(inputs["values"].allclose(rows) for inputs in still.inputs.values())


def test_noise_follows_the_position_and_differs_between_embeddings() -> None:
    config = make_config("cmcr")
    method, whole = make_method(config), make_batch(config)
    noisy = method.prepare(whole, make_step()).inputs
    part = method.prepare(make_batch(config, 1, 4), make_step()).inputs
    later = method.prepare(make_batch(config, step=1), make_step(index=1)).inputs
    for name, inputs in noisy.items():
        assert torch.equal(part[name]["values"], inputs["values"][4:8])
        assert not later[name]["values"].allclose(inputs["values"])
    alike = replace(whole, inputs={name: whole.inputs["first_shared"] for name in EMBEDDINGS})
    a, b, *_ = (inputs["values"] for inputs in method.prepare(alike, make_step()).inputs.values())
    assert not a.allclose(b)


def test_the_spaces_are_interchangeable() -> None:
    config = make_config("cmcr")
    method, mirrored, batch = make_method(config), make_method(config), make_batch(config)
    projectors = submodule(mirrored.model, "connection", Connection).projectors
    first, second = (dict(projectors[space].state_dict()) for space in ConnectedSpace)
    first, second = ({name: t.clone() for name, t in state.items()} for state in (first, second))
    projectors["first"].load_state_dict(second)
    projectors["second"].load_state_dict(first)
    swapped = replace(batch, inputs=dict(zip(SWAPPED, batch.inputs.values(), strict=True)))
    there, back = losses_of(config, batch, method), losses_of(config, swapped, mirrored)
    assert there.total.item() == pytest.approx(back.total.item(), rel=1e-12)


def test_projectors_without_output_layer_give_no_negative_cosines() -> None:
    config = replace(make_config("cmcr"), model=ModelConfig(projectors=ProjectorsConfig(ProjectorForm.half)))
    method, batch = make_method(config), make_batch(config)
    features = method.encode(method.model, batch)
    rows = torch.nn.functional.normalize(torch.cat(list(features.embeds.values())), dim=1)
    assert (rows @ rows.T).min() >= 0


def test_terms_of_weight_zero_are_left_out() -> None:
    config = make_config("cmcr", partner_weight=0.0, intra=0.0)
    assert losses_of(config, make_batch(config)).terms.keys() == {"shared"}
    whole = losses_of(make_config("cmcr", intra=0.2), make_batch(config))
    assert whole.terms.keys() == {"shared", "partner", "intra"} and whole.weights == {"partner": 1.0, "intra": 0.2}
    assert whole.diagnostics.keys() == {"accuracy/shared", "accuracy/partner"}


def test_statistics_are_of_both_together_or_of_either() -> None:
    joint, separate = (make_config("cmcr", passes=passes) for passes in Passes)
    batch = make_batch(joint)
    counts = []
    for config in (joint, separate):
        method = make_method(config)
        method.encode(method.model, batch)
        norm = submodule(method.model, "connection.projectors.first.layers.1", torch.nn.BatchNorm1d)
        assert norm.num_batches_tracked is not None
        counts.append(int(norm.num_batches_tracked))
    assert counts == [1, 2]
    assert losses_of(joint, batch).total != losses_of(separate, batch).total


def test_only_projectors_are_trained() -> None:
    method = make_method(make_config("cmcr"))
    assert not list(method.heads.parameters()) and not list(method.critics.parameters())
    assert {name.split(".")[:2][1] for name, _ in method.model.named_parameters()} == {"projectors"}


def problems(**changes: Any) -> str:
    """What is wrong with the usual config after ``changes`` to its data or to its method."""
    config = make_config("cmcr", **{key: value for key, value in changes.items() if hasattr(CmcrConfig, key)})
    for name, values in changes.items():
        if name in EMBEDDINGS:
            config.data.modalities[name] = replace(config.data.modalities[name], **values)
    config.data.global_batch = changes.get("global_batch", config.data.global_batch)
    config.model.encoders = changes.get("encoders", {})
    config.evaluation.final = []
    return "\n".join(config.problems())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "method.temperature is 0.0: it must be above 0"),
        ({"partner_temperature": 1e-4}, "method.partner_temperature is 0.0001: it must be at least"),
        ({"noise": -1.0}, "method.noise is -1.0: it must be 0 or more"),
        ({"intra": -1.0}, "method.intra is -1.0"),
        ({"shared_through": ConnectedSpace.second}, "chooses between two releases"),
        ({"global_batch": 1}, "batch norm needs at least 2"),
        ({"second_partner": {"size": [7]}}, "both are embeddings of one space"),
        ({"first_shared": {"kind": Kind.sequence, "size": [3, 5]}}, "first_shared is a sequence"),
        ({"first_shared": {"optional": True}}, "needs all modalities of every sample"),
        ({"encoders": {"first_shared": EncoderConfig("mlp")}}, "set model=connection"),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, Any], message: str) -> None:
    assert message in problems(**changes)


def test_the_usual_config_has_no_problems_and_other_data_is_refused() -> None:
    assert problems() == ""
    assert "of `mmpretrain pair`" in "\n".join(CmcrConfig().data_problems(make_config("clip").data))
