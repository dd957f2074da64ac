"""Contrastive losses of small linear encoders, described so that ranks, one process and the dense formulas agree."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
from torch import Tensor, nn

from mmpretrain.distributed.collectives import average_gradients
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Diagonal, Labels, Mixup, Pair, PairLoss, Soft, contrastive
from mmpretrain.losses.schema import Negatives, ObjectiveConfig
from tests.losses import oracle

MODALITIES = ("image", "text", "audio")
FEATURES, WIDTH = 5, 4
LOCAL_GROUP = 5  # rows that mix among themselves where negatives are local
OWN_TARGET_SCALE = 3.0


class Kind(StrEnum):
    """Targets, and whether the own side's rows are negatives too."""

    diagonal = "diagonal"
    nt_xent = "nt_xent"
    mixup = "mixup"
    soft = "soft"
    soft_detached = "soft_detached"
    soft_own_scale = "soft_own_scale"
    labels = "labels"
    sup_con = "sup_con"


SAME_SIDE = (Kind.nt_xent, Kind.sup_con)
SOFT = (Kind.soft, Kind.soft_detached, Kind.soft_own_scale)


class Scale(StrEnum):
    """number: no gradient. shared: a parameter of shape (1,). column, flat: one per query row, [b, 1] or [b]."""

    number = "number"
    shared = "shared"
    column = "column"
    flat = "flat"


class Missing(StrEnum):
    """Which samples lack modalities: a quarter of each and some all; the first half its images; all their images."""

    none = "none"
    some = "some"
    half = "half"
    all = "all"


@dataclass(frozen=True)
class Term:
    """One pair. reference: the modality that soft targets come from; the key if empty."""

    query: str = "image"
    key: str = "text"
    kind: Kind = Kind.diagonal
    reference: str = ""


PLAIN, PLAIN_LOCAL = ObjectiveConfig(Negatives.gather), ObjectiveConfig(Negatives.local)


@dataclass(frozen=True)
class Case:
    """rows: of the whole batch. one_tower: all modalities share an encoder. frozen: parts without gradients."""

    terms: tuple[Term, ...] = (Term(),)
    settings: ObjectiveConfig = field(default_factory=ObjectiveConfig, hash=False)
    missing: Missing = Missing.none
    duplicates: bool = False
    scale: Scale = Scale.shared
    one_tower: bool = False
    frozen: tuple[str, ...] = ()
    rows: int = 20

    @property
    def local(self) -> bool:
        return self.settings.negatives is Negatives.local


@dataclass(frozen=True)
class Result:
    """values: [3 * terms], loss, accuracy and mean rank of every term. grads: by parameter."""

    values: list[float]
    grads: dict[str, Tensor]


class Toy(nn.Module):
    """A linear encoder per modality, a temperature, and a temperature per query row."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        torch.manual_seed(0)
        first = nn.Linear(FEATURES, WIDTH)
        others = {name: first if case.one_tower else nn.Linear(FEATURES, WIDTH) for name in MODALITIES[1:]}
        self.encoders = nn.ModuleDict({MODALITIES[0]: first} | others)
        self.log_scale = nn.Parameter(torch.tensor([1.7]))
        self.row_scale = nn.Linear(FEATURES, 1)
        self.target_scale = nn.Parameter(torch.tensor([OWN_TARGET_SCALE]))
        self.double()
        for name in case.frozen:
            self.get_submodule(name).requires_grad_(False) if name else self.requires_grad_(False)


@dataclass(frozen=True)
class Data:
    """A part of the batch. partner: as Mixup wants it."""

    inputs: dict[str, Tensor]
    valid: dict[str, Tensor]
    labels: Tensor
    ids: Tensor
    lam: Tensor
    partner: Tensor


def make_data(case: Case, part: int = 0, parts: int = 1) -> Data:
    """Part ``part`` of ``parts`` of the whole batch; copies of a sample are equal and lie on different ranks."""
    count = case.rows
    draw = torch.Generator().manual_seed(1)
    ids = torch.arange(count)
    if case.duplicates:
        ids[count // 2 + 1], ids[count - 1], ids[count // 2 + 2], ids[1] = 0, 0, 2, 0
    inputs = {m: torch.randn(count, FEATURES, generator=draw, dtype=torch.float64)[ids] for m in MODALITIES}
    valid = {m: torch.ones(count, dtype=torch.bool) for m in MODALITIES}
    if case.missing is Missing.some:
        for number, name in enumerate(MODALITIES):
            valid[name][number::4] = False
            valid[name][7 % count] = False
    if case.missing in (Missing.half, Missing.all):
        valid["image"][: count // 2 if case.missing is Missing.half else count] = False
    for name in MODALITIES:
        inputs[name][~valid[name]] *= 1e3
    group = LOCAL_GROUP if case.local else count
    partner = torch.cat([g[torch.randperm(len(g), generator=draw)] for g in torch.arange(count).split(group)])
    lam = torch.rand(count, generator=draw, dtype=torch.float64)
    lam[::3] = 1
    size = count // parts
    own = slice(part * size, (part + 1) * size)
    return Data(
        {m: rows[own] for m, rows in inputs.items()},
        {m: rows[own] for m, rows in valid.items()},
        labels=(ids % 3)[own],
        ids=ids[own],
        lam=lam[own],
        partner=partner[own] - (own.start if case.local else 0),
    )


def scale_of(toy: Toy, case: Case, data: Data) -> Tensor | float:
    if case.scale is Scale.number:
        return 6.0
    if case.scale is Scale.shared:
        return toy.log_scale.exp()
    rows = (1 + toy.row_scale(data.inputs["image"] / 10).tanh() / 2) * 6
    return rows if case.scale is Scale.column else rows.squeeze(1)


def run(case: Case) -> Result:
    """The function under test, on this rank's rows or on the whole batch without a process group."""
    world = World.current()
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
    targets = {
        Kind.mixup: lambda: Mixup(data.lam, 1 - data.lam, data.partner),
        Kind.labels: lambda: Labels(data.labels),
        Kind.sup_con: lambda: Labels(data.labels),
        Kind.soft: lambda: Soft(embeds[term.reference or term.key]),
        Kind.soft_detached: lambda: Soft(embeds[term.reference or term.key], detach=True),
        Kind.soft_own_scale: lambda: Soft(embeds[term.reference or term.key], scale=toy.target_scale),
    }.get(term.kind, Diagonal)()
    masks = (None, None) if case.missing is Missing.none else (data.valid[term.query], data.valid[term.key])
    return Pair(embeds[term.query], embeds[term.key], targets, term.kind in SAME_SIDE, *masks)


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
        )
        outcomes.append(outcome)
    return outcomes


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """By parameter's name."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def difference(ours: Result, reference: Result) -> str:
    """What is further apart than rounding allows: losses 1e-12, gradients 1e-10 of their largest entry; '' if nothing."""
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
    targets: Diagonal | Mixup | Labels | Soft | None = None,
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
