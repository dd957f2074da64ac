"""One sweep over the tiles of all pairs' similarity matrices: this rank's rows against the keys of all ranks.

What the forward and the backward sweep share lives here: which side is where, which entries are hidden, and a
tile's exponentials ``exp(S - shift)``, with 0 for hidden entries and for own counterparts: these are known without a
tile, and small losses keep their digits only if the counterpart's term is added apart from all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

from mmpretrain.config.objective import HardNegatives, ObjectiveConfig
from mmpretrain.distributed.exchange import RowBlock
from mmpretrain.distributed.world import World
from mmpretrain.losses.fused.choice import fuses
from mmpretrain.losses.tiled.pointwise import Pointwise
from mmpretrain.losses.tiled.target_rules import Columns, LabelRule, Rule
from mmpretrain.losses.tiled.tile import HEADROOM, Arithmetic, Scratch, Tile, tile_shape, tiles

Bound = float | Tensor  # a number, or a scalar of the device that the host does not wait for


class PairPart(IntEnum):
    """Which matrix of a pair: query against key, or one side against itself."""

    cross = 0
    query_side = 1
    key_side = 2


FURTHER = len(PairPart)  # as parts, a term's hard negatives are numbered from here on


@dataclass
class Reference:
    """Of soft targets. side: its number. bound: largest possible entry of its similarities with itself."""

    side: int
    bound: Bound
    detach: bool


@dataclass
class FurtherKey:
    """One further key of every sample, which only rows of the other side see.

    side: its number. of_query: whether it is of the query's side, so that key rows see it. valid: bool [b], which
    samples have it; None: all.
    """

    side: int
    of_query: bool
    valid: Tensor | None = None


@dataclass
class Term:
    """A pair, prepared. query, key: numbers of its sides, which carry the scale. bound: its largest similarity.

    contents: int64 [b] each, ids of the samples that a query row contains (None: no id comes twice). valid: bool
    [b, 2] of query and key, or None. margin: by how much, in similarity, an entry may lie above the own pair before it
    is left out as a likely false negative; None: however much.
    """

    query: int
    key: int
    bound: Bound
    rule: Rule
    same_side: bool = False
    one_way: bool = False
    contents: tuple[Tensor, ...] | None = None
    valid: Tensor | None = None
    reference: Reference | None = None
    negatives: tuple[FurtherKey, ...] = ()
    margin: Bound | None = None

    @property
    def bounds(self) -> list[Bound]:
        """The largest entries that its matrices can have."""
        return [self.bound] if self.reference is None else [self.bound, self.reference.bound]

    @property
    def parts(self) -> list[PairPart]:
        """Its matrices."""
        own = [PairPart.query_side] if self.one_way else [PairPart.query_side, PairPart.key_side]
        return [PairPart.cross, *own] if self.same_side else [PairPart.cross]

    @property
    def shares_own_sides(self) -> bool:
        """Whether its matrices of one side against itself are those of any other pair with this side: what is in their
        sums depends on the side alone."""
        return self.margin is None and not isinstance(self.rule, LabelRule)

    def rows_of(self, negatives: FurtherKey) -> int:
        """The side whose rows see these negatives."""
        return self.key if negatives.of_query else self.query

    def traveling(self) -> list[int]:
        """Numbers of the sides whose rows other ranks need, but for hard negatives."""
        sides = [self.key]
        if self.same_side:
            sides.append(self.query)
        if self.reference is not None:
            sides += [self.reference.side] + ([] if self.reference.detach else [self.query])
        return sides


@dataclass
class Setup:
    """All of one call. ids: int64 [b] or None. labels: int64 [b, terms] or None. backward: whether one may follow."""

    terms: list[Term]
    world: World
    ring: bool
    settings: ObjectiveConfig
    metrics: bool
    backward: bool
    ids: Tensor | None
    labels: Tensor | None

    @property
    def everyones(self) -> bool:
        """Whether rows see the hard negatives of all samples, and not those of their own alone."""
        return self.settings.hard_negatives is HardNegatives.all

    @property
    def margins(self) -> bool:
        """Whether likely false negatives are left out."""
        return any(term.margin is not None for term in self.terms)

    def own_sides(self) -> list[list[tuple[int, PairPart]]]:
        """The matrices of one side against itself, each as the (term, part) that it serves: several pairs may have a
        side in common, whose matrix is then computed once."""
        found: dict[tuple[int, ...], list[tuple[int, PairPart]]] = {}
        for number, term in enumerate(self.terms):
            for part in term.parts[1:]:
                side = term.query if part is PairPart.query_side else term.key
                name = (side,) if term.shares_own_sides else (side, number, part)
                found.setdefault(name, []).append((number, part))
        return list(found.values())

    def entry_bytes(self, width: int, wide: int) -> int:
        """Bytes of scratch memory for an entry of a tile. width: of a similarity, wide: of its exponential."""
        found = width + wide + (wide if wide != width else 0)
        found += 2 * (self.ids is not None or any(term.valid is not None for term in self.terms))
        found += (4 + width) * self.margins + (1 + 2 * width) * (self.labels is not None)
        return found + 5 * wide * any(term.reference is not None for term in self.terms)

    def traveling(self) -> list[int]:
        """Numbers of the sides whose rows other ranks need, each once."""
        sides = [side for term in self.terms for side in term.traveling()]
        if self.everyones:
            sides += [negatives.side for term in self.terms for negatives in term.negatives]
        return list(dict.fromkeys(sides))

    def masked_negatives(self) -> list[tuple[int, int]]:
        """(term, place among its hard negatives) of those that some samples lack, and that travel."""
        places = [(number, place) for number, term in enumerate(self.terms) for place in range(len(term.negatives))]
        return [(n, p) for n, p in places if self.everyones and self.terms[n].negatives[p].valid is not None]


@dataclass
class Keys:
    """A block's rows [n]: where each traveling side stands in ``features`` [n, D], and what they say of themselves."""

    features: Tensor
    places: dict[int, slice]
    ids: Tensor | None = None
    labels: Tensor | None = None
    valid: dict[int, Tensor] = field(default_factory=dict)  # term -> bool [n, 2]
    own: Tensor | None = None  # [n, terms], similarities of counterparts
    nearest: Tensor | None = None  # [n, terms], below which other similarities count as smaller
    negatives_valid: dict[tuple[int, int], Tensor] = field(default_factory=dict)  # term, place -> bool [n]

    def side(self, number: int, columns: slice) -> Tensor:
        """[c, d] rows of a side."""
        return self.features[columns, self.places[number]]

    def about(self, term: int, part: PairPart, columns: slice) -> Columns:
        """What the rules may ask of a tile's columns."""
        labels = None if self.labels is None else self.labels[columns, term]
        valid = self.valid[term][columns, column_side(part)] if term in self.valid else None
        return Columns(labels, valid)


class Sweep:
    """What forward and backward have in common. sides: [b, d] each, detached, with the scale in them."""

    def __init__(self, setup: Setup, sides: Sequence[Tensor], dtype: torch.dtype) -> None:
        self.setup = setup
        self.dtype = dtype  # of exponentials and sums
        self.count = len(sides[0])
        self.first = setup.world.rank * self.count
        self.arithmetic = Arithmetic(setup.settings.products, sides[0].dtype)
        self.sides = [self.arithmetic.prepare(side) for side in sides]
        self.type = sides[0].dtype
        self.pointwise = Pointwise(setup.settings.compile, dtype, sides[0].device)
        self.fuses = fuses(setup.settings, sides[0].device)
        self.scratch = Scratch(sides[0].device)
        self.shifts = [self.shift(term.bound) for term in setup.terms]
        self.own_sides = setup.own_sides()
        self.places: dict[int, slice] = {}
        start = 0
        for number in setup.traveling():
            width = sides[number].shape[1]
            self.places[number] = slice(start, start + width)
            start += width
        self.width = start

    def traveling(self) -> Tensor:
        """This rank's rows of all sides that other ranks need, [b, D]."""
        sides = [self.sides[number] for number in self.places]
        return sides[0] if len(sides) == 1 else torch.cat(sides, dim=1)

    def payload(self) -> list[Tensor]:
        """What other ranks need to know of this rank's rows, apart from their features."""
        setup = self.setup
        masks = [term.valid for term in setup.terms if term.valid is not None]
        optional = [setup.ids, setup.labels, torch.cat(masks, dim=1) if masks else None]
        if lacking := setup.masked_negatives():
            columns = [setup.terms[number].negatives[place].valid for number, place in lacking]
            optional.append(torch.stack([valid for valid in columns if valid is not None], dim=1))
        return [tensor for tensor in optional if tensor is not None]

    def keys(self, features: Tensor, payload: Sequence[Tensor]) -> Keys:
        """A block's rows, from features [n, D] and what :meth:`payload` became on its way."""
        rest = list(payload)
        keys = Keys(features, self.places)
        if self.setup.ids is not None:
            keys.ids = rest.pop(0)
        if self.setup.labels is not None:
            keys.labels = rest.pop(0)
        masked = [number for number, term in enumerate(self.setup.terms) if term.valid is not None]
        if masked:
            keys.valid = dict(zip(masked, rest.pop(0).split(2, dim=1), strict=True))
        if lacking := self.setup.masked_negatives():
            keys.negatives_valid = dict(zip(lacking, rest.pop(0).unbind(dim=1), strict=True))
        return keys

    def tiles(self, block: RowBlock) -> Iterator[Tile]:
        """The tiles of this rank's rows against a block."""
        entry = self.setup.entry_bytes(self.type.itemsize, self.dtype.itemsize)
        shape = tile_shape(self.setup.settings, self.count, len(block.sums), entry, self.sides[0].device)
        return tiles(self.count, self.first, len(block.sums), block.start, shape)

    def whole(self, tile: Tile) -> bool:
        """Whether the tile holds all columns of the whole batch, so that its rows come once."""
        return tile.shape[1] == self.setup.world.size * self.count

    def similarities(self, term: Term, part: PairPart, tile: Tile, keys: Keys, *, fresh: bool = False) -> Tensor:
        """[t, c] of own rows and columns of the block, nothing hidden; in scratch memory unless ``fresh``."""
        return self.product("" if fresh else "similarities", *self.sides_of(term, part), tile, keys)

    def sides_of(self, term: Term, part: int) -> tuple[int, int]:
        """Numbers of the sides whose rows and columns a part compares."""
        if part >= FURTHER:
            further = term.negatives[part - FURTHER]
            return term.rows_of(further), further.side
        rows = term.key if part == PairPart.key_side else term.query
        return rows, term.query if part == PairPart.query_side else term.key

    def product(self, name: str, row_side: int, column_side: int, tile: Tile, keys: Keys) -> Tensor:
        """Own rows of one side against a block's rows of another, [t, c], into scratch memory called ``name``."""
        row = self.sides[0]
        out = self.scratch.take(name, tile.shape, self.type) if name else row.new_empty(tile.shape, dtype=self.type)
        return self.arithmetic.product(self.sides[row_side][tile.rows], keys.side(column_side, tile.columns), out)

    def hidden(self, number: int, part: PairPart, tile: Tile, keys: Keys) -> Tensor | None:
        """bool [t, c]: entries that do not exist for rows and columns; None: all do."""
        term = self.setup.terms[number]
        hidden = None
        if term.contents is not None:
            assert keys.ids is not None
            ids = keys.ids[tile.columns]
            contents = term.contents if part is PairPart.cross else term.contents[:1]
            hidden = contents[0][tile.rows, None] == ids
            for more in contents[1:]:
                hidden |= more[tile.rows, None] == ids
            # What a row asks for is never hidden, and its counterpart is dealt with apart.
            if part is PairPart.cross:
                term.rule.uncover(tile, hidden)
        if term.valid is not None:
            rows = term.valid[tile.rows, int(part is PairPart.key_side)]
            columns = keys.valid[number][tile.columns, column_side(part)]
            unseen = ~(rows[:, None] & columns)
            hidden = unseen if hidden is None else hidden | unseen
        return hidden

    def hidden_negatives(self, number: int, place: int, tile: Tile, keys: Keys) -> Tensor | None:
        """bool [t, c]: of a term's hard negatives at this place, those that rows do not see; None: they see all."""
        term, hidden = self.setup.terms[number], None
        if term.contents is not None:
            assert keys.ids is not None
            hidden = term.contents[0][tile.rows, None] == keys.ids[tile.columns]
            tile.counterparts(hidden).fill_(False)  # a row's own ones: of copies of its sample it sees no more
        valid = keys.negatives_valid.get((number, place))
        if valid is not None:
            unseen = ~valid[tile.columns].expand(tile.shape)
            hidden = unseen if hidden is None else hidden | unseen
        return hidden

    def mask(self, similarities: Tensor, hidden: Tensor | None, tile: Tile) -> None:
        """-inf for hidden entries and counterparts, in place."""
        if hidden is not None:
            similarities.masked_fill_(hidden, -torch.inf)
        tile.counterparts(similarities).fill_(-torch.inf)

    def shift(self, bound: Bound) -> Bound:
        """What is taken off similarities so that their exponentials fit into the type of the sums."""
        if isinstance(bound, Tensor):
            return (bound - HEADROOM[self.dtype]).clamp(min=0)
        return max(0.0, bound - HEADROOM[self.dtype])

    def tolerance(self, bound: Bound) -> Bound:
        """Within how much two similarities are the same but for rounding."""
        return 8 * self.arithmetic.eps(self.sides[0].device) * bound


def column_side(part: PairPart) -> int:
    """Whether a part's columns are query rows (0) or key rows (1)."""
    return 0 if part is PairPart.query_side else 1
