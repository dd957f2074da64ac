"""Samples without some modality in CLIP and SigLIP: a pair of modalities sees those that have both, no others."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mmpretrain.data.batch import Batch
from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Losses, Method
from tests.methods.toys import NAMES, having_both, make_batch, make_config, make_method, make_step

METHODS = ("clip", "siglip")


def start(method: str, modalities: int = 3, *optional: str) -> tuple[Method, Batch]:
    """The method and its batch."""
    config = make_config(method, modalities, optional=optional)
    return make_method(config), make_batch(config)


def lose(method: Method, batch: Batch) -> Losses:
    """One step's losses."""
    return method.objective(method.encode(method.model, batch), make_step(), World.single())


@pytest.mark.parametrize("name", METHODS)
def test_what_an_absent_modality_holds_does_not_matter(name: str) -> None:
    method, batch = start(name, 3, *NAMES[:2])
    before = lose(method, batch)
    for modality, there in batch.present.items():
        batch.inputs[modality]["values"][~there] = 9.0
    after = lose(method, batch)
    assert after.total.item() == before.total.item()
    assert after.diagnostics.keys() == before.diagnostics.keys() >= {"accuracy/mrna-methylation", "accuracy/mrna-mirna"}


@pytest.mark.parametrize("name", METHODS)
def test_two_modalities_lose_as_a_batch_of_the_paired_samples_alone(name: str) -> None:
    method, batch = start(name, 2, NAMES[1])
    both = having_both(batch, *NAMES[:2])
    inputs = {n: {"values": tensors["values"][both]} for n, tensors in batch.inputs.items()}
    paired = replace(batch, inputs=inputs, sample_ids=batch.sample_ids[both], positions=batch.positions[both])
    assert 0 < len(paired) < len(batch)
    assert lose(method, batch).total.item() == pytest.approx(lose(method, paired).total.item(), rel=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_a_pair_that_no_sample_has_is_left_out_of_the_mean(name: str) -> None:
    method, batch = start(name, 3, *NAMES)
    inputs = {n: dict(tensors) for n, tensors in batch.inputs.items()}
    first = torch.arange(len(batch)) < 8
    for modality, there in ((NAMES[0], first), (NAMES[2], ~first), (NAMES[1], first | True)):
        inputs[modality] = {"values": inputs[modality]["values"], "present": there}
    losses = lose(method, replace(batch, inputs=inputs))
    assert f"accuracy/{NAMES[0]}-{NAMES[2]}" not in losses.diagnostics
    method.pairs = [(NAMES[0], NAMES[1]), (NAMES[1], NAMES[2])]  # type: ignore[attr-defined]
    assert lose(method, replace(batch, inputs=inputs)).total.item() == pytest.approx(losses.total.item(), rel=1e-12)
    for modality in NAMES[1:]:
        inputs[modality] = {**inputs[modality], "present": torch.zeros(len(batch), dtype=torch.bool)}
    with pytest.raises(ValueError, match=r"no sample of this batch has two modalities: enlarge data\.global_batch"):
        lose(method, replace(batch, inputs=inputs))


@pytest.mark.parametrize("name", METHODS)
def test_an_encoder_without_samples_gets_a_gradient_of_zero(name: str) -> None:
    """So that every rank has gradients of the same parameters in every step."""
    method, batch = start(name, 3, NAMES[2])
    batch.inputs[NAMES[2]]["present"] = torch.zeros(len(batch), dtype=torch.bool)
    lose(method, batch).total.backward()
    gradients = {n: p.grad for n, p in method.model.named_parameters()}
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients.values())
    idle = [gradient for n, gradient in gradients.items() if NAMES[2] in n]
    assert idle and not any(gradient.any() for gradient in idle if gradient is not None)
