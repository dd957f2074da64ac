"""One modality of an explained sample: its input, and over it the map of a part.

The ground is white, so that a color is the map's alone; pictures show by their contours, features over time by a pale
grey. How strong a color is, or how long a bar, is the same share of the maps everywhere in a row (map_shares.py); a
part without weight has none. Shapes: as in map_shares.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image, ImageFilter

from mmpretrain.config.kind import Kind
from mmpretrain.explain.attribution_maps import ExplainedSide
from mmpretrain.explain.map_shares import PartMap
from mmpretrain.figures import FAINT, INK

MOST_BARS = 12
CHARACTERS, LINES = 30, 8  # of a text's panel, at most
WAVE_BINS, TIME_BARS = 400, 40
CONTOUR_SIDE = 256  # pixels that a picture's longer side has at most, and small ones have, when its contours are drawn
PALE = "#e9e9e9"
AXES = {False: ("time step", "feature"), True: ("frame", "band")}


def draw_input(axes: Axes, side: ExplainedSide) -> None:
    """The sample itself."""
    if isinstance(side.raw, Image.Image):
        grey = side.raw.convert("L" if side.raw.mode in ("L", "1") else "RGB")
        axes.imshow(np.asarray(grey), cmap="gray", interpolation="nearest")
        no_frame(axes)
    elif isinstance(side.raw, str):
        _draw_tokens(axes, side, np.zeros(len(side.tokens)), None, INK)
    elif side.raw.ndim == 2:
        _draw_over_time(axes, side, _paled(side.raw, 0.0))
    elif side.kind is Kind.audio:
        _draw_wave(axes, side.raw, INK)
        _open(axes)
    else:
        axes.bar(np.arange(len(side.raw)), side.raw, width=1.0, color=FAINT)
        _open(axes)


def draw_part(
    axes: Axes, side: ExplainedSide, part: PartMap, top: float, color: str, names: Sequence[str] = ()
) -> None:
    """A part's map over the sample. top: the share where the row's scale ends. names: of a vector's features."""
    heat = np.zeros_like(part.shares) if part.empty else np.clip(part.shares / top, 0, 1)
    if isinstance(side.raw, Image.Image):
        axes.imshow(colored(np.ones_like(heat), heat, color), interpolation="nearest")
        _draw_contours(axes, side.raw)
        no_frame(axes)
    elif isinstance(side.raw, str):
        _draw_tokens(axes, side, heat, None if part.empty else part.shares, color)
    elif side.raw.ndim == 2:
        _draw_over_time(axes, side, colored(_paled(side.raw, 0.82), heat, color))
    elif side.kind is Kind.audio:
        _draw_time_bars(axes, side.raw, part, color)
    else:
        _draw_feature_bars(axes, part, top, color, names)
    if part.empty:
        shown = axes.text(0.5, 0.5, "no weight", transform=axes.transAxes, fontsize=9, color=FAINT)
        shown.set(ha="center", va="center", bbox={"facecolor": "white", "edgecolor": "none", "pad": 2})


def colored(ground: np.ndarray, heat: np.ndarray, color: str) -> np.ndarray:
    """float [h, w, 3]: a grey ``ground`` [h, w] with ``color`` where ``heat`` [h, w], 0 to 1, is strong."""
    alpha = heat[..., None]
    return (1 - alpha) * ground[..., None] + alpha * np.array(to_rgb(color))


def panel_height(side: ExplainedSide) -> float:
    """Inches of a modality's row of three panels, each about three wide, sentences aside."""
    if isinstance(side.raw, Image.Image):
        rows, columns = side.common.shape[-2:]
        return min(2.8, 2.8 * rows / columns)
    if isinstance(side.raw, str):
        return 0.55 + 0.26 * min(LINES, _token_places(_words(side))[-1][1] + 1)
    return 2.0


def no_frame(axes: Axes) -> None:
    """Axes with a thin frame and no ticks."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)


def _open(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, color=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def _draw_contours(axes: Axes, image: Image.Image) -> None:
    """Where the picture's brightness crosses a third and two thirds of its range, over its h x w pixels."""
    width, height = image.size
    scale = CONTOUR_SIDE / max(width, height)
    size = (max(2, round(scale * width)), max(2, round(scale * height)))
    grey = image.convert("L").resize(size, Image.Resampling.BILINEAR).filter(ImageFilter.GaussianBlur(1.5))
    shades = np.asarray(grey, dtype=np.float64)
    low, high = float(shades.min()), float(shades.max())
    if high > low:
        levels = [low + (high - low) * part for part in (1 / 3, 2 / 3)]
        across = (np.arange(size[0]) + 0.5) / size[0] * width - 0.5
        down = (np.arange(size[1]) + 0.5) / size[1] * height - 0.5
        axes.contour(across, down, shades, levels=levels, colors=["#9a9a9a", "#4d4d4d"], linewidths=0.8)


def _paled(values: np.ndarray, lightest: float) -> np.ndarray:
    """float [T, d]: grey from 1 (the smallest value) down to ``lightest`` (the largest)."""
    spread = max(float(np.ptp(values)), 1e-300)
    return 1 - (1 - lightest) * (values - values.min()) / spread


def _draw_over_time(axes: Axes, side: ExplainedSide, shown: np.ndarray) -> None:
    """[T, d] or [T, d, 3] as a picture: time from left to right, a line per feature."""
    names = AXES[side.kind is Kind.audio]
    origin: Literal["upper", "lower"] = "lower" if side.kind is Kind.audio else "upper"  # deep tones lie below
    turned = np.swapaxes(shown, 0, 1)
    axes.imshow(turned, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest", origin=origin)
    axes.set_ylabel(names[1], fontsize=8)
    axes.tick_params(labelsize=8, color=FAINT)
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.6)


def _draw_wave(axes: Axes, values: np.ndarray, color: str, height: float = 1.0) -> None:
    """A waveform [n], the span of its values in each of ``WAVE_BINS`` parts of the time, over 0 to 1."""
    parts = np.array_split(values, min(WAVE_BINS, len(values)))
    place = np.linspace(0, 1, len(parts))
    spread = height / max(float(np.abs(values).max()), 1e-300)
    low, high = ([spread * float(f(part)) for part in parts] for f in (np.min, np.max))
    axes.fill_between(place, low, high, color=color, linewidth=0)
    axes.set_xlim(0, 1)


def _draw_time_bars(axes: Axes, wave: np.ndarray, part: PartMap, color: str) -> None:
    """The shares of a waveform's map in each of ``TIME_BARS`` parts of the time, in front of the sound."""
    sums = np.array([float(piece.sum()) for piece in np.array_split(part.shares, min(TIME_BARS, len(part.shares)))])
    tallest = max(float(sums.max()), 1e-300)
    _draw_wave(axes, wave, PALE, tallest)
    width = 1 / len(sums)
    heights = np.zeros_like(sums) if part.empty else sums
    axes.bar((np.arange(len(sums)) + 0.5) * width, 100 * heights, width=0.85 * width, color=color, alpha=0.85)
    _open(axes)


def _draw_feature_bars(axes: Axes, part: PartMap, top: float, color: str, names: Sequence[str]) -> None:
    """The strongest features' shares, signed, strongest first, in percent."""
    _open(axes)
    axes.axvline(0, color=FAINT, linewidth=0.8)
    axes.set_xlim(-105 * top, 105 * top)
    axes.locator_params(axis="x", nbins=5)
    if part.empty:
        axes.set_yticks([])
        return
    chosen = np.argsort(-part.shares, kind="stable")[:MOST_BARS]
    axes.barh(np.arange(len(chosen)), 100 * part.signed[chosen], height=0.75, color=color, alpha=0.85)
    labels = [names[i] if len(names) == len(part.shares) else f"feature {i}" for i in chosen.tolist()]
    axes.set_yticks(np.arange(len(chosen)), labels=labels, fontsize=7)
    axes.set_ylim(len(chosen) - 0.4, -0.6)


def _words(side: ExplainedSide) -> list[str]:
    return [token for token, special in zip(side.tokens, side.special, strict=True) if not special] or [""]


def _token_places(tokens: Sequence[str]) -> list[tuple[int, int]]:
    """(column, line) of every token, left to right and top to bottom, in characters."""
    places, column, line = [], 0, 0
    for token in tokens:
        if column and column + len(token) + 1 > CHARACTERS:
            column, line = 0, line + 1
        places.append((column, line))
        column += len(token) + 1
    return places


def _draw_tokens(axes: Axes, side: ExplainedSide, heat: np.ndarray, shares: np.ndarray | None, color: str) -> None:
    """Words on colored ground, as many as there is room for; below a line, and outside of the scale, the tokens that
    the tokenizer added, with their shares."""
    special = np.array(side.special, dtype=bool)
    words, strengths = _words(side), heat[~special].tolist() or [0.0]
    places = _token_places(words)
    for (column, line), token, alpha in zip(places, words, strengths, strict=True):
        width = len(token) + 0.7
        if line < LINES:
            ground = Rectangle((column, line - 0.38), width, 0.76, color=color, alpha=0.85 * alpha, linewidth=0)
            axes.add_patch(ground)
            ink = "white" if alpha > 0.6 else INK
            axes.text(column + width / 2, line, token, ha="center", va="center", fontsize=8.5, color=ink)
    last = min(places[-1][1], LINES - 1)
    if special.any():
        axes.plot([0, CHARACTERS], [last + 0.62] * 2, color=PALE, linewidth=0.8)
        axes.text(0, last + 1.05, _added(side, special, shares), va="center", fontsize=7.5, color=FAINT)
    axes.set_xlim(-0.4, CHARACTERS + 0.4)
    axes.set_ylim(last + (1.5 if special.any() else 0.7), -0.7)
    no_frame(axes)


def _added(side: ExplainedSide, special: np.ndarray, shares: np.ndarray | None) -> str:
    """The tokenizer's own tokens, each once, with the sum of its shares."""
    found: dict[str, float] = {}
    for place in np.flatnonzero(special).tolist():
        token = side.tokens[place]
        found[token] = found.get(token, 0.0) + (0.0 if shares is None else float(shares[place]))
    named = (token if shares is None else f"{token} {100 * share:.0f} %" for token, share in found.items())
    return "added by the tokenizer: " + ", ".join(named)
