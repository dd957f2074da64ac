"""How many samples every source of a mixture gives to each block: whole numbers that never drift (no torch here).

A block is one global batch. A source is *owed* its share of every block; what it is owed and was not given, a fraction
of a sample, is carried on. A block first gives every source the whole samples that it is owed. What is left of the
block goes, a sample each, to sources with a fraction to their credit: to those first whose fraction becomes a whole
sample soonest. That is the order of earliest deadlines, of which is known (Tijdeman, "The chairman assignment problem",
1980; Baruah, Cohen, Plaxton, Varvel, "Proportionate progress", 1996) that after any number of blocks every source is
less than one sample from its share, whatever the shares are.

Everything is integers: two machines cannot differ. What is owed repeats with the common denominator of the shares, so
that the state before any block is found by one walk through a period, and nothing needs to be stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

MOST_BLOCKS = 2**14  # in a period: shares with a longer one are rounded
_MARK_EVERY = 64  # blocks

Lags = tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """Shares that hold from a block on. first: that block. shares: of each source, relative to their sum."""

    first: int
    shares: tuple[int, ...]


def whole_shares(weights: Sequence[Fraction], block: int) -> tuple[int, ...]:
    """Weights (0 or more) as whole numbers whose period is at most MOST_BLOCKS blocks of ``block`` samples.

    They are exact where the weights allow it; else each is off by at most 1 / (MOST_BLOCKS * block) of all samples, and
    none that is above 0 becomes 0 unless there are more sources than that.

    Raises ValueError if no weight is above 0.
    """
    total = sum(weights, Fraction(0))
    if total <= 0 or min(weights) < 0:
        raise ValueError(
            f"the weights {', '.join(map(str, weights))} are no shares: one above 0 is needed, none below 0"
        )
    parts = [weight / total for weight in weights]
    common = math.lcm(*(part.denominator for part in parts))
    if common // math.gcd(common, block) > MOST_BLOCKS:
        common = MOST_BLOCKS * block
        return _rounded(parts, common)
    return tuple(int(part * common) for part in parts)


def _rounded(parts: Sequence[Fraction], total: int) -> tuple[int, ...]:
    """``parts`` of ``total`` in whole numbers, by the largest remainder; at least 1 of what is above 0."""
    found = [max(int(part > 0), math.floor(part * total)) for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda at: (found[at] - parts[at] * total, at))
    for at in by_remainder[: max(0, total - sum(found))]:
        found[at] += 1
    largest = found.index(max(found))
    found[largest] -= sum(found) - total
    return tuple(found)


class Quotas:
    """The samples of each source in every block of an endless stream.

    stages: by their first blocks, which rise from 0. block: samples in each.

    Raises ValueError for stages that do not start at 0 or do not rise, and for a stage without a share.
    """

    def __init__(self, stages: Sequence[Stage], block: int) -> None:
        firsts = [stage.first for stage in stages]
        if firsts[:1] != [0] or firsts != sorted(set(firsts)):
            raise ValueError(f"stages start at the blocks {firsts}: they must rise from 0")
        if not all(sum(stage.shares) > 0 <= min(stage.shares) for stage in stages):
            raise ValueError("a stage has no share above 0, or one below it")
        self.stages, self.block = tuple(stages), block
        self._unit = math.lcm(*(sum(stage.shares) for stage in stages))  # of what is owed, one sample is so much
        self._walks: list[_Walk] = []

    def before(self, block: int) -> tuple[int, ...]:
        """Samples of each source in all blocks before ``block``."""
        number, owed = self._stage(block), [0] * len(self.stages[0].shares)
        for at, stage in enumerate(self.stages[: number + 1]):
            end = block if at == number else self.stages[at + 1].first
            owed = [total + (end - stage.first) * gain for total, gain in zip(owed, self._gains(at), strict=True)]
        walk = self._walk(number)
        lags = walk.lags(block - self.stages[number].first)
        return tuple((o - lag - aside) // self._unit for o, lag, aside in zip(owed, lags, walk.aside, strict=True))

    def of(self, block: int) -> tuple[int, ...]:
        """Samples of each source in ``block``."""
        number = self._stage(block)
        return _step(self._lags(block), self._gains(number), self._unit, self.block)[1]

    def shares(self, block: int) -> tuple[Fraction, ...]:
        """The share of each source in the stage that ``block`` is in."""
        shares = self.stages[self._stage(block)].shares
        return tuple(Fraction(share, sum(shares)) for share in shares)

    def _stage(self, block: int) -> int:
        if block < 0:
            raise ValueError(f"block {block} is not in the stream")
        return max(number for number, stage in enumerate(self.stages) if stage.first <= block)

    def _gains(self, number: int) -> tuple[int, ...]:
        """What each source is owed more by a block of this stage."""
        shares = self.stages[number].shares
        return tuple(self.block * share * (self._unit // sum(shares)) for share in shares)

    def _lags(self, block: int) -> Lags:
        number = self._stage(block)
        return self._walk(number).lags(block - self.stages[number].first)

    def _walk(self, number: int) -> _Walk:
        while len(self._walks) <= number:
            at = len(self._walks)
            gains = self._gains(at)
            start = aside = (0,) * len(gains)
            if at:
                ended = self._walks[-1].lags(self.stages[at].first - self.stages[at - 1].first)
                whole = tuple(lag + more for lag, more in zip(ended, self._walks[-1].aside, strict=True))
                start, aside = _settled(whole, gains)
            total = sum(self.stages[at].shares)
            self._walks.append(_Walk(start, aside, gains, self._unit, self.block, total // math.gcd(total, self.block)))
        return self._walks[number]


class _Walk:
    """What every source is owed before each block of one stage.

    start: before its first. aside: what is owed beside that, and stays as it is until the stage ends. period: blocks
    after which the fractions are what they were, so that the whole is, sooner or later, too.
    """

    def __init__(self, start: Lags, aside: Lags, gains: tuple[int, ...], unit: int, block: int, period: int) -> None:
        self.aside = aside
        self._gains, self._unit, self._block, self._period = gains, unit, block, period
        self._marks, self._place, self._at = [start], 0, start
        self._seen: dict[Lags, int] = {start: 0}
        self._cycle: tuple[int, int] | None = None  # where it starts, and how long it is

    def lags(self, block: int) -> Lags:
        """Before the ``block``-th block of the stage."""
        while self._cycle is None and self._place < block:
            self._advance()
        if self._cycle is not None:
            first, length = self._cycle
            block = block if block < first else first + (block - first) % length
        mark = block // _MARK_EVERY
        lags = self._marks[mark]
        for _ in range(block - mark * _MARK_EVERY):
            lags = _step(lags, self._gains, self._unit, self._block)[0]
        return lags

    def _advance(self) -> None:
        self._at = _step(self._at, self._gains, self._unit, self._block)[0]
        self._place += 1
        if self._place % _MARK_EVERY == 0:
            self._marks.append(self._at)
        if self._place % self._period == 0:
            if self._at in self._seen:
                first = self._seen[self._at]
                self._cycle = first, self._place - first
            self._seen[self._at] = self._place


def _step(lags: Lags, gains: tuple[int, ...], unit: int, block: int) -> tuple[Lags, tuple[int, ...]]:
    """(what is owed after a block, what it gave): unit is one sample, block is samples."""
    owed = [lag + gain for lag, gain in zip(lags, gains, strict=True)]
    given = [max(0, amount // unit) for amount in owed]
    left = block - sum(given)
    if left > 0:
        # Blocks until the fraction is a whole sample; a source that is owed nothing may not be given anything.
        waiting = sorted(
            (-(-(unit - amount % unit) // gain), at)
            for at, (amount, gain) in enumerate(zip(owed, gains, strict=True))
            if gain and amount > 0 and amount % unit
        )
        for _, at in waiting[:left]:
            given[at] += 1
    # After a border, fractions of an earlier stage may ask for more than a block holds: the least urgent wait.
    while left < 0:
        for _, at in sorted((owed[at] - (given[at] - 1) * unit, at) for at in range(len(owed)) if given[at])[:-left]:
            given[at] -= 1
        left = block - sum(given)
    return tuple(amount - unit * samples for amount, samples in zip(owed, given, strict=True)), tuple(given)


def _settled(lags: Lags, gains: tuple[int, ...]) -> tuple[Lags, Lags]:
    """(what is owed at the start of a stage, what waits until it ends).

    Sources that have no share in the stage keep what they are owed until they come back. So that the debts of the
    others are 0 together, as their quotas need it, those with the debts that are too many, or too few, put part of
    them aside.
    """
    start = [lag if gain else 0 for lag, gain in zip(lags, gains, strict=True)]
    excess = sum(start)
    weights = [max(0, lag if excess > 0 else -lag) for lag in start]
    if excess:
        parts = [excess * weight // sum(weights) for weight in weights]
        parts[weights.index(max(weights))] += excess - sum(parts)
        start = [lag - part for lag, part in zip(start, parts, strict=True)]
    return tuple(start), tuple(lag - own for lag, own in zip(lags, start, strict=True))
