"""Pictures of explained samples: per modality the input, and over it what is common and what is its own.

Blue is common, orange a modality's own, as in the information report. Both maps of a modality are on one scale, and
what the strength of a color means stands beside them: the share of both maps that falls there, where a map as a whole
weighs what its part does in the sample's embedding (map_shares.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from mmpretrain.config.kind import Kind
from mmpretrain.explain.attribution_maps import ExplainedSide
from mmpretrain.explain.explain import Explained, Explanation
from mmpretrain.explain.map_shares import PartMap, described, largest, part_maps
from mmpretrain.explain.opened import tower_words
from mmpretrain.explain.sanity import FRACTIONS, Check, Sanity
from mmpretrain.explain.side_figures import AXES, colored, draw_input, draw_part, no_frame, panel_height
from mmpretrain.figures import COLORS, FAINT, INK, legend_below

COMMON, OWN = COLORS[0], COLORS[1]
SENTENCE, WHOLE = 46, 150  # characters of a line below a panel, and across the picture
BELOW = 0.85  # inches of the title of a panel and of the sentence below it
_NOUNS = {
    Kind.image: "picture",
    Kind.text: "text",
    Kind.vector: "vector",
    Kind.sequence: "sequence",
    Kind.audio: "sound",
}


def draw_explained(one: Explained, explanation: Explanation, features: Mapping[str, Sequence[str]]) -> Figure:
    """One sample: a row per modality, its input, the common map and its own. features: names, of vectors."""
    first, second = explanation.decomposition.pair
    heights = [panel_height(one.sides[name]) + BELOW for name in (first, second)]
    doubtful = 0.3 * len(explanation.sanity.doubts) if explanation.sanity else 0.0
    figure = Figure(figsize=(10.4, 0.75 + doubtful + sum(heights)), layout="constrained")
    columns = explanation.scores.columns
    common, cosine = (columns[name][one.row] for name in ("common", "common_cosine"))
    title = (
        f"{one.key} · common score {common:.2f} (mean {columns['common'].mean():.2f}, unrelated pairs"
        f" {explanation.scores.mismatched.mean():.2f}) · cosine {cosine:.2f}"
    )
    lines = [title, *([f"embedded by: {tower_words(explanation.towers)}"] if explanation.towers else [])]
    doubts = explanation.sanity.doubts if explanation.sanity else []
    lines += [fill(f"Doubt: {doubt}.", WHOLE, subsequent_indent="    ") for doubt in doubts]
    figure.suptitle("\n".join(lines), fontsize=9.5, x=0.01, ha="left", color=INK)
    grid = figure.subplots(2, 4, squeeze=False, height_ratios=heights, width_ratios=[1, 1, 1, 0.07])
    for axes, name, other in zip(grid, (first, second), (second, first), strict=True):
        own = float(columns[f"own_{name}"][one.row])
        draw_side(axes.tolist(), one.sides[name], own, (name, other), features.get(name, ()))
    return figure


def draw_side(
    axes: Sequence[Axes], side: ExplainedSide, own: float, pair: tuple[str, str], names: Sequence[str]
) -> None:
    """A row of four axes: input, common map, own map, scale. own: weight of the own part. pair: the modality's name and
    the other one's. names: of a vector's features."""
    name, other = pair
    maps = part_maps(side, own)
    top = largest(side, maps)
    draw_input(axes[0], side)
    _label(axes[0], name, INK, side, _input_sentence(side))
    parts = ((maps[0], f"common with {other}", COMMON, "Blue"), (maps[1], "its own", OWN, "Orange"))
    for panel, (part, what, color, word) in zip(axes[1:3], parts, strict=True):
        draw_part(panel, side, part, top, color, names)
        _label(
            panel, f"{name}: {what} ({100 * part.weight:.0f} %)", color, side, described(side, part, what, word, names)
        )
    _draw_scale(axes[3], side, maps, top)
    if isinstance(side.raw, np.ndarray) and side.raw.ndim == 1 and side.kind is Kind.audio:
        tallest = max(panel.get_ylim()[1] for panel in axes[1:3])
        for panel in axes[1:3]:
            panel.set_ylim(-tallest, tallest)


def _label(axes: Axes, title: str, color: str, side: ExplainedSide, sentence: str) -> None:
    """The title, and below what is seen: the unit of the axis, if there is one, and a sentence."""
    axes.set_title(title, fontsize=9.5, loc="left", color=color)
    axes.set_anchor("W")
    unit = ""
    if isinstance(side.raw, np.ndarray):
        over_time = AXES[side.kind is Kind.audio][0] if side.raw.ndim == 2 else "part of the time"
        unit = over_time if side.raw.ndim == 2 or side.kind is Kind.audio else ""
        if not unit:
            unit = "feature" if color == INK else "percent of both maps, signed"
    text = "\n".join([*([unit] if unit else []), fill(sentence, SENTENCE)])
    axes.set_xlabel(text, fontsize=8, color=INK, loc="left")


def _input_sentence(side: ExplainedSide) -> str:
    noun = _NOUNS[side.kind]
    if side.kind is Kind.image:
        rows, columns = side.common.shape[-2:]
        return f"The picture as the encoder sees it, {columns} x {rows} pixels."
    if side.kind is Kind.text:
        return "The text in the pieces that the tokenizer cuts it into."
    assert isinstance(side.raw, np.ndarray)
    size = " x ".join(str(length) for length in side.raw.shape)
    return f"The {noun} as the encoder sees it, {size} values."


def _draw_scale(axes: Axes, side: ExplainedSide, maps: tuple[PartMap, PartMap], top: float) -> None:
    """What the strength of both colors means, in percent of both maps; bars have an axis for it."""
    bars = isinstance(side.raw, np.ndarray) and side.raw.ndim == 1
    if bars or all(part.empty for part in maps):
        axes.set_axis_off()
        return
    heat = np.linspace(0, 1, 64)[:, None]
    ramps = [colored(np.ones_like(heat), heat, color) for color in (COMMON, OWN)]
    axes.imshow(np.hstack(ramps), aspect="auto", origin="lower", extent=(0, 2, 0, 100 * top))
    no_frame(axes)
    axes.yaxis.tick_right()
    axes.set_yticks([0, 50 * top, 100 * top])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g} %"))
    axes.tick_params(labelsize=7.5, color=FAINT)
    axes.set_title("share", fontsize=7.5, color=FAINT)


def draw_sanity(sanity: Sanity) -> Figure:
    """Deletion curves beside random orders, and correlations with the maps of shuffled weights."""
    shown = [check for check in sanity.checks if check.kept is not None]
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    names = list(dict.fromkeys(check.modality for check in sanity.checks))
    for check in shown:
        color = COMMON if check.part == "common" else OWN
        line = "-" if check.modality == names[0] else (0, (5, 1.5))
        label = f"{_check_name(check)}: area {check.area:.2f}, random {check.area_random:.2f}"
        left.plot(FRACTIONS, check.kept or [], color=color, linestyle=line, label=label)
        left.plot(FRACTIONS, check.kept_random or [], color=color, alpha=0.4, linestyle=line, linewidth=0.9)
    left.axhline(0, color=FAINT, linewidth=0.6)
    left.set_xlabel("inputs taken away, the map's strongest first (pale: in random order)", fontsize=8.5)
    left.set_ylabel("how far the score is still as it was", fontsize=8.5)
    left.set_title("Deletion: a good map's curve falls faster than the pale one", fontsize=10, loc="left", color=INK)
    legend_below(left, columns=2, distance=4.2)
    found = [(check, check.randomized_correlation) for check in sanity.checks]
    known = [(check, value) for check, value in found if value is not None]
    colors = [COMMON if check.part == "common" else OWN for check, _ in known]
    right.barh(range(len(known)), [value for _, value in known], height=0.6, color=colors, alpha=0.85)
    for row, (_, value) in enumerate(known):
        right.text(max(value, 0) + 0.02, row, f"{value:.2f}", va="center", fontsize=8, color=INK)
    right.set_yticks(range(len(known)), labels=[_check_name(check) for check, _ in known], fontsize=8)
    right.set_ylim(len(known) - 0.4, -0.6)
    right.set_xlim(min(-0.25, *(value - 0.05 for _, value in known), 0), 1.1)
    right.axvline(0, color=FAINT, linewidth=0.8)
    right.set_xlabel(f"rank correlation, mean over {sanity.samples} samples", fontsize=8.5)
    title = "Shuffled weights: a good map correlates\nlittle with that of a model that learned nothing"
    right.set_title(title, fontsize=10, loc="left", color=INK)
    for axes in (left, right):
        open_frame(axes)
    return figure


def _check_name(check: Check) -> str:
    return f"{check.modality}, {'its own' if check.part == 'own' else 'common'}"


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
        shares = columns[f"own_{name}"]
        label = f"{name}: mean {100 * shares.mean():.0f} %"
        right.hist(shares, bins=np.linspace(0, max(1, shares.max()), 41), color=color, alpha=0.55, label=label)
    right.set_xlabel("share of the sample that is its own", fontsize=9)
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
