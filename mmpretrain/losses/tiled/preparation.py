"""From pairs to what the sweeps work on: unit-length sides that carry the scale, rules, masks and ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmpretrain.config.objective import LARGEST_SCALE, Negatives, ObjectiveConfig
from mmpretrain.distributed.world import World
from mmpretrain.losses.similarity import negatives_from, own_rows, resolve_negatives, unit_rows
from mmpretrain.losses.targets import Diagonal, Labels, Mixup, Pair, Soft
from mmpretrain.losses.tiled.sweep import Bound, FurtherKey, Reference, Setup, Term
from mmpretrain.losses.tiled.target_rules import LabelRule, MixupRule, Rule, SoftRule

NO_SAMPLE = torch.iinfo(torch.int64).min
Scale = Tensor | float


class Preparation:
    """sides: [b, d] each. counted: [pairs], samples per rank, on average, whose both sides are valid."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        scale: Scale,
        world: World,
        settings: ObjectiveConfig,
        sample_ids: Tensor | None,
    ) -> None:
        self.settings = settings
        self.pairs = pairs
        self.world = negatives_from(world, settings.negatives)
        self.rows = len(pairs[0].query)
        tensors = [side for pair in pairs for side in (pair.query, pair.key)]
        self.device = tensors[0].device
        self.type = torch.float64 if any(t.dtype is torch.float64 for t in tensors) else torch.float32
        self.sides: list[Tensor] = []
        self._numbers: dict[tuple[int, ...], int] = {}
        self._bounds: dict[int, Bound] = {}
        self._named: list[object] = []  # keeps what has a name alive: names are ids
        self.everyones_ids = self._duplicated(sample_ids)
        self.sample_ids = sample_ids
        self.paired = [_paired(pair, self.type, self.device) for pair in pairs]
        if isinstance(scale, Tensor) and per_row(scale):
            if scale.numel() != self.rows:
                raise ValueError(f"a scale per query row has {self.rows} entries here, and this one {scale.numel()}")
            scale = scale.reshape(-1, 1)
        self.terms = [self._term(pair, paired, scale) for pair, paired in zip(pairs, self.paired, strict=True)]
        self.counted = self._count()

    def setup(self, metrics: bool) -> Setup:
        """All of it, with the mode decided."""
        labels = [pair.targets.ids if isinstance(pair.targets, Labels) else None for pair in self.pairs]
        blank = torch.zeros(self.rows, dtype=torch.int64, device=self.device)
        setup = Setup(
            terms=self.terms,
            world=self.world,
            ring=False,
            settings=self.settings,
            metrics=metrics,
            # Inside an autograd function this can no longer be seen.
            backward=torch.is_grad_enabled(),
            ids=self.sample_ids if any(term.contents for term in self.terms) else None,
            labels=None,
        )
        if any(ids is not None for ids in labels):
            setup.labels = torch.stack([blank if ids is None else ids for ids in labels], dim=1)
        width = sum(self.sides[number].shape[1] for number in setup.traveling())
        setup.ring = resolve_negatives(self.settings, self.rows, width, self.world) is Negatives.ring
        return setup

    def _term(self, pair: Pair, paired: Tensor, scale: Scale) -> Term:
        valid = None
        if pair.query_valid is not None or pair.key_valid is not None:
            every = torch.ones(self.rows, dtype=torch.bool, device=self.device)
            masks = [every if mask is None else mask for mask in (pair.query_valid, pair.key_valid)]
            valid = torch.stack(masks, dim=1)
        rows_apart = isinstance(scale, Tensor) and per_row(scale)
        if rows_apart and (pair.same_side or (isinstance(pair.targets, Soft) and pair.targets.scale is None)):
            raise ValueError("a scale per query row cannot serve one side against itself: use one scale")
        query = self._side(pair.query, pair.query_valid, scale)
        key = self._side(pair.key, pair.key_valid, 1.0 if rows_apart else scale)
        rule = self._rule(pair, paired)
        reference = self._reference(pair.targets, scale, valid) if isinstance(pair.targets, Soft) else None
        contents = self._contents(pair, rule)
        return Term(
            query,
            key,
            self._bound(scale),
            rule,
            pair.same_side,
            pair.one_way,
            contents,
            valid,
            reference,
            negatives=self._negatives(pair, scale, rows_apart),
            margin=self._margin(pair, scale, rows_apart),
        )

    def _negatives(self, pair: Pair, scale: Scale, rows_apart: bool) -> tuple[FurtherKey, ...]:
        if rows_apart and pair.query_negatives is not None:
            raise ValueError("a scale per query row says nothing of query_negatives: use one scale")
        found = []
        given = (pair.key_negatives, pair.key_negatives_valid), (pair.query_negatives, pair.query_negatives_valid)
        for of_query, (rows, valid) in enumerate(given):
            for place in range(0 if rows is None else rows.shape[1]):
                assert rows is not None
                side = self._side(rows, valid, 1.0 if rows_apart else scale, place)
                found.append(FurtherKey(side, bool(of_query), None if valid is None else valid[:, place]))
        return tuple(found)

    def _margin(self, pair: Pair, scale: Scale, rows_apart: bool) -> Bound | None:
        """The margin in units of similarity."""
        margin = self.settings.false_negative_margin
        if margin is None:
            return None
        if not isinstance(pair.targets, Diagonal):
            raise ValueError(
                f"objective.false_negative_margin compares with the own pair: it goes with Diagonal targets, not"
                f" {type(pair.targets).__name__}"
            )
        if rows_apart:
            raise ValueError("objective.false_negative_margin needs one scale, not one per query row")
        return margin * self._bound(scale)

    def _reference(self, targets: Soft, scale: Scale, valid: Tensor | None) -> Reference:
        own = scale if targets.scale is None else targets.scale
        if isinstance(own, Tensor) and per_row(own):
            raise ValueError("soft targets compare the reference with itself: they need one scale, not one per row")
        side = self._side(targets.reference, None if valid is None else valid.all(dim=1), own)
        return Reference(side, self._bound(own), targets.detach)

    def _side(self, rows: Tensor, valid: Tensor | None, scale: Scale, place: int | None = None) -> int:
        """Number of a side: unit rows times the root of a shared scale, or times a scale per row.

        place: of hard negatives [b, k, d], which of each sample's.
        """
        name = (id(rows), id(valid), id(scale), -1 if place is None else place)
        if name not in self._numbers:
            factor = self._factor(scale)
            self._numbers[name] = len(self.sides)
            self._named += [rows, valid, scale]
            if place is not None:
                rows, valid = rows[:, place], None if valid is None else valid[:, place]
            length = factor if factor.dim() == 2 else factor.sqrt()
            self.sides.append(unit_rows(rows.to(self.type), valid, length))
        return self._numbers[name]

    def _factor(self, scale: Scale) -> Tensor:
        if isinstance(scale, Tensor):
            return scale.to(self.device, self.type)
        return torch.full((), scale, dtype=self.type, device=self.device)

    def _bound(self, scale: Scale) -> Bound:
        """The largest possible similarity, the same on all ranks."""
        if id(scale) not in self._bounds and self.world.ahead and isinstance(scale, Tensor):
            ends = scale.detach().to(self.device, self.type)
            low, most = ends.aminmax() if per_row(scale) else (ends.reshape(()),) * 2
            # What would be refused becomes a loss that is not finite, which is looked at.
            most = torch.where((low > 0) & (most <= 1.001 * LARGEST_SCALE), most, torch.inf)
            # One for all rows is a parameter that all ranks hold alike.
            self._bounds[id(scale)] = self.world.all_reduce_max(most) if per_row(scale) else most
            self._named.append(scale)
        if id(scale) not in self._bounds:
            least, largest = self._range(scale)
            # A learned scale that is held at the limit may exceed it by rounding.
            if not (least > 0 and largest <= 1.001 * LARGEST_SCALE):
                wrong = largest if least > 0 else least
                raise ValueError(f"the scale (1 / temperature) is {wrong:g}: it must lie in (0, {LARGEST_SCALE:g}]")
            self._bounds[id(scale)] = largest
            self._named.append(scale)
        return self._bounds[id(scale)]

    def _range(self, scale: Scale) -> tuple[float, float]:
        """Smallest and largest value on all ranks."""
        if not isinstance(scale, Tensor):
            return float(scale), float(scale)
        ends = torch.stack(scale.detach().aminmax()).reshape(1, 2)
        if per_row(scale):
            ends = self.world.all_gather_rows(ends)
        return ends[:, 0].amin().item(), ends[:, 1].amax().item()

    def _rule(self, pair: Pair, paired: Tensor) -> Rule:
        targets = pair.targets
        if isinstance(targets, Labels):
            return LabelRule(paired, targets.ids)
        if isinstance(targets, Soft):
            return SoftRule(paired)
        if not isinstance(targets, Mixup):
            return Rule(paired)
        own, other = (weight.to(paired) for weight in (targets.own, targets.other))
        partner = targets.partner.to(self.device)
        # A sample that was mixed with itself has its own counterpart twice.
        if not self.world.ahead and bool(((partner < 0) | (partner >= self.world.size * self.rows)).any()):
            raise ValueError(f"Mixup.partner must lie in 0..{self.world.size * self.rows - 1}, rows of the whole batch")
        itself = partner == own_rows(self.rows, self.world, self.device)
        return MixupRule(paired, own + other * itself, other * ~itself, partner)

    def _contents(self, pair: Pair, rule: Rule) -> tuple[Tensor, ...] | None:
        if self.everyones_ids is None or self.sample_ids is None or isinstance(pair.targets, Labels):
            return None
        if not isinstance(rule, MixupRule):
            return (self.sample_ids,)
        first = torch.where(rule.own > 0, self.sample_ids, NO_SAMPLE)
        return first, torch.where(rule.other > 0, self.everyones_ids[rule.partner], NO_SAMPLE)

    def _duplicated(self, sample_ids: Tensor | None) -> Tensor | None:
        """The ids of the whole batch, [N], if some sample is there more than once, or may be as far as is known."""
        if sample_ids is None:
            return None
        if sample_ids.shape != (self.rows,):
            raise ValueError(f"sample_ids of shape {list(sample_ids.shape)} for {self.rows} samples")
        everyone = self.world.all_gather_rows(sample_ids)
        return everyone if self.world.ahead or len(everyone.unique()) < len(everyone) else None

    def _count(self) -> Tensor:
        if all(pair.query_valid is None and pair.key_valid is None for pair in self.pairs):
            return torch.full((len(self.pairs),), float(self.rows), dtype=self.type, device=self.device)
        return self.world.all_reduce_sum(torch.stack([paired.sum() for paired in self.paired])) / self.world.size


def per_row(scale: Tensor | float) -> bool:
    """Whether this is a scale per query row: [b, 1], or [b] with b > 1."""
    return isinstance(scale, Tensor) and (scale.dim() == 2 or scale.numel() > 1)


def _paired(pair: Pair, dtype: torch.dtype, device: torch.device) -> Tensor:
    paired = torch.ones(len(pair.query), dtype=dtype, device=device)
    for mask in (pair.query_valid, pair.key_valid):
        if mask is not None:
            paired = paired * mask
    return paired
