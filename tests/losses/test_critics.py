"""Learned critics: the concatenated form with all gradients on 1, 2 and 4 ranks, known values, work and memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mmpretrain.config.objective import Negatives, ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses import critic_strips
from mmpretrain.losses.critic_networks import Critic, PairwiseCritic, SeparableCritic
from mmpretrain.losses.critics import CriticTerm, Estimator, club, critic_losses, nce
from tests.rank_pool import Ranks
from tests.submodules import linear_layers, submodule

ALONE = World.single()
DA, DB, BATCH, TEMPERATURE = 3, 2, 8, 0.8
WEIGHTS = (1.0, -0.7, 0.4)
ESTIMATORS = (Estimator.nce, Estimator.club, Estimator.nce)


class Case:
    """A whole batch, three critics of their own, and what they are asked."""

    def __init__(self, seed: int, masks: bool, copies: bool, size: int = BATCH) -> None:
        torch.manual_seed(seed)
        self.three = [PairwiseCritic(DA, DB, 6), PairwiseCritic(DA, DB, 4, layers=2), SeparableCritic(DA, DB, 4, 3)]
        self.critics = nn.ModuleList(self.three).double()
        self.a, self.b = (torch.randn(size, width, dtype=torch.float64) for width in (DA, DB))
        self.valid = list(torch.rand(2, size) < 0.7) if masks else None
        self.ids = torch.randint(0, 5, (size,)) if copies else None

    def losses(self, world: World, settings: ObjectiveConfig) -> tuple[list[Tensor], list[Tensor]]:
        """Of the rows of one rank: its losses, and the gradients of a, b and all parameters by their weighted sum."""
        rows = slice(world.rank * len(self.a) // world.size, (world.rank + 1) * len(self.a) // world.size)
        a, b = (side[rows].clone().requires_grad_() for side in (self.a, self.b))
        masks = [mask[rows] for mask in self.valid] if self.valid else [None, None]
        terms = [CriticTerm(critic, a, b, kind, *masks) for critic, kind in zip(self.three, ESTIMATORS, strict=True)]
        ids = None if self.ids is None else self.ids[rows]
        found = critic_losses(terms, world=world, settings=settings, temperature=TEMPERATURE, sample_ids=ids)
        return found, self.gradients(found, a, b)

    def gradients(self, losses: list[Tensor], a: Tensor, b: Tensor) -> list[Tensor]:
        """Of a, b and all parameters by the weighted sum of ``losses``."""
        total = torch.stack([weight * loss for weight, loss in zip(WEIGHTS, losses, strict=True)]).sum()
        return list(torch.autograd.grad(total, [a, b, *self.critics.parameters()], materialize_grads=True))

    def expected(self, rows: slice = slice(None)) -> tuple[list[Tensor], list[Tensor]]:
        """The same from every pair's concatenation [N, N, da + db], on one process."""
        a, b = (side[rows].clone().requires_grad_() for side in (self.a, self.b))
        size = len(a)
        seen, candidates = [torch.ones(size, dtype=torch.bool)] * 2
        if self.valid is not None:
            candidates = self.valid[0][rows]
            seen = candidates & self.valid[1][rows]
        visible = candidates.expand(size, size).clone()
        if self.ids is not None:
            ids = self.ids[rows]
            visible &= (ids[:, None] != ids) | torch.eye(size, dtype=torch.bool)
        losses = []
        for critic, kind in zip(self.three, ESTIMATORS, strict=True):
            scores = every_pair(critic, a, b) / TEMPERATURE
            losses.append(estimate(scores, seen, visible, kind))
        return losses, self.gradients(losses, a, b)


def every_pair(critic: Critic, a: Tensor, b: Tensor) -> Tensor:
    """F[i, j] = f(a_j, b_i), naively."""
    if isinstance(critic, SeparableCritic):
        return torch.stack([torch.stack([critic.g(x) @ critic.h(y) for x in a]) for y in b])
    size = len(a)
    pairs = torch.cat([a.expand(size, size, -1), b[:, None].expand(size, size, -1)], dim=2)
    return submodule(critic, "network", nn.Sequential)(pairs)[..., 0]


def estimate(scores: Tensor, seen: Tensor, visible: Tensor, kind: Estimator) -> Tensor:
    """Section 1.2's definitions, anchor by anchor."""
    total = scores.sum() * 0
    for i in range(len(scores)):
        if seen[i]:
            others = scores[i][visible[i]]
            if kind is Estimator.nce:
                total = total - (scores[i, i] - others.exp().sum().log() + math.log(len(others)))
            else:
                total = total + scores[i, i] - others.mean()
    return total / max(1, int(seen.sum()))


def one_rank(case: Case, settings: ObjectiveConfig) -> tuple[list[float], list[Tensor]]:
    """What the case gives on this rank's rows."""
    losses, gradients = case.losses(World.current(), settings)
    return [loss.item() for loss in losses], gradients


def compare(found: list[tuple[list[float], list[Tensor]]], expected: tuple[list[Tensor], list[Tensor]]) -> None:
    """The ranks' results against the dense form; gradients of parameters are averaged over the ranks."""
    size = len(found)
    for number, loss in enumerate(expected[0]):
        assert sum(rank[0][number] for rank in found) / size == pytest.approx(loss.item(), rel=1e-11, abs=1e-13)
    for number, gradient in enumerate(expected[1]):
        parts = [rank[1][number] for rank in found]
        result = torch.cat(parts) / size if number < 2 else torch.stack(parts).mean(0)
        torch.testing.assert_close(result, gradient, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_agree_with_concatenated_pairs(ranks: Ranks, size: int) -> None:
    for seed, (masks, copies) in enumerate([(False, False), (True, False), (False, True), (True, True)]):
        case = Case(seed, masks, copies)
        compare(ranks(size, one_rank, case, ObjectiveConfig(tile=3)), case.expected())


def test_local_negatives_are_those_of_one_process(ranks: Ranks) -> None:
    case = Case(7, masks=True, copies=False)
    found = ranks(2, one_rank, case, ObjectiveConfig(negatives=Negatives.local))
    for rank, result in enumerate(found):
        compare([result], case.expected(slice(4 * rank, 4 * rank + 4)))


@limits(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 8))
def test_any_batch_any_strip_any_order(seed: int, size: int, tile: int) -> None:
    case = Case(seed, masks=bool(seed % 2), copies=bool(seed % 3), size=size)
    losses, gradients = case.losses(ALONE, ObjectiveConfig(tile=tile))
    compare([([loss.item() for loss in losses], gradients)], case.expected())
    order = torch.randperm(size)
    case.a, case.b = case.a[order], case.b[order]
    case.valid = case.valid and [mask[order] for mask in case.valid]
    case.ids = None if case.ids is None else case.ids[order]
    shuffled, _ = case.losses(ALONE, ObjectiveConfig())
    for before, after in zip(losses, shuffled, strict=True):
        assert after.item() == pytest.approx(before.item(), rel=1e-11, abs=1e-13)


@limits(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0.01, 100))
def test_bounds_of_the_estimates(seed: int, size: int, temperature: float) -> None:
    torch.manual_seed(seed)
    critic = PairwiseCritic(4, 4, 8)
    a, b = 5 * torch.randn(2, size, 4)
    bound = -nce(critic, a, b, world=ALONE, temperature=temperature).item()
    above = club(critic, a, b, world=ALONE, temperature=temperature).item()
    assert bound <= math.log(size) + 1e-5
    assert bound <= above + 1e-5 * max(1, abs(above))


def test_strips_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(3, masks=True, copies=True)
    results = []
    for size in (1, 1000, 2**24):
        monkeypatch.setattr(critic_strips, "strip_bytes", lambda settings, device, size=size: size)
        losses, gradients = case.losses(ALONE, ObjectiveConfig())
        results.append([*losses, *gradients])
    for other in results[1:]:
        for value, reference in zip(other, results[0], strict=True):
            torch.testing.assert_close(value, reference, rtol=1e-12, atol=1e-14)


def constant() -> tuple[Critic, Tensor, Tensor]:
    """A critic that gives every pair the same score, and five random pairs."""
    critic = PairwiseCritic(3, 3, 8)
    nn.init.zeros_(linear_layers(critic)[-1].weight)
    return critic, *torch.randn(2, 5, 3)


def identity(score: float) -> tuple[Critic, Tensor, Tensor]:
    """A critic that gives ``score`` to what belongs together and 0 to the rest, and four such pairs."""
    critic = SeparableCritic(4, 4)
    critic.g, critic.h = nn.Sequential(), nn.Sequential()  # empty: what goes in comes out
    return critic, score * torch.eye(4), torch.eye(4)


def test_known_values() -> None:
    for estimator in (nce, club):
        assert estimator(*constant(), world=ALONE).item() == pytest.approx(0, abs=1e-6)
    for score, temperature in ((5.0, 1.0), (10.0, 2.0)):
        bound = nce(*identity(score), world=ALONE, temperature=temperature)
        assert -bound.item() == pytest.approx(5 - math.log((math.exp(5) + 3) / 4), rel=1e-5)
        assert club(*identity(score), world=ALONE, temperature=temperature).item() == pytest.approx(3.75)
    assert -nce(*identity(200.0), world=ALONE).item() == pytest.approx(math.log(4))


def estimates(scores: Tensor) -> tuple[float, float]:
    """I_NCE and I_CLUB of any scores F."""
    size = len(scores)
    critic = SeparableCritic(size, size)
    critic.g, critic.h = nn.Sequential(), nn.Sequential()
    bound, above = (estimator(critic, torch.eye(size).to(scores), scores, world=ALONE) for estimator in (nce, club))
    return -bound.item(), above.item()


def test_what_shifts_of_scores_change() -> None:
    """What depends on the anchor alone changes nothing, what depends on the candidate alone only I_NCE."""
    torch.manual_seed(0)
    scores, shifts = torch.randn(6, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    bound, above = estimates(scores)
    assert estimates(scores + shifts[:, None]) == pytest.approx((bound, above), rel=1e-12)
    other, same = estimates(scores + shifts)
    assert same == pytest.approx(above, rel=1e-12) and abs(other - bound) > 0.1
    assert estimates(shifts[:, None].expand(6, 6)) == pytest.approx((0, 0), abs=1e-12)  # where the bounds meet


def pairs(frozen: bool = False, detached: bool = False, size: int = 64) -> tuple[Critic, Tensor, Tensor]:
    """A critic and random sides, each of which may ask for no gradients."""
    torch.manual_seed(0)
    critic = PairwiseCritic(4, 4, 32).requires_grad_(not frozen)
    a, b = torch.randn(2, size, 4)
    return critic, a.requires_grad_(not detached), b.requires_grad_(not detached)


def test_what_needs_no_gradient_costs_nothing() -> None:
    """Passes through the inner layers, by counted products of matrices: 1 without gradients, 2 or 3 with."""

    def passes(call: Callable[[], Any]) -> float:
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops() / (64 * 64 * 2 * 32 * 32)

    def both(*arguments: Any) -> None:
        loss = nce(*arguments, world=ALONE)
        if loss.requires_grad:
            loss.backward()

    with torch.no_grad():
        assert passes(lambda: both(*pairs())) == pytest.approx(1, abs=0.05)
    assert passes(lambda: both(*pairs(frozen=True, detached=True))) == pytest.approx(1, abs=0.05)
    assert passes(lambda: both(*pairs(frozen=True))) == pytest.approx(2, abs=0.05)
    assert passes(lambda: both(*pairs())) == pytest.approx(3, abs=0.05)
    together = [CriticTerm(*pairs(free, free), Estimator.nce) for free in (True, False)]
    assert passes(lambda: critic_losses(together, world=ALONE)[1].backward()) == pytest.approx(1 + 3, abs=0.05)


def test_frozen_critics_and_detached_features_leave_the_other_gradients_alone() -> None:
    critic, a, b = pairs()
    nce(critic, a, b, world=ALONE).backward()
    frozen, frozen_a, frozen_b = pairs(frozen=True)
    nce(frozen, frozen_a, frozen_b, world=ALONE).backward()
    assert all(parameter.grad is None for parameter in frozen.parameters())
    torch.testing.assert_close((frozen_a.grad, frozen_b.grad), (a.grad, b.grad))
    stepped, *sides = pairs(detached=True)
    nce(stepped, *sides, world=ALONE).backward()
    torch.testing.assert_close([p.grad for p in stepped.parameters()], [p.grad for p in critic.parameters()])


def kept_bytes(size: int) -> int:
    """Of what the estimate keeps for its backward pass."""
    loss = nce(*pairs(size=size), world=ALONE)
    node: Any = loss.grad_fn  # torch's Node does not name the tensors that a function of its own keeps
    return sum(tensor.untyped_storage().nbytes() for tensor in node.saved_tensors)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


def test_memory_is_that_of_a_strip() -> None:
    """All pairs of 512 samples have 32 MiB of hidden units in a layer; a strip of 1 MiB has half of that for each."""
    assert kept_bytes(256) < 2 * kept_bytes(128)
    with Largest() as largest:
        nce(*pairs(size=512), world=ALONE, settings=ObjectiveConfig(critic_mb=1)).backward()
    assert 2**18 < largest.bytes <= 2**19


@pytest.mark.parametrize("estimator", list(Estimator))
def test_missing_rows_are_ignored_whatever_they_hold(estimator: Estimator) -> None:
    critic, a, b = pairs(size=4)
    there = torch.tensor([True, False, True, True])
    bad_a, bad_b = (torch.where(there[:, None], side, torch.nan) for side in (a, b))
    parameters = list(critic.parameters())
    loss = critic_losses([CriticTerm(critic, bad_a, bad_b, estimator, there, there)], world=ALONE)[0]
    reference = critic_losses([CriticTerm(critic, a[there], b[there], estimator)], world=ALONE)[0]
    assert loss.item() == pytest.approx(reference.item(), rel=1e-5)
    for found, wanted in zip(*(torch.autograd.grad(x, [a, b, *parameters]) for x in (loss, reference)), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("estimator", list(Estimator))
def test_a_modality_that_nobody_has(estimator: Estimator) -> None:
    critic, a, b = pairs(size=4)
    term = CriticTerm(critic, a, b, estimator, a_valid=torch.zeros(4, dtype=torch.bool))
    loss = critic_losses([term], world=ALONE)[0]
    loss.backward()
    assert loss == 0
    gradients = [x.grad for x in (a, b, *critic.parameters())]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_autocast_stays_out_and_half_precision_is_widened() -> None:
    critic, a, b = pairs(detached=True)
    reference = nce(critic, a.bfloat16().float(), b, world=ALONE)
    with torch.autocast("cpu", torch.bfloat16):
        loss = nce(critic, a.bfloat16(), b, world=ALONE)
    assert loss.dtype is torch.float32
    assert loss.item() == reference.item()


def test_rounded_products_are_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critic_strips, "_has_units", lambda device: True)
    gradients, losses = [], []
    for products in Products:
        critic, a, b = pairs()
        loss = club(critic, a, b, world=ALONE, settings=ObjectiveConfig(products=products), temperature=0.1)
        loss.backward()
        losses.append(loss)
        gradients.append([parameter.grad for parameter in critic.parameters()])
    assert losses[1].dtype is torch.float32
    assert losses[0] != losses[1]
    torch.testing.assert_close(losses[1], losses[0], rtol=0.05, atol=0.01)
    for near, exact in zip(*reversed(gradients), strict=True):
        assert (near - exact).norm() <= 0.1 * exact.norm() + 1e-6


def test_errors_name_the_problem() -> None:
    critic, a, b = pairs()
    with pytest.raises(ValueError, match="above 0"):
        nce(critic, a, b, world=ALONE, temperature=0)
    with pytest.raises(ValueError, match=r"\[63, 64\]"):
        nce(critic, a, b[:63], world=ALONE)
