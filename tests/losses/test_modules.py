"""The losses as modules, in the loops of the examples: the same training on one process and on two."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmpretrain import losses
from mmpretrain.distributed.world import World
from mmpretrain.losses import (
    InfoNCE,
    ObjectiveConfig,
    Pair,
    PairwiseLoss,
    SigmoidLoss,
    contrastive_losses,
    sigmoid_losses,
)
from tests.engine.runs import forget_engines
from tests.rank_pool import Ranks

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


def test_all_that_is_offered_is_there() -> None:
    assert all(callable(getattr(losses, name)) for name in losses.__all__)
    with pytest.raises(AttributeError):
        getattr(losses, "nothing")  # noqa: B009 - as an attribute it is no statement


def whole(count: int = 3) -> list[Tensor]:
    """Embeddings [8, 4] of some modalities, float64."""
    return list(torch.randn(count, 8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))


def test_the_modules_are_the_functions_with_numbers_that_are_learned() -> None:
    a, b, c = whole()
    pairs = [Pair(a, b), Pair(a, c), Pair(b, c)]
    dense = contrastive_losses(pairs, scale=1 / 0.2, world=World.single())
    assert InfoNCE(temperature=0.2)(a, b, c).item() == pytest.approx(sum(d.loss.item() for d in dense) / 3, rel=1e-6)
    judged = sigmoid_losses(pairs[:1], scale=10.0, bias=-4.0, world=World.single())
    assert SigmoidLoss(bias=-4.0)(a, b).item() == pytest.approx(judged[0].loss.item(), rel=1e-6)


def test_hard_negatives_and_the_margin_are_those_of_the_function() -> None:
    a, b, c = whole()
    mask, wrong = torch.arange(8) < 6, torch.stack([c, b + c], dim=1)
    pair = Pair(a[mask], b[mask], key_negatives=wrong[mask])
    settings = ObjectiveConfig(false_negative_margin=0.05)
    (dense,) = contrastive_losses([pair], scale=1 / 0.2, world=World.single(), settings=settings)
    loss = InfoNCE(temperature=0.2, false_negative_margin=0.05)
    found = loss(a, b, present=[None, mask], negatives=[None, wrong])
    assert found.item() == pytest.approx(dense.loss.item(), rel=1e-6)
    assert found.item() != pytest.approx(loss(a, b, present=[None, mask]).item())
    assert found.item() != pytest.approx(InfoNCE(0.2)(a, b, present=[None, mask], negatives=[None, wrong]).item())


def test_samples_that_lack_a_modality_do_not_count() -> None:
    a, b = whole(2)
    there = torch.arange(8) < 5
    assert InfoNCE()(a, b, present=[None, there]).item() == pytest.approx(InfoNCE()(a[:5], b[:5]).item())


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: InfoNCE()(torch.ones(2, 3)), "at least two modalities"),
        (lambda: InfoNCE(temperature=0.0), "temperature is 0.0"),
        (lambda: InfoNCE()(torch.ones(2, 3), torch.ones(2, 3), present=[None]), "present has 1 masks"),
        (lambda: InfoNCE()(torch.ones(2, 3), torch.ones(2, 3), negatives=[None]), "negatives has 1 tensors"),
        (lambda: InfoNCE(false_negative_margin=3.0), "must lie between -2 and 2"),
        (lambda: SigmoidLoss()(torch.ones(2, 3), torch.ones(2, 4)), "cannot be compared"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()


def gradients(loss_class: Callable[[], PairwiseLoss]) -> dict[str, Tensor]:
    """Of this rank's rows, and of the loss's own numbers, which nobody else averages."""
    world, loss = World.current(), loss_class().double()
    own = slice(world.rank * 8 // world.size, (world.rank + 1) * 8 // world.size)
    rows = [side[own].clone().requires_grad_() for side in whole()]
    wrong = whole()[2][own, None].clone().requires_grad_()
    there = torch.arange(8)[own, None] % 3 > 0
    loss(*rows, negatives=[None, wrong, None], negatives_present=[None, there, None]).backward()
    rows.append(wrong)
    found = {f"rows {number}": side.grad for number, side in enumerate(rows)}
    return {name: grad for name, grad in (found | _own(loss)).items() if grad is not None}


def _own(loss: PairwiseLoss) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in loss.named_parameters()}


@pytest.mark.parametrize("loss_class", [InfoNCE, SigmoidLoss, partial(InfoNCE, false_negative_margin=0.1)])
def test_gradients_are_those_of_one_process(ranks: Ranks, loss_class: Callable[[], PairwiseLoss]) -> None:
    alone, found = gradients(loss_class), ranks(2, gradients, loss_class)
    for name, exact in alone.items():
        if name.startswith("rows"):
            assert torch.allclose(torch.cat([rank[name] for rank in found]) / 2, exact, rtol=1e-10)
        else:
            assert all(torch.allclose(rank[name], exact, rtol=1e-10) for rank in found)


def trained(example: str) -> dict[str, Tensor]:
    """What the example's loop trains on the ranks that there are."""
    # A rank that had an engine before would give accelerate DeepSpeed again.
    os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)
    forget_engines()
    sys.path.insert(0, str(EXAMPLES))
    try:
        return {name: weights.detach().clone() for name, weights in importlib.import_module(example).train().items()}
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.mark.parametrize("example", ["plain_ddp", "fsdp2", "accelerated"])
def test_the_examples_train_alike_on_one_and_two_processes(ranks: Ranks, example: str) -> None:
    (alone,), several = ranks(1, trained, example), ranks(2, trained, example)
    for weights in several:
        assert weights.keys() == alone.keys()
        for name, exact in alone.items():
            assert torch.allclose(weights[name], exact, rtol=1e-4, atol=1e-6), name
