"""How maps are read: of each input what share of its map falls on it, weighted by what its part is worth.

For the map of a part (common or own) with a length a_i >= 0 at every position of the input, and the part's weight w of
the sample's embedding (own_NAME of the scores, and 1 - own_NAME for the common part),

    share_i = w a_i / sum a

so that both maps of a modality sum to 1 together, are drawn on one scale, and a part without weight has none. Shapes: c
channels, h x w pixels, n tokens, T time steps or frames, d features or bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL.Image import Image

from mmpretrain.config.kind import Kind
from mmpretrain.explain.attribution_maps import ExplainedSide

NO_WEIGHT = 0.005  # what is rounded to 0 %


@dataclass(frozen=True)
class PartMap:
    """A part's map of one modality of a sample. shares: of every position, in the layout of the input ([h, w], [n],
    [d], [T, d]); signed: the same with the sign of the derivative where a position has one (vectors), else
    ``shares``."""

    weight: float
    shares: np.ndarray
    signed: np.ndarray

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be seen."""
        return self.weight < NO_WEIGHT or not self.shares.any()


def part_maps(side: ExplainedSide, own: float) -> tuple[PartMap, PartMap]:
    """The common part's and the own one's. own: the weight of the latter, 0 to 1."""
    return _part_map(side, side.common, 1 - own), _part_map(side, side.individual, own)


def lengths(side: ExplainedSide, values: np.ndarray) -> np.ndarray:
    """An attribution (``side.common`` or ``side.individual``) as one number, 0 or above, for every position: its length
    over the channels of a picture or over the embedding of a token, else its absolute value."""
    if isinstance(side.raw, Image):
        return np.sqrt(np.square(values).sum(axis=0))
    if isinstance(side.raw, str):
        return np.sqrt(np.square(values).sum(axis=1))
    return np.abs(values)


def _part_map(side: ExplainedSide, values: np.ndarray, weight: float) -> PartMap:
    found = lengths(side, values)
    shares = weight * found / max(float(found.sum()), 1e-300)
    return PartMap(weight, shares, np.sign(values) * shares if values.shape == shares.shape else shares)


def largest(side: ExplainedSide, maps: tuple[PartMap, PartMap]) -> float:
    """Where the scale of a modality's row ends: its largest share, of the words alone in a text. Tokens that the
    tokenizer adds are drawn apart."""
    words = ~np.array(side.special) if side.special and not all(side.special) else slice(None)
    return max(float(part.shares[words].max(initial=0)) for part in maps) or 1.0


def described(side: ExplainedSide, part: PartMap, what: str, color: str, names: Sequence[str] = ()) -> str:
    """One sentence on what a map shows. what: ``its own`` or ``common with NAME``. names: of a vector's features."""
    if part.empty:
        return f"No weight: {100 * part.weight:.0f} % of this embedding is {what}, so nothing is drawn."
    place, share = _place(side, part.shares / part.weight, names)
    return (
        f"{color} is where a change moves most what is {what}, {100 * part.weight:.0f} % of this embedding:"
        f" {place} ({100 * share:.0f} % of the map)."
    )


def _place(side: ExplainedSide, shares: np.ndarray, names: Sequence[str]) -> tuple[str, float]:
    """Where most of a map lies, in words, and how much of it. shares: they sum to 1."""
    if isinstance(side.raw, Image):
        return _ninth(shares)
    if isinstance(side.raw, str):
        words = np.where(np.array(side.special), -1, shares)
        best = int(words.argmax())
        return f"most of all {side.tokens[best]!r}", float(shares[best])
    if shares.ndim == 1 and side.kind is not Kind.audio:
        best = int(shares.argmax())
        name = names[best] if len(names) == len(shares) else f"feature {best}"
        return f"most of all {name}", float(shares[best])
    return _tenth(shares.sum(axis=1) if shares.ndim == 2 else shares)


def _ninth(shares: np.ndarray) -> tuple[str, float]:
    """The densest: of small pictures the ninths are of unequal size."""
    rows, columns = ("upper", "middle", "lower"), ("left", "center", "right")
    parts = {
        f"{row} {column}": part
        for row, band in zip(rows, np.array_split(shares, 3, axis=0), strict=True)
        for column, part in zip(columns, np.array_split(band, 3, axis=1), strict=True)
        if part.size
    }
    place = max(parts, key=lambda name: float(parts[name].mean()))
    return f"densest in the {place}", float(parts[place].sum())


def _tenth(shares: np.ndarray) -> tuple[str, float]:
    parts = np.array_split(np.arange(len(shares)), min(10, len(shares)))
    sums = [float(shares[part].sum()) for part in parts]
    best = parts[int(np.argmax(sums))]
    return f"most at {100 * best[0] / len(shares):.0f} to {100 * (best[-1] + 1) / len(shares):.0f} % of the time", max(
        sums
    )
