"""Contrastive cases, run by the function under test on any number of ranks, and by the dense formulas."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mmpretrain.config.objective import Negatives, ObjectiveConfig
from mmpretrain.distributed.replicas import average_gradients
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Diagonal, Labels, Mixup, Pair, PairLoss, Soft, contrastive
from mmpretrain.losses.targets import Targets
from tests.losses import oracle
from tests.losses.cases import SAME_SIDE, SOFT, Case, Data, Kind, Missing, Term, Toy, make_data, scale_of

PLAIN, PLAIN_LOCAL = ObjectiveConfig(Negatives.gather), ObjectiveConfig(Negatives.local)


@dataclass(frozen=True)
class Result:
    """values: [3 * terms], loss, accuracy and mean rank of every term. grads: by parameter."""

    values: list[float]
    grads: dict[str, Tensor]


def run(case: Case, world: World | None = None) -> Result:
    """The function under test, on this rank's rows or on the whole batch without a process group.

    world: the ranks that share the batch, all of them by default.
    """
    world = world or World.current()
    toy, data = Toy(case), make_data(case, world.rank, world.size)
    embeds = {m: toy.encoders[m](rows) for m, rows in data.inputs.items()}
    pairs = [_pair(term, case, toy, data, embeds) for term in case.terms]
    ids = data.ids if case.duplicates else None
    scale = scale_of(toy, case, data)
    losses = contrastive(pairs, scale=scale, world=world, settings=case.settings, sample_ids=ids)
    sum((loss.loss / (1 + number) for number, loss in enumerate(losses)), torch.zeros(())).backward()
    average_gradients(toy.parameters(), world)
    values = [value.item() for loss in losses for value in (loss.loss, loss.accuracy, loss.mean_rank)]
    return Result(values, gradients(toy))


def run_all(cases: list[Case]) -> list[Result]:
    """One call of the ranks for many cases."""
    return [run(case) for case in cases]


def _pair(term: Term, case: Case, toy: Toy, data: Data, embeds: dict[str, Tensor]) -> Pair:
    targets: dict[Kind, Callable[[], Targets]] = {
        Kind.mixup: lambda: Mixup(data.lam, 1 - data.lam, data.partner),
        Kind.labels: lambda: Labels(data.labels),
        Kind.sup_con: lambda: Labels(data.labels),
        Kind.soft: lambda: Soft(embeds[term.reference or term.key]),
        Kind.soft_detached: lambda: Soft(embeds[term.reference or term.key], detach=True),
        Kind.soft_own_scale: lambda: Soft(embeds[term.reference or term.key], scale=toy.target_scale),
    }
    masked = case.missing is not Missing.none
    return Pair(
        embeds[term.query],
        embeds[term.key],
        targets.get(term.kind, Diagonal)(),
        term.kind in SAME_SIDE,
        data.valid[term.query] if masked else None,
        data.valid[term.key] if masked else None,
        term.one_way,
    )


def dense(case: Case, parts: int = 1) -> Result:
    """The same by the dense formulas; parts: separate batches whose mean is taken (local negatives)."""
    # Tiles and journeys do not enter the formulas: one result serves many cases.
    return _dense(replace(case, settings=PLAIN_LOCAL if case.local else PLAIN), parts)


@functools.cache
def _dense(case: Case, parts: int) -> Result:
    toy = Toy(case)
    outcomes = [_dense_part(case, toy, make_data(case, part, parts)) for part in range(parts)]
    total = torch.zeros((), dtype=torch.float64)
    values: list[float] = []
    for number in range(len(case.terms)):
        own = [outcome[number] for outcome in outcomes]
        loss = torch.stack([part.loss for part in own]).mean()
        total = total + loss / (1 + number)
        values += [loss.item(), sum(p.accuracy for p in own) / parts, sum(p.mean_rank for p in own) / parts]
    total.backward()
    return Result(values, gradients(toy))


def _dense_part(case: Case, toy: Toy, data: Data) -> list[oracle.Outcome]:
    embeds = {m: toy.encoders[m](rows) for m, rows in data.inputs.items()}
    scale = scale_of(toy, case, data)
    outcomes = []
    for term in case.terms:
        belonging: oracle.Belonging = None
        if term.kind is Kind.mixup:
            belonging = oracle.Partners(data.lam, 1 - data.lam, data.partner)
        elif term.kind in (Kind.labels, Kind.sup_con):
            belonging = oracle.Classes(data.labels)
        elif term.kind in SOFT:
            own = toy.target_scale if term.kind is Kind.soft_own_scale else scale
            reference = embeds[term.reference or term.key]
            belonging = oracle.Likeness(reference, own, detach=term.kind is Kind.soft_detached)
        outcome = oracle.contrast(
            embeds[term.query],
            embeds[term.key],
            scale,
            belonging,
            ids=data.ids if case.duplicates else None,
            query_valid=data.valid[term.query],
            key_valid=data.valid[term.key],
            same_side=term.kind in SAME_SIDE,
            one_way=term.one_way,
        )
        outcomes.append(outcome)
    return outcomes


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """By parameter's name."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def difference(ours: Result, reference: Result) -> str:
    """What is further apart than 1e-12 for losses, 1e-10 of the largest entry for gradients; '' if nothing is."""
    found = [
        f"value {number}: {a} for {b}"
        for number, (a, b) in enumerate(zip(ours.values, reference.values, strict=True))
        if not abs(a - b) <= 1e-12 * abs(b) + 1e-13
    ]
    for name, grad in reference.grads.items():
        largest = grad.abs().max()
        own = ours.grads.get(name, torch.zeros_like(grad))
        if not (own - grad).abs().max() <= 1e-10 * largest + 1e-14:
            found.append(f"gradient of {name}: {own.flatten()[:3].tolist()} for {grad.flatten()[:3].tolist()}")
    extra = ours.grads.keys() - reference.grads.keys()
    return "; ".join(found + [f"gradient of {name}, which takes no part" for name in extra])


def mean_over_ranks(results: list[Result]) -> Result:
    """The ranks' mean values, with the first one's gradients: these are averaged already."""
    values = [sum(column) / len(results) for column in zip(*(r.values for r in results), strict=True)]
    return Result(values, results[0].grads)


def one(
    query: Tensor,
    key: Tensor,
    targets: Targets | None = None,
    *,
    scale: Tensor | float = 10.0,
    ids: Tensor | None = None,
    settings: ObjectiveConfig = PLAIN,
    same_side: bool = False,
    valid: tuple[Tensor | None, Tensor | None] = (None, None),
) -> PairLoss:
    """One pair on one process."""
    pair = Pair(query, key, targets or Diagonal(), same_side, *valid)
    return contrastive([pair], scale=scale, world=World.single(), settings=settings, sample_ids=ids)[0]
