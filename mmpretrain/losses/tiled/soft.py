"""Soft targets inside tiles: what resembles a sample in the reference should do so in the pair (SoftCLIP).

With unit-length rows a, b of the pair and r of the reference, s and s_r the scales:

    R = s_r r r^T,  T = rowsoftmax(R),  S = s a b^T
    loss = 1/2 [ - 1/N sum_ij T_ij log softmax_j(S_i.)_j  -  1/N sum_ij T_ij log softmax_j((S^T)_i.)_j ]

Both halves use the same T. R is symmetric, so that a tile of it serves its rows and its columns: with
F_ij = exp(R_ij - shift) = F_ji and Z_i = sum_j F_ij, T_ij = F_ij / Z_i and T_ji = F_ij / Z_j.
"""

from __future__ import annotations

from torch import Tensor

from mmpretrain.losses.tiled.sweep import Keys, Reference, Sweep
from mmpretrain.losses.tiled.target_rules import MASS, SIM
from mmpretrain.losses.tiled.tile import Tile


def add_soft_targets(
    sweep: Sweep, number: int, tile: Tile, keys: Keys, similarities: Tensor, rows: Tensor, columns: Tensor
) -> None:
    """Add F and F S of a tile [t, c] to mass and sim of ``rows`` and ``columns``; ``similarities`` hide nothing yet."""
    weights = resemblance(sweep, number, tile, keys)
    weighted = weights * similarities
    for sums, dim in ((rows, 1), (columns, 0)):
        sums[:, MASS] += weights.sum(dim)
        sums[:, SIM] += weighted.sum(dim)


def subtract_soft_targets(
    sweep: Sweep, number: int, tile: Tile, keys: Keys, gradient: Tensor, rows: Tensor, columns: Tensor
) -> Tensor:
    """``gradient -= F (rows_i + columns_j)`` for shares rows [t], columns [c] (1 / Z); F [t, c]."""
    weights = resemblance(sweep, number, tile, keys)
    gradient -= weights * (rows[:, None] + columns)
    return weights


def reference_gradient(
    weights: Tensor, both: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]
) -> Tensor:
    """The loss's derivative by R_ij and by R_ji, added up: [t, c].

    weights: F. both: U = S_ij + S_ji. rows, columns: shares (1 / Z), and sum_j T_ij U_ij. From
    ``dT_ij = -U_ij`` and the softmax's ``dR_ij = T_ij (dT_ij - sum_k T_ik dT_ik)``.
    """
    share, mean = rows
    column_share, column_mean = columns
    return -weights * (share[:, None] * (both - mean[:, None]) + column_share * (both - column_mean))


def resemblance(sweep: Sweep, number: int, tile: Tile, keys: Keys) -> Tensor:
    """F [t, c]: 0 for other copies of a row's sample, and where a sample lacks one of its sides."""
    term = sweep.setup.terms[number]
    reference = term.reference
    assert isinstance(reference, Reference)
    alike = sweep.product("resemblance", reference.side, reference.side, tile, keys)
    hidden = None
    if term.contents is not None and keys.ids is not None:
        hidden = term.contents[0][tile.rows, None] == keys.ids[tile.columns]
        tile.counterparts(hidden).fill_(False)
    if term.valid is not None:
        paired = term.valid[tile.rows].all(dim=1)[:, None] & keys.valid[number][tile.columns].all(dim=1)
        hidden = ~paired if hidden is None else hidden | ~paired
    weights = sweep.pointwise.exponentials(alike, sweep.shift(reference.bound))[0]
    return weights if hidden is None else weights.masked_fill_(hidden, 0)
