"""Whether maps say anything: two numbers for each modality and part.

*Shuffled weights* (the randomization test of Adebayo et al. 2018, arXiv 1810.03292): every tensor of the model's
weights is shuffled within itself, the maps are made again, and both are compared by Spearman's correlation of the
lengths at all positions. Near 0: the map depends on what was learned. Near 1: an untrained model would have given it,
too. The mean over samples and ``DRAWS`` shuffles.

*Deletion* (deletion.py): inputs are taken away, those with the strongest map first, beside random orders. A smaller
area below the curve than the random orders' says that the map points at what the score comes from.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from mmpretrain.data.decode import Raw
from mmpretrain.explain.attribution_maps import ExplainedSide, explain_samples
from mmpretrain.explain.decomposition import Decomposition
from mmpretrain.explain.deletion import FRACTIONS, ORDERS, PARTS, Curves, deletion_curves
from mmpretrain.explain.map_shares import lengths
from mmpretrain.explain.opened import Opened
from mmpretrain.explain.settings import Wanted

DRAWS = 3
ALIKE = 0.7  # a correlation from which on maps are called much the same


@dataclass(frozen=True)
class Check:
    """Of one modality and part (``common``, ``own``). randomized_correlation: with maps of shuffled weights. kept: at
    every one of ``FRACTIONS``, kept_random: in random order; area, area_random: below them. None: not defined, where
    the part has no direction, the input too few positions, or the score does not move."""

    modality: str
    part: str
    randomized_correlation: float | None
    kept: list[float] | None
    kept_random: list[float] | None

    @property
    def area(self) -> float | None:
        """Below ``kept``."""
        return _area(self.kept)

    @property
    def area_random(self) -> float | None:
        """Below ``kept_random``."""
        return _area(self.kept_random)

    @property
    def doubts(self) -> list[str]:
        """What speaks against the maps, a sentence each."""
        found = []
        maps = f"the maps of what {self.modality} {'has of its own' if self.part == 'own' else 'has in common'}"
        if self.area is not None and self.area_random is not None and self.area >= self.area_random:
            found.append(
                f"{maps} point at inputs that matter no more than random ones (deletion area {self.area:.2f}, in random"
                f" order {self.area_random:.2f})"
            )
        if (same := self.randomized_correlation) is not None and same >= ALIKE:
            found.append(f"{maps} look much the same where the weights are shuffled (correlation {same:.2f})")
        return found


@dataclass(frozen=True)
class Sanity:
    """samples: how many the numbers are means over."""

    samples: int
    checks: list[Check]

    @property
    def doubts(self) -> list[str]:
        """Of all checks."""
        return [doubt for check in self.checks for doubt in check.doubts]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        checks = [{**asdict(c), "area": c.area, "area_random": c.area_random} for c in self.checks]
        return {"samples": self.samples, "shuffles": DRAWS, "random_orders": ORDERS, "fractions": FRACTIONS} | {
            "doubts": self.doubts,
            "checks": checks,
        }


def check_maps(
    opened: Opened,
    fitted: Decomposition,
    wanted: Wanted,
    raws: Sequence[Mapping[str, Raw]],
    keys: Sequence[str],
    sides: Sequence[Mapping[str, ExplainedSide]],
) -> Sanity:
    """Both checks of the maps ``sides`` of the decoded samples ``raws``."""
    correlations = _randomized(opened, fitted, wanted, raws, keys, sides)
    curves: dict[tuple[str, str], Curves] = deletion_curves(opened, fitted, wanted, raws, keys)
    checks = [
        Check(name, part, correlations[name, part], *curves[name, part]) for name in fitted.pair for part in PARTS
    ]
    return Sanity(len(raws), checks)


def shuffled(model: nn.Module, seed: int) -> nn.Module:
    """A copy of ``model`` with the numbers of every weight tensor in a random order."""
    made = copy.deepcopy(model)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in made.parameters():
            order = torch.randperm(weights.numel(), generator=draw).to(weights.device)
            weights.copy_(weights.flatten()[order].view_as(weights))
    return made


def _area(kept: list[float] | None) -> float | None:
    """Between equally spaced fractions, by trapezoids."""
    return None if kept is None else float(np.mean((np.array(kept[1:]) + np.array(kept[:-1])) / 2))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's; None for less than three positions, or if one side is the same everywhere."""
    sides = [first.ravel(), second.ravel()]
    if min(len(np.unique(side)) for side in sides) < 2 or first.size < 3:
        return None
    return float(np.corrcoef(_ranks(sides[0]), _ranks(sides[1]))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Places in ascending order; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum() - (counts - 1) / 2)[inverse]


def _randomized(
    opened: Opened,
    fitted: Decomposition,
    wanted: Wanted,
    raws: Sequence[Mapping[str, Raw]],
    keys: Sequence[str],
    sides: Sequence[Mapping[str, ExplainedSide]],
) -> dict[tuple[str, str], float | None]:
    found: dict[tuple[str, str], list[float]] = {(name, part): [] for name in fitted.pair for part in PARTS}
    for seed in range(DRAWS):
        other = replace(opened, model=shuffled(opened.model, seed))
        again = explain_samples(other, fitted, wanted.form, raws, keys)
        for (name, part), values in found.items():
            for one, two in zip(sides, again, strict=True):
                maps = [getattr(side[name], "individual" if part == "own" else part) for side in (one, two)]
                value = rank_correlation(*(lengths(one[name], values) for values in maps))
                values += [] if value is None else [value]
    return {place: float(np.mean(values)) if values else None for place, values in found.items()}
