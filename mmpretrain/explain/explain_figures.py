"""Pictures of explained samples: per modality the input, and over it what is common and what is its own.

Blue is common, orange a modality's own, as in the information report. Every map is on a scale of its own: what matters
is where it lies. Shapes: c channels, h x w pixels, n tokens, T time steps, d features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL.Image import Image

from mmpretrain.config.kind import Kind
from mmpretrain.explain.attribution_maps import ExplainedSide
from mmpretrain.explain.explain import Explained, Explanation
from mmpretrain.figures import COLORS, FAINT, INK

COMMON, OWN = COLORS[0], COLORS[1]
STRONGEST = 99.5  # percentile of a map that is drawn in full color
MOST_BARS = 12
CHARACTERS, LINES = 30, 8  # of a text's panel, at most
WAVE_BINS = 400
_AXES = {False: ("time step", "feature"), True: ("frame", "band")}


def draw_explained(one: Explained, explanation: Explanation, features: Mapping[str, Sequence[str]]) -> Figure:
    """One sample: a row per modality, its input, the common map and its own. features: names, of vectors."""
    first, second = explanation.decomposition.pair
    figure = Figure(figsize=(9.6, 0.5 + sum(_height(side) for side in one.sides.values())), layout="constrained")
    columns = explanation.scores.columns
    common, cosine = (columns[name][one.row] for name in ("common", "common_cosine"))
    figure.suptitle(
        f"{one.key} · common score {common:.2f} (mean {columns['common'].mean():.2f}, unrelated pairs"
        f" {explanation.scores.mismatched.mean():.2f}) · cosine {cosine:.2f}",
        fontsize=10.5,
        x=0.01,
        ha="left",
        color=INK,
    )
    heights = [_height(one.sides[name]) for name in (first, second)]
    grid = figure.subplots(2, 3, squeeze=False, height_ratios=heights)
    for axes, name, other in zip(grid, (first, second), (second, first), strict=True):
        side, names = one.sides[name], features.get(name, ())
        draw_input(axes[0], side)
        draw_map(axes[1], side, side.common, COMMON, names)
        draw_map(axes[2], side, side.individual, OWN, names)
        energy = f"{100 * columns[f'energy_{name}'][one.row]:.0f} %"
        titles = (name, f"{name}: common with {other}", f"{name}: its own ({energy})")
        for axis, title, color in zip(axes, titles, (INK, COMMON, OWN), strict=True):
            axis.set_title(title, fontsize=9.5, loc="left", color=color)
            axis.set_anchor("W")
    return figure


def draw_input(axes: Axes, side: ExplainedSide) -> None:
    """The sample itself."""
    if isinstance(side.raw, Image):
        axes.imshow(_grey_or_rgb(side.raw), cmap="gray", interpolation="nearest")
        _no_frame(axes)
    elif isinstance(side.raw, str):
        _draw_tokens(axes, side, np.zeros(len(side.tokens)), INK)
    elif side.raw.ndim == 2:
        _draw_sequence(axes, side.raw, "Greys", _AXES[side.kind is Kind.audio])
    elif side.kind is Kind.audio:
        _draw_wave(axes, side.raw, INK)
    else:
        axes.bar(np.arange(len(side.raw)), side.raw, width=1.0, color=FAINT)
        axes.set_xlabel("feature", fontsize=8.5)
        open_frame(axes)


def draw_map(axes: Axes, side: ExplainedSide, values: np.ndarray, color: str, names: Sequence[str]) -> None:
    """An attribution (``side.common`` or ``side.individual``) over the sample; names: of a vector's features."""
    if isinstance(side.raw, Image):
        axes.imshow(overlay(side.raw, strength(values), color), interpolation="nearest")
        _no_frame(axes)
    elif isinstance(side.raw, str):
        # The tokens that the tokenizer adds often outweigh all words; these set the scale.
        _draw_tokens(axes, side, strength(values.T, ~np.array(side.special)), color)
    elif side.raw.ndim == 2:
        _draw_sequence(axes, values, "PuOr_r", _AXES[side.kind is Kind.audio])
    elif side.kind is Kind.audio:
        _draw_wave(axes, np.abs(values), color)
    else:
        draw_bars(axes, values, color, names)


def strength(values: np.ndarray, scaling: np.ndarray | None = None) -> np.ndarray:
    """``values`` [c, ...] as lengths over c, [...], in 0 to 1: 1 is (nearly) the strongest of the map, or of those
    where ``scaling`` (bool, [...]) is true."""
    lengths = np.sqrt(np.square(values).sum(axis=0))
    known = lengths if scaling is None or not scaling.any() else lengths[scaling]
    return np.clip(lengths / max(np.percentile(known, STRONGEST), 1e-300), 0, 1)


def overlay(image: Image, heat: np.ndarray, color: str) -> np.ndarray:
    """float [h, w, 3]: the image, as encoders see it, grey and pale, with ``color`` where ``heat`` [h, w] is strong."""
    grey = np.asarray(image.convert("L"), dtype=np.float64) / 255
    pale = np.repeat(0.72 + 0.28 * grey[..., None], 3, axis=2)
    alpha = heat[..., None]
    return (1 - alpha) * pale + alpha * np.array(to_rgb(color))


def draw_bars(axes: Axes, values: np.ndarray, color: str, names: Sequence[str] = ()) -> None:
    """The strongest of ``values`` [d], signed, strongest first. names: [d] of the features, or none."""
    chosen = np.argsort(-np.abs(values), kind="stable")[:MOST_BARS]
    axes.barh(np.arange(len(chosen)), values[chosen], height=0.75, color=color, alpha=0.85)
    labels = [names[i] if len(names) == len(values) else f"feature {i}" for i in chosen.tolist()]
    axes.set_yticks(np.arange(len(chosen)), labels=labels, fontsize=7)
    axes.set_ylim(len(chosen) - 0.4, -0.6)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.locator_params(axis="x", nbins=4)
    open_frame(axes)


def draw_scores(explanation: Explanation) -> Figure:
    """All scores of the split: the common score of pairs and of unrelated samples, and every modality's own energy."""
    figure = Figure(figsize=(9.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    columns, mismatched = explanation.scores.columns, explanation.scores.mismatched
    both = np.concatenate([columns["common"], mismatched])
    bins = np.linspace(np.percentile(both, 0.2), np.percentile(both, 99.8), 41)
    for values, color, label in ((mismatched, FAINT, "unrelated"), (columns["common"], COMMON, "pairs")):
        left.hist(values, bins=bins, color=color, alpha=0.6, label=f"{label}: mean {values.mean():.2f}")
        left.axvline(values.mean(), color=color, linewidth=1.6)
    left.set_xlabel("common score", fontsize=9)
    left.set_title("What two samples share", fontsize=10.5, loc="left", color=INK)
    for color, name in zip((COLORS[2], COLORS[3]), explanation.decomposition.pair, strict=True):
        shares = columns[f"energy_{name}"]
        label = f"{name}: mean {100 * shares.mean():.0f} %"
        right.hist(shares, bins=np.linspace(0, max(1, shares.max()), 41), color=color, alpha=0.55, label=label)
    right.set_xlabel("its own share of the embedding", fontsize=9)
    right.set_title("What is a modality's own", fontsize=10.5, loc="left", color=INK)
    for axes in (left, right):
        axes.set_ylabel("samples", fontsize=9)
        axes.legend(fontsize=8, frameon=False, loc="upper right")
        open_frame(axes)
    return figure


def open_frame(axes: Axes) -> None:
    """Axes without a frame on top and on the right."""
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def _height(side: ExplainedSide) -> float:
    """Inches of a sample's row of three panels, each about three wide."""
    if isinstance(side.raw, Image):
        rows, columns = side.common.shape[-2:]
        return 0.35 + min(3.0, 3.0 * rows / columns)
    if isinstance(side.raw, str):
        return 0.6 + 0.26 * min(LINES, _token_places(side.tokens)[-1][1] + 1)
    return 2.4


def _grey_or_rgb(image: Image) -> np.ndarray:
    return np.asarray(image.convert("L" if image.mode in ("L", "1") else "RGB"))


def _token_places(tokens: Sequence[str]) -> list[tuple[int, int]]:
    """(column, line) of every token, left to right and top to bottom, in characters."""
    places, column, line = [], 0, 0
    for token in tokens:
        if column and column + len(token) + 1 > CHARACTERS:
            column, line = 0, line + 1
        places.append((column, line))
        column += len(token) + 1
    return places


def _draw_tokens(axes: Axes, side: ExplainedSide, heat: np.ndarray, color: str) -> None:
    """Tokens on colored ground, as many as there is room for; grey: those that the tokenizer added."""
    places = _token_places(side.tokens)
    for (column, line), token, special, alpha in zip(places, side.tokens, side.special, heat.tolist(), strict=True):
        width = len(token) + 0.7
        ground = Rectangle((column, line - 0.38), width, 0.76, color=color, alpha=0.85 * alpha, linewidth=0)
        ink = "white" if alpha > 0.6 else FAINT if special else INK
        if line < LINES:
            axes.add_patch(ground)
            axes.text(column + width / 2, line, token, ha="center", va="center", fontsize=8.5, color=ink)
    axes.set_xlim(-0.4, CHARACTERS + 0.4)
    axes.set_ylim(min(places[-1][1], LINES - 1) + 0.7, -0.7)
    _no_frame(axes)


def _draw_wave(axes: Axes, values: np.ndarray, color: str) -> None:
    """A waveform or its map [n]: the span of the values in each of ``WAVE_BINS`` parts of the time."""
    parts = np.array_split(values, min(WAVE_BINS, len(values)))
    place = np.linspace(0, len(values), len(parts))
    axes.fill_between(place, [part.min() for part in parts], [part.max() for part in parts], color=color, linewidth=0)
    axes.set_xlabel("sample", fontsize=8.5)
    open_frame(axes)


def _draw_sequence(axes: Axes, values: np.ndarray, colors: str, names: tuple[str, str]) -> None:
    """[T, d] as a picture: time from left to right, a line per feature; a diverging map is centered at 0. names: of the
    axes."""
    origin: Literal["upper", "lower"] = "lower" if names == _AXES[True] else "upper"  # deep tones lie below
    largest = max(float(np.abs(values).max()), 1e-300)
    limits = (None, None) if colors == "Greys" else (-largest, largest)
    axes.imshow(
        values.T, cmap=colors, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest", origin=origin
    )
    axes.set_xlabel(names[0], fontsize=8.5)
    axes.set_ylabel(names[1], fontsize=8.5)
    axes.tick_params(labelsize=8, color=FAINT)


def _no_frame(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)
