"""Shapes and textures of Trifeatures as formulas (Hermann & Lampinen 2020, as the code of arXiv 2409.07402 draws them).

Shapes live in a box of 128 x 128 units, textures repeat with a period of 10. Units are unrelated to pixels.
"""

from __future__ import annotations

import numpy as np

BOX = 128
CELL = 10
STREAK = 7  # length of a drop of rain, in units


def shape_mask(name: str) -> np.ndarray:
    """bool [128, 128], where the shape is."""
    i, j = np.mgrid[:BOX, :BOX]
    across = np.abs(j - 64)
    match name:
        case "square":
            return np.ones((BOX, BOX), bool)
        case "circle":
            return (i + 0.5 - 64) ** 2 + (j + 0.5 - 64) ** 2 < 64**2
        case "triangle":
            return across - i // 2 < 1
        case "plus":
            return (across <= 21) | (np.abs(i - 64) <= 21)
        case "tee":
            return (across <= 21) | (i < 42)
        case "rhombus":
            return (j - 64 + i // 2 > 0) & (j - 64 + i // 2 < 64)
        case "trapezoid":
            return _between(j, i // 3.1)
        case "pentagon":
            return np.where(i < 51, across < 1 + 1.25 * i, _between(j, (i - 51) // 3.1))
        case "fivesquare":
            thirds = np.digitize(np.arange(BOX), (42, 85))
            return (thirds[:, None] + thirds[None, :]) % 2 == 0
        case _:
            return _star(i, j)


def _between(j: np.ndarray, margin: np.ndarray) -> np.ndarray:
    return (margin < j) & (j < BOX - margin)


def _star(i: np.ndarray, j: np.ndarray) -> np.ndarray:
    top = (i < 51) & (np.abs(j - 64) < 1 + i // 4)
    arms = (i >= 51) & (i < 76) & _between(j, 2.4 * (i - 51))
    inner, outer = 42.24 - 0.43 * (i - 70), 79.36 - 1.05 * (i - 70)
    left, right = (inner < j) & (j < outer), (inner < BOX - j) & (BOX - j < outer)
    return top | arms | ((i >= 70) & (left | right))


def published_texture(name: str, side: int, offsets: tuple[int, int], draw: np.random.Generator) -> np.ndarray:
    """bool [side, side], cells of 10 pixels moved by ``offsets`` (down, right) in whole pixels."""
    down, right = np.mgrid[:side, :side] + np.array(offsets)[:, None, None]
    y, x = down % CELL, right % CELL
    match name:
        case "solid":
            return np.ones((side, side), bool)
        case "stripes":
            return y < 3
        case "grid":
            return (y < 3) | (x < 3)
        case "hexgrid":
            slant = (1.73 * down).astype(np.int64)
            return ((right + slant) % CELL < 2) | ((right - slant) % CELL < 2) | (y < 2)
        case "dots":
            return (y - 5) ** 2 + (x - 5) ** 2 < 16
        case "noise":
            return draw.random((side, side)) < 0.5
        case "triangles":
            return y // 2 > np.abs(x - 5)
        case "zigzags":
            x = np.where(down // CELL % 2, CELL - 1 - x, x)
            return (y // 2 < x) & (x < 5 + y // 2)
        case "rain":
            starts = draw.random((side, side)) < 0.05
            drops = [np.pad(starts, ((late, 0), (0, 0)))[:side] for late in range(STREAK)]
            return np.logical_or.reduce(drops)
        case _:
            return _pluses(down // CELL % 2 == 0, y, x)


def _pluses(even: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    bar, near = np.abs(y - 5) < 1.5, np.abs(x - 5) < 1.5
    return np.where(even, near | bar, (x < 1.5) | (10 - x < 1.5) | (bar & ~near))


def coarse_texture(name: str, down: np.ndarray, right: np.ndarray) -> np.ndarray:
    """bool like ``down`` and ``right`` (positions in units, real numbers), for images of few pixels.

    The five textures that can still be told apart there, most of them with other proportions than the published ones;
    they cover 100, 35, 75, 28 and 50 % of the area.
    """
    y, x = down % CELL, right % CELL
    match name:
        case "solid":
            return np.ones(np.shape(down), bool)
        case "stripes":
            return y < 3.5
        case "grid":
            return (y < 5) | (x < 5)
        case "dots":
            return (y - 5) ** 2 + (x - 5) ** 2 < 9
        case _:  # zigzags
            x = np.where(down // CELL % 2 == 1, CELL - x, x)
            return (y // 2 < x) & (x < 5 + y // 2)
