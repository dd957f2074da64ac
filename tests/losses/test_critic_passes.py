"""Strips by hand: as autograd has them, within the launches and the memory that are promised, and short on the wire."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from mmpretrain.config.objective import MIB, ObjectiveConfig, Products
from mmpretrain.distributed import collectives
from mmpretrain.distributed.world import World
from mmpretrain.losses import critic_strips
from mmpretrain.losses.critic_networks import Critic, PairwiseCritic, SeparableCritic
from mmpretrain.losses.critic_passes import GraphPass
from mmpretrain.losses.critic_strips import strip_bytes
from mmpretrain.losses.critics import CriticTerm, Estimator, critic_losses
from tests.rank_pool import Ranks

ALONE = World.single()
NO_LAUNCHES: tuple[str, ...] = (
    "empty",
    "view",
    "slice",
    "select",
    "expand",
    "unsqueeze",
    "squeeze",
    "t.",
    "transpose",
    "detach",
    "alias",
)
NO_LAUNCHES += ("diagonal", "split", "as_strided", "unbind", "_unsafe_view", "_reshape_alias", "permute", "new_empty")


class Plain(PairwiseCritic):
    """The same critic through its graph."""

    def scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """As the parent has them."""
        return super().scores(rows, columns)


class PlainProducts(SeparableCritic):
    """Likewise."""

    def scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """As the parent has them."""
        return super().scores(rows, columns)


def two(layers: int, separable: bool = False) -> tuple[Critic, Critic]:
    """By hand, and through the graph, of equal weights."""
    kinds: tuple[type[Any], type[Any]] = (SeparableCritic, PlainProducts) if separable else (PairwiseCritic, Plain)
    ours, graph = (kind(5, 4, 6, layers=layers).double() for kind in kinds)
    graph.load_state_dict(ours.state_dict())
    return ours, graph


def results(critic: Critic, estimator: Estimator, **settings: Any) -> list[Tensor]:
    """Loss and gradients of both sides and all parameters."""
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(7, width, generator=generator, dtype=torch.float64).requires_grad_() for width in (5, 4))
    term = CriticTerm(critic, a, b, estimator)
    (loss,) = critic_losses(
        [term],
        world=ALONE,
        settings=ObjectiveConfig(tile=3, **settings),
        temperature=0.3,
        sample_ids=torch.arange(7) // 2,
    )
    return [loss, *torch.autograd.grad(loss, [a, b, *critic.parameters()])]


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_by_hand_is_as_through_the_graph(layers: int) -> None:
    for estimator in Estimator:
        ours, graph = two(layers)
        none = critic_strips.Totals(None, None, [None] * (2 * layers + 2))
        assert isinstance(graph.strip_pass(1, torch.float64, none), GraphPass)
        for found, wanted in zip(results(ours, estimator), results(graph, estimator), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


def test_products_by_hand_are_as_through_the_graph() -> None:
    ours, graph = two(1, separable=True)
    for found, wanted in zip(results(ours, Estimator.nce), results(graph, Estimator.nce), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_parts_of_the_gradients_are_the_same_alone(layers: int) -> None:
    """A frozen critic, a frozen further layer, and candidates or anchors without gradient."""
    critic = PairwiseCritic(5, 4, 6, layers=layers).double()
    wanted = dict(zip(["a", "b", *dict(critic.named_parameters())], results(critic, Estimator.club)[1:], strict=True))
    generator = torch.Generator().manual_seed(1)
    a, b = (torch.randn(7, width, generator=generator, dtype=torch.float64) for width in (5, 4))
    every = {"a": a, "b": b, **dict(critic.named_parameters())}
    for chosen in (["a"], ["b"], ["network.2.weight"], [f"network.{2 * layers + 2}.bias"]):
        for name, tensor in every.items():
            tensor.requires_grad_(name in chosen)
        term = CriticTerm(critic, a, b, Estimator.club)
        settings = ObjectiveConfig(tile=3)
        (loss,) = critic_losses(
            [term], world=ALONE, settings=settings, temperature=0.3, sample_ids=torch.arange(7) // 2
        )
        (found,) = torch.autograd.grad(loss, [every[chosen[0]]])
        torch.testing.assert_close(found, wanted[chosen[0]], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_rounded_units_by_hand_are_near(monkeypatch: pytest.MonkeyPatch, layers: int) -> None:
    monkeypatch.setattr(critic_strips, "_has_units", lambda device: True)
    torch.manual_seed(0)
    critic = PairwiseCritic(4, 4, 32, layers=layers)
    a, b = torch.randn(2, 24, 4).requires_grad_().unbind()
    found = {}
    for products in Products:
        settings = ObjectiveConfig(products=products)
        (loss,) = critic_losses(
            [CriticTerm(critic, a, b, Estimator.nce)], world=ALONE, settings=settings, temperature=0.1
        )
        found[products] = [loss, *torch.autograd.grad(loss, [*critic.parameters()])]
    for rounded, exact in zip(found[Products.bfloat16], found[Products.float32], strict=True):
        assert rounded.dtype is torch.float32
        assert (rounded - exact).norm() <= 0.25 * exact.norm() + 1e-6
    if layers:
        assert not torch.equal(found[Products.bfloat16][0], found[Products.float32][0])


class Counted(TorchDispatchMode):
    """Launches by operation (views and empty tensors are none), and the most bytes that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.alive = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        name = function.name().removeprefix("aten::")
        if function.namespace == "aten" and not any(f"{name}.".startswith(other) for other in NO_LAUNCHES):
            self.launches[name] += 1
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.alive += size
        self.most = max(self.most, self.alive)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.alive -= size


def step_of_six(rows: int) -> Counted:
    """Forward and backward of FactorCL's six critics with 512 units and heads of 128, as on a device."""
    widths = {"shared": 128, "conditional": 256, "task": 128, "other": 128, "unique": 128, "unique_conditional": 256}
    settings = ObjectiveConfig(critic_mb=strip_bytes(ObjectiveConfig(), torch.device("cuda")) // MIB)
    critics = [PairwiseCritic(width, width) for width in widths.values()]
    sides = [torch.zeros(2, rows, width).unbind() for width in widths.values()]
    ids = torch.zeros(rows, dtype=torch.int64)
    kinds = [Estimator.nce, Estimator.club, Estimator.nce, Estimator.nce, Estimator.club, Estimator.nce]
    for critic, kind in zip(critics, kinds, strict=True):
        critic.requires_grad_(kind is Estimator.nce)
    terms = [
        CriticTerm(critic, a.requires_grad_(), b.requires_grad_(), kind)
        for critic, (a, b), kind in zip(critics, sides, kinds, strict=True)
    ]
    with Counted() as counted:
        torch.stack(critic_losses(terms, world=ALONE, settings=settings, sample_ids=ids)).sum().backward()
    return counted


@pytest.mark.parametrize(("rows", "launches"), [(1024, 1000), (4096, 10_000)])
def test_launches_and_scratch_of_a_step_on_a_device(rows: int, launches: int) -> None:
    with FakeTensorMode():  # shapes without numbers
        counted = step_of_six(rows)
    assert counted.launches.total() <= launches, counted.launches
    assert counted.most <= 2048 * MIB
    assert not counted.launches["_local_scalar_dense"]  # nobody waits for a number


def sent(widths: list[int]) -> list[int]:
    """How many numbers per sample each gather of this rank's sends."""
    seen: list[int] = []
    gather = collectives.all_gather_rows

    def noted(rows: Tensor, group: Any) -> Tensor:
        seen.append(rows[0].numel())
        return gather(rows, group)

    with mock.patch.object(collectives, "all_gather_rows", noted):
        critics = [PairwiseCritic(width, 3, 8) for width in widths]
        b = torch.randn(2, 3)
        terms = [CriticTerm(critic, torch.randn(2, critic.da), b, Estimator.nce) for critic in critics]
        critic_losses(terms, world=World.current())
    return seen


def test_what_travels_is_the_shorter_form(ranks: Ranks) -> None:
    """Features of 5 instead of 8 columns, and 8 columns instead of features of 8 or 20."""
    assert 5 + 8 + 8 in ranks(2, sent, [5, 8, 20])[0]
