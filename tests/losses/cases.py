"""Contrastive losses of small linear encoders: descriptions, their encoders and their data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor, nn

from mmpretrain.config.objective import Negatives, ObjectiveConfig

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
    """One pair. reference: the modality that soft targets come from; the key if empty. one_way: as in Pair."""

    query: str = "image"
    key: str = "text"
    kind: Kind = Kind.diagonal
    reference: str = ""
    one_way: bool = False


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
        """Whether every rank compares its own rows only."""
        return self.settings.negatives is Negatives.local


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
    """The factor of the similarities: a number, or a tensor that learns."""
    if case.scale is Scale.number:
        return 6.0
    if case.scale is Scale.shared:
        return toy.log_scale.exp()
    rows = (1 + toy.row_scale(data.inputs["image"] / 10).tanh() / 2) * 6
    return rows if case.scale is Scale.column else rows.squeeze(1)
