"""Rendering of Trifeatures images, in two ways.

Published: a mask of 128 pixels, turned with bilinear interpolation, is pasted at random into 224 x 224 pixels; the
texture is turned by an angle of its own. Coarse, for few pixels: every pixel is the mean of 3 x 3 points, each mapped
back into the units of shape and texture. Angles are whole degrees from -45 to 44, places and phases are random.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from shards.trifeatures_pairs import COLORS, Images, Levels
from shards.trifeatures_shapes import BOX, CELL, coarse_texture, published_texture, shape_mask

PUBLISHED_SIDE = 224
SUBSAMPLES = 3
COARSE_SHAPE, COARSE_CELL = 0.7, 0.2  # share of the image's side
CHUNK = 256


def render_published(images: Images, levels: Levels, draw: np.random.Generator, side: int) -> Iterator[np.ndarray]:
    """uint8 [side, side, 3] of each image, averaged down from 224 x 224 unless ``side`` is 224."""
    masks = [shape_mask(name).astype(np.float32) for name in levels.shapes]
    rgb = np.array([COLORS[name] for name in levels.colors], np.float32)
    for shape, texture, color in zip(images.shape, images.texture, images.color, strict=True):
        placed = _place(_turn(masks[shape], int(draw.integers(-45, 45))), draw)
        offsets = int(draw.integers(CELL)), int(draw.integers(CELL))
        whole = published_texture(levels.textures[texture], 2 * PUBLISHED_SIDE, offsets, draw)
        alpha = placed * _turned_center(whole, int(draw.integers(-45, 45)))
        pixels = _color(alpha, rgb[color])
        if side != PUBLISHED_SIDE:
            pixels = np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX))
        yield pixels


def render_coarse(images: Images, levels: Levels, draw: np.random.Generator, side: int) -> Iterator[np.ndarray]:
    """uint8 [side, side, 3] of each image."""
    masks = np.stack([shape_mask(name) for name in levels.shapes])
    rgb = np.array([COLORS[name] for name in levels.colors], np.float32)
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        shape, texture, color = images.shape[rows], images.texture[rows], images.color[rows]
        inside = _coarse_shapes(masks[shape], side, draw) & _coarse_textures(texture, levels, side, draw)
        points = inside.reshape(len(shape), side, SUBSAMPLES, side, SUBSAMPLES)
        yield from _color(points.mean(axis=(2, 4), dtype=np.float32), rgb[color, None, None])


def _color(alpha: np.ndarray, color: np.ndarray) -> np.ndarray:
    """uint8 [..., side, side, 3] of alpha [..., side, side] on a grey ground."""
    alpha = alpha[..., None]
    return ((alpha * color + (1 - alpha) * 0.5) * 255).astype(np.uint8)


def _points(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Places (down, right) of the sub-samples from the middle of the image, in pixels: [3 side, 3 side] each."""
    centers = (np.arange(SUBSAMPLES * side) + 0.5) / SUBSAMPLES - side / 2
    down, right = np.meshgrid(centers, centers, indexing="ij")
    return down.astype(np.float32), right.astype(np.float32)


def _turned_points(side: int, draw: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
    """cos and sin of ``count`` random angles, [count, 1, 1] each, and the points of :func:`_points`."""
    angles = np.deg2rad(draw.integers(-45, 45, size=(count, 1, 1)).astype(np.float32))
    return np.cos(angles), np.sin(angles), *_points(side)


def _coarse_shapes(masks: np.ndarray, side: int, draw: np.random.Generator) -> np.ndarray:
    """bool [n, 3 side, 3 side] of masks [n, 128, 128], turned and placed so that their boxes fit inside."""
    cos, sin, down, right = _turned_points(side, draw, len(masks))
    half = COARSE_SHAPE * side / 2 * (np.abs(cos) + np.abs(sin))
    place = draw.uniform(-1, 1, size=(2, len(masks), 1, 1)).astype(np.float32) * (side / 2 - half)
    down, right = down - place[0], right - place[1]
    units = BOX / (COARSE_SHAPE * side)
    row = np.floor((cos * down + sin * right) * units + BOX / 2).astype(np.int64)
    column = np.floor((cos * right - sin * down) * units + BOX / 2).astype(np.int64)
    inside = (row >= 0) & (row < BOX) & (column >= 0) & (column < BOX)
    number = np.arange(len(masks))[:, None, None]
    return inside & masks[number, row.clip(0, BOX - 1), column.clip(0, BOX - 1)]


def _coarse_textures(textures: np.ndarray, levels: Levels, side: int, draw: np.random.Generator) -> np.ndarray:
    """bool [n, 3 side, 3 side] of textures [n] (numbers in the levels)."""
    cos, sin, down, right = _turned_points(side, draw, len(textures))
    phase = draw.integers(CELL, size=(2, len(textures), 1, 1))
    units = CELL / (COARSE_CELL * side)
    y, x = (cos * down + sin * right) * units + phase[0], (cos * right - sin * down) * units + phase[1]
    found = np.empty(y.shape, bool)
    for number in np.unique(textures):
        rows = textures == number
        found[rows] = coarse_texture(levels.textures[number], y[rows], x[rows])
    return found


def _turn(mask: np.ndarray, angle: int) -> np.ndarray:
    """A mask turned by ``angle`` degrees with bilinear interpolation, on a square that holds all of it."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    grown = int(np.ceil(len(mask) * (abs(cos) + abs(sin)) - 1e-9))
    row, column = _back(grown, cos, sin, len(mask))
    padded = np.pad(mask, 1)  # what lies beside the mask counts as nothing
    row, column = row.clip(-1, len(mask)) + 1, column.clip(-1, len(mask)) + 1
    top, left = (np.floor(v).astype(np.int64).clip(0, len(mask)) for v in (row, column))
    down, right = row - top, column - left
    upper = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    lower = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    return (upper * (1 - down) + lower * down).astype(np.float32)


def _place(mask: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The mask somewhere inside an image of nothing."""
    image = np.zeros((PUBLISHED_SIDE, PUBLISHED_SIDE), np.float32)
    top, left = draw.integers(PUBLISHED_SIDE - len(mask) + 1, size=2)
    image[top : top + len(mask), left : left + len(mask)] = mask
    return image


def _turned_center(texture: np.ndarray, angle: int) -> np.ndarray:
    """The central 224 x 224 pixels of a texture of twice that side, turned by ``angle`` degrees (nearest pixel)."""
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    row, column = _back(PUBLISHED_SIDE, cos, sin, len(texture))
    return texture[np.rint(row).astype(np.int64), np.rint(column).astype(np.int64)]


def _back(side: int, cos: float, sin: float, source: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a turned [side, side] image come from in a [source, source] one: rows, columns (real)."""
    centered = np.arange(side) - (side - 1) / 2
    down, right = np.meshgrid(centered, centered, indexing="ij")
    middle = (source - 1) / 2
    return cos * down + sin * right + middle, cos * right - sin * down + middle
