"""One sweep over tiles of logits for the sigmoid loss and its gradients.

Every entry is a question of its own, there is no sum over the batch to wait for: the derivative of a tile,
G_ij = sigmoid(logit_ij), is known as soon as the tile is. So a tile costs 3 matrix products, where a backward pass
that makes the tiles again needs 4, and nothing of it is kept:

    dq = scale G k,   dk = scale G^T q (added up over the ranks),   dscale = sum_i q_i . (G k)_i,   dbias = sum_ij G_ij

A row's own counterpart, where G_ii = - sigmoid(-logit_ii), is left out of the tiles and dealt with apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.config.objective import Fused, Negatives, ObjectiveConfig
from mmpretrain.distributed.exchange import RowBlock, exchange
from mmpretrain.distributed.world import World
from mmpretrain.losses.fused.arguments import Masks, Matrix, Place, flags
from mmpretrain.losses.fused.choice import fuses
from mmpretrain.losses.similarity import resolve_negatives
from mmpretrain.losses.tiled.tile import Arithmetic, Scratch, Tile, tile_shape, tiles


@dataclass(frozen=True)
class SigmoidSetup:
    """What has no gradient. world: the ranks that negatives come from. sample_ids: int64 [b] or None.

    places: of each pair's key among the distinct keys, which travel. valid: bool [b, 2] of query and key of each pair,
    or None where all rows are valid on all ranks. parents: None of a pair whose rows belong together; else its keys are
    hard negatives, none of which is any row's own, and the place of the pair that they belong to, by whose samples they
    are counted. own: whether rows see no hard negatives but their sample's.
    """

    world: World
    settings: ObjectiveConfig
    metrics: bool
    sample_ids: Tensor | None
    places: list[int]
    valid: list[Tensor | None]
    parents: list[int | None]
    own: bool = False

    def paired(self, pair: int, like: Tensor) -> Tensor:
        """[b]: 1 for samples whose both sides are valid and belong together, else 0."""
        if self.parents[pair] is not None:
            return torch.zeros_like(like)
        valid = self.valid[pair]
        return torch.ones_like(like) if valid is None else valid.all(dim=1).to(like)

    def shares(self, rows: int, like: Tensor) -> Tensor:
        """float64 [pairs]: 1 / (number of samples per rank, on average, that count); 0 where none does."""
        ones = torch.ones(rows, dtype=torch.float64, device=like.device)
        counted = torch.stack([self.paired(pair, ones).sum() for pair in range(len(self.valid))])
        if any(valid is not None for valid in self.valid):
            counted = self.world.all_reduce_sum(counted) / self.world.size
        shares = torch.where(counted > 0, 1 / counted, 0)
        if all(parent is None for parent in self.parents):
            return shares
        # A list as an index would travel from the host.
        return torch.stack([shares[n if parent is None else parent] for n, parent in enumerate(self.parents)])


class FusedSigmoid:
    """Tiles of ``sweep`` through the kernel, which is imported (and with it triton) when one is made."""

    def __init__(self, sweep: SigmoidSweep) -> None:
        from mmpretrain.losses.fused import launch

        self.launch, self.sweep = launch, sweep
        self.multiplies = sweep.arithmetic.rounded and sweep.setup.settings.fused is Fused.auto
        self.gradient_type = torch.bfloat16 if sweep.arithmetic.rounded else sweep.scale.dtype

    def add(self, pair: int, tile: Tile, keys: Tensor, ids: Tensor | None, valid: Tensor | None) -> Tensor | None:
        """Add a tile's negatives to losses, places and the bias's gradient; derivatives [t, c] if one is wanted.

        keys: [c, d]. ids, valid: [n] of the block, or None.
        """
        sweep, setup = self.sweep, self.sweep.setup
        positives = setup.parents[pair] is None
        gradient = sweep.scratch.take("other", tile.shape, self.gradient_type) if sweep.graded else None
        losses, slopes, farther = self.launch.sigmoid(
            Place(*tile.shape, tile.first_row, tile.first_column, hides_own=positives),
            self._scores(sweep.rows[pair][tile.rows], keys, tile),
            self._masks(pair, tile, ids, valid),
            sweep.own[pair, tile.rows] if setup.metrics and positives else None,
            (sweep.scale, sweep.bias, sweep.tolerance),
            gradient,
            only_own=setup.own and not positives,
        )
        sweep.losses[pair].add_(losses)
        sweep.by_bias[pair].add_(slopes)
        if farther is not None:
            sweep.farther[pair, tile.rows].add_(farther)
        return None if gradient is None else sweep.arithmetic.weights(gradient)

    def _scores(self, rows: Tensor, keys: Tensor, tile: Tile) -> Matrix:
        if self.multiplies:
            return Matrix.product(rows, keys)
        sweep = self.sweep
        logits = sweep.scratch.take("logits", tile.shape, sweep.scale.dtype)
        return Matrix.of(sweep.arithmetic.product(rows, keys, logits))

    def _masks(self, pair: int, tile: Tile, ids: Tensor | None, valid: Tensor | None) -> Masks:
        setup = self.sweep.setup
        own, first, others = setup.valid[pair], None, None
        if ids is not None and setup.sample_ids is not None:
            first, others = setup.sample_ids[tile.rows], ids[tile.columns]
        if own is None or valid is None:
            return Masks(first, None, others)
        return Masks(first, None, others, flags(own[tile.rows, 0]), flags(valid[tile.columns]))


@dataclass(frozen=True)
class RowSums:
    """Sums over own rows, not yet divided by their number.

    losses, hits (own key nearer than all others), ranks of the own key, by_scale, by_bias: [pairs]. by_sides:
    derivatives by all queries, then all keys, [b, d] each, None where not needed.
    """

    losses: Tensor
    hits: Tensor
    ranks: Tensor
    by_scale: Tensor
    by_bias: Tensor
    by_sides: list[Tensor | None]


class SigmoidSweep:
    """Runs once over all tiles. sides: queries, then keys. needed: do scale, bias and each side want a gradient."""

    def __init__(
        self, setup: SigmoidSetup, scale: Tensor, bias: Tensor, sides: Sequence[Tensor], needed: Sequence[bool]
    ) -> None:
        self.setup, self.scale, self.bias = setup, scale, bias
        count = len(setup.places)
        self.queries, self.keys = sides[:count], sides[count:]
        self.graded = any(needed)
        self.by_key = list(needed[2 + count :])
        # The derivative by the scale comes from that by the queries.
        by_query = [needed[0] or need for need in needed[2 : 2 + count]]
        self.products = [torch.zeros_like(q) if need else None for q, need in zip(self.queries, by_query, strict=True)]
        self.arithmetic = Arithmetic(setup.settings.products, scale.dtype)
        self.rows = [self.arithmetic.prepare(query) for query in self.queries]
        self.distinct = [
            self.arithmetic.prepare(self.keys[setup.places.index(place)]) for place in range(max(setup.places) + 1)
        ]
        self.scratch = Scratch(scale.device)
        # Ties count against a row, within rounding: embeddings that have all become one must not look like success.
        self.tolerance = 8 * self.arithmetic.eps(scale.device) * (scale.abs() + bias.abs())
        self.own = torch.stack([scale * (query * key).sum(dim=1) + bias for query, key in self._counterparts()])
        # Sums over whole tiles, of a batch that may be large: float64.
        self.losses, self.by_bias = torch.zeros(2, count, dtype=torch.float64, device=scale.device).unbind()
        self.farther = torch.zeros_like(self.own)
        self.fused = FusedSigmoid(self) if fuses(setup.settings, scale.device) else None

    def run(self) -> RowSums:
        """The losses and what they have for gradients; a collective."""
        setup, payload = self.setup, self._payload()
        mode = resolve_negatives(setup.settings, len(self.keys[0]), payload[0].shape[1], setup.world)
        width = sum(key.shape[1] for key, need in zip(self.keys, self.by_key, strict=True) if need)
        ring, dtype = mode is Negatives.ring, self.scale.dtype
        home = exchange(payload, width, self._visit, world=setup.world, ring=ring, dtype=dtype)
        return self._with_counterparts(self._sums(home))

    def _counterparts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This rank's queries and keys of each pair, [b, d]."""
        # The same rounded rows as in the tiles, or counterparts would be off against all other logits.
        for rows, place in zip(self.rows, self.setup.places, strict=True):
            yield rows.to(self.scale.dtype), self.distinct[place].to(self.scale.dtype)

    def _payload(self) -> list[Tensor]:
        masks = [valid[:, 1] for valid in self.setup.valid if valid is not None]
        optional = [self.setup.sample_ids, torch.stack(masks, dim=1) if masks else None]
        return [torch.cat(self.distinct, dim=1), *(tensor for tensor in optional if tensor is not None)]

    def _sums(self, rows: Tensor) -> list[Tensor | None]:
        """Views of sums [n, width] for each pair's key."""
        widths = [key.shape[1] for key, need in zip(self.keys, self.by_key, strict=True) if need]
        parts = iter(rows.split(widths, dim=1) if widths else ())
        return [next(parts) if need else None for need in self.by_key]

    def _visit(self, block: RowBlock) -> None:
        features, *rest = block.rows
        keys = features.split([key.shape[1] for key in self.distinct], dim=1)
        ids = rest.pop(0) if self.setup.sample_ids is not None else None
        masks = iter(rest.pop(0).unbind(dim=1) if rest else ())
        valid = [None if own is None else next(masks) for own in self.setup.valid]
        masked = [own is not None for own in self.setup.valid]
        sums = self._sums(block.sums)
        count = len(self.own[0])
        # Logits and what becomes of them, and masks.
        entry = 2 * self.scale.element_size() + 2 * (self.setup.sample_ids is not None or any(masked))
        shape = tile_shape(self.setup.settings, count, len(features), entry, self.scale.device)
        for tile in tiles(count, self.setup.world.rank * count, len(features), block.start, shape):
            if self.fused is not None:
                for pair, place in enumerate(self.setup.places):
                    gradient = self.fused.add(pair, tile, keys[place][tile.columns], ids, valid[pair])
                    self._add_products(pair, tile, keys[place][tile.columns], gradient, sums[pair])
                continue
            copies = None
            if ids is not None and self.setup.sample_ids is not None:
                copies = self.setup.sample_ids[tile.rows, None] == ids[tile.columns]
            for pair, place in enumerate(self.setup.places):
                hidden = self._hidden(pair, tile, copies, valid[pair])
                self._tile(pair, tile, keys[place][tile.columns], hidden, sums[pair])

    def _hidden(self, pair: int, tile: Tile, copies: Tensor | None, valid: Tensor | None) -> Tensor | None:
        own = self.setup.valid[pair]
        if self.setup.parents[pair] is not None:
            copies = self._others(tile, copies)
        if own is None or valid is None:
            return copies
        unseen = ~(own[tile.rows, :1] & valid[tile.columns])
        return unseen if copies is None else unseen | copies

    def _others(self, tile: Tile, copies: Tensor | None) -> Tensor | None:
        """Hard negatives that rows do not see: those of copies of their sample, or of all other samples; [t, c]."""
        if self.setup.own:
            copies = torch.ones(tile.shape, dtype=torch.bool, device=self.scale.device)
        elif copies is None:
            return None
        else:
            copies = copies.clone()  # the other pairs' too
        tile.counterparts(copies).fill_(False)
        return copies

    def _tile(self, pair: int, tile: Tile, keys: Tensor, hidden: Tensor | None, sums: Tensor | None) -> None:
        """Add a tile's negatives to all sums."""
        dtype, rows = self.scale.dtype, self.rows[pair][tile.rows]
        logits = self.arithmetic.product(rows, keys, self.scratch.take("logits", tile.shape, dtype))
        logits.mul_(self.scale).add_(self.bias)
        if hidden is not None:
            logits.masked_fill_(hidden, -torch.inf)
        positives = self.setup.parents[pair] is None
        if positives:
            tile.counterparts(logits).fill_(-torch.inf)
        other = self.scratch.take("other", tile.shape, dtype)
        if self.setup.metrics and positives:
            torch.lt(logits, (self.own[pair, tile.rows] - self.tolerance)[:, None], out=other)
            # What cannot be compared (nan) is not farther.
            self.farther[pair, tile.rows].add_(other.sum(dim=1))
        self.losses[pair].add_(torch.logaddexp(logits, logits.new_zeros(()), out=other).sum())
        weights = None
        if self.graded:
            gradient = torch.sigmoid(logits, out=other)
            self.by_bias[pair].add_(gradient.sum())
            weights = self.arithmetic.weights(gradient, logits)
        self._add_products(pair, tile, keys, weights, sums)

    def _add_products(self, pair: int, tile: Tile, keys: Tensor, weights: Tensor | None, sums: Tensor | None) -> None:
        """Add what a tile's derivatives [t, c], as products take them, make of its rows and keys to both gradients."""
        if weights is None:
            return
        product = self.products[pair]
        if product is not None:
            whole = tile.shape[1] == self.setup.world.size * len(self.own[0])
            self.arithmetic.add_product(product[tile.rows], weights, keys, first=whole)
        if sums is not None:
            self.arithmetic.add_product(sums[tile.columns], weights.T, self.rows[pair][tile.rows])

    def _with_counterparts(self, sums: list[Tensor | None]) -> RowSums:
        """Everything with the positives added."""
        paired = torch.stack([self.setup.paired(pair, own) for pair, own in enumerate(self.own)])
        losses = (paired * torch.logaddexp(-self.own, torch.zeros_like(self.own))).sum(dim=1)
        own = -paired * torch.sigmoid(-self.own)
        by_scale = []
        for product, total, (query, key), weights in zip(self.products, sums, self._counterparts(), own, strict=True):
            if product is not None:
                product += weights[:, None] * key
            if total is not None:
                total += weights[:, None] * query
            by_scale.append(own.new_zeros(()) if product is None else (query * product).sum())
        above = self.setup.world.size * len(self.own[0]) - self.farther
        hits, ranks = (paired * (above == 0)).sum(dim=1), (paired * (1 + above)).sum(dim=1)
        unknown = torch.full_like(hits, torch.nan)
        return RowSums(
            losses=self.losses + losses,
            hits=hits if self.setup.metrics else unknown,
            ranks=ranks if self.setup.metrics else unknown,
            by_scale=torch.stack(by_scale),
            by_bias=self.by_bias + own.sum(dim=1),
            by_sides=[None if total is None else total * self.scale for total in (*self.products, *sums)],
        )
