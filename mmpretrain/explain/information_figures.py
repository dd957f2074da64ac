"""The picture of an information report; blue is shared, orange a modality's own, as over explained samples."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mmpretrain.explain.decomposition import CodesOrigin
from mmpretrain.explain.explain_figures import COMMON, OWN, open_frame
from mmpretrain.explain.information import Report, advice, headlines
from mmpretrain.explain.opened import tower_words
from mmpretrain.explain.part_probes import LABEL, in_words
from mmpretrain.explain.variance_parts import VarianceParts
from mmpretrain.figures import FAINT, INK, draw_bars
from mmpretrain.records import Score

REST, UNSHARED = "#d4d4d4", "#a9cbe3"
PARTS = {
    "shared": (COMMON, "shared: the other modality explains it"),
    "unshared": (UNSHARED, "in common directions, unexplained by the other"),
    "own": (OWN, "its own directions"),
    "left_out": (REST, "left out"),
}
MOST_CORRELATIONS = 40
FEWEST_PLACES = 8
LINE = 150  # characters of a line of text across the picture


def draw_report(report: Report, title: str) -> Figure:
    """What is shared in words, the parts of the variance, the correlations, what carries it coordinate by coordinate,
    and probes if there are labels."""
    groups = probe_groups(report.probes, report.decomposition.pair)
    words = [fill(f"{sentence}.", LINE) for sentence in (*headlines(report), advice(report))]
    if report.towers:
        words.append(fill(f"Embedded by: {tower_words(report.towers)}.", LINE))
    bars = 1.3 + 0.2 * len(report.probes) if groups else 0.0
    top = 0.45 + 0.19 * sum(text.count("\n") + 1 for text in words)
    heights = [top, 3.3, 3.0, *([bars] if groups else [])]
    figure = Figure(figsize=(11.0, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
    parts[0].text(0.01, 0.97, title, fontsize=12, fontweight="bold", va="top", color=INK)
    sentences = "\n".join(text[:1].upper() + text[1:] for text in words)
    parts[0].text(0.01, 1 - 0.36 / top, sentences, fontsize=9, va="top", linespacing=1.35, color=INK)
    split, spectrum = parts[1].subplots(1, 2, width_ratios=[1.2, 1])
    draw_parts(split, report)
    draw_spectrum(spectrum, report)
    for axes, name in zip(parts[2].subplots(1, 2), report.decomposition.pair, strict=True):
        draw_coordinates(axes, report.parts[name].coordinates, name)
    if groups:
        binary = {score.chance for score in report.probes} == {0.5}
        what = "area under the ROC curve" if binary else "balanced accuracy"
        targets = ", ".join(dict.fromkeys("the label" if s.name == LABEL else s.name for s in report.probes))
        text = f"What a linear classifier reads of {targets} from each part: {what} on unseen samples, percent"
        draw_bars(parts[3].subplots(), text, groups)
    return figure


def draw_spectrum(axes: Axes, report: Report) -> None:
    """Correlations, fitted and on held-out samples, beside what unrelated data reach; a model's own codes in front of
    the canonical ones of its embeddings."""
    fitted, k = report.decomposition, len(report.decomposition.rho)
    held_out = report.held_out[:MOST_CORRELATIONS]
    spectrum = fitted.spectrum[:MOST_CORRELATIONS].numpy()
    places = np.arange(1, max(len(spectrum), min(k, MOST_CORRELATIONS)) + 1)
    shown = min(k, len(places))
    if fitted.origin is CodesOrigin.model:
        held_out = report.confirmed[:shown]
        axes.bar(places[: len(spectrum)], spectrum, color=REST, label="embeddings, closed form")
        axes.bar(places[:shown], fitted.rho[:shown].numpy(), width=0.5, color=COMMON, label=f"common codes ({k})")
    else:
        axes.bar(places[:shown], spectrum[:shown], color=COMMON, alpha=0.85, label=f"fitted, common ({k})")
        if shown < len(spectrum):
            axes.bar(places[shown:], spectrum[shown:], color=REST, label="fitted, the others")
    held = places[: len(held_out)]
    axes.plot(held, held_out.numpy(), "o", color=INK, markersize=3.5, label="unseen samples")
    axes.axhline(fitted.threshold, color=OWN, linewidth=1.5, linestyle="--", label="unrelated data reach this (95 %)")
    axes.axhline(0, color=FAINT, linewidth=0.8)
    lowest = min([0.0, *fitted.rho.tolist(), *held_out.tolist()])
    axes.set_ylim(min(-0.05, lowest - 0.02), 1.02)
    axes.set_xlim(0.4, max(len(places), FEWEST_PLACES) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("direction, strongest first", fontsize=9)
    axes.set_ylabel("correlation", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    title = f"How far {' and '.join(fitted.pair)} correlate, by direction"
    axes.set_title(title, fontsize=10.5, loc="left", color=INK)
    open_frame(axes)


def draw_parts(axes: Axes, report: Report) -> None:
    """The variance of each modality's embedding in its four parts, on unseen samples; below, thinner, on those of the
    fit."""
    for row, name in enumerate(report.decomposition.pair):
        found = report.parts[name]
        _draw_stack(axes, row - 0.14, 0.4, found.held_out, 1.0)
        _draw_stack(axes, row + 0.22, 0.16, found.in_sample, 0.55)
    for color, label in PARTS.values():
        axes.barh(0, 0, color=color, label=label)
    rows = [
        (row + shift, label)
        for row, name in enumerate(report.decomposition.pair)
        for shift, label in ((-0.14, name), (0.22, "samples of the fit"))
    ]
    axes.set_yticks([y for y, _ in rows], labels=[label for _, label in rows], fontsize=8.5)
    axes.set_ylim(2.15, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.legend(fontsize=8, frameon=False, loc="lower left", ncols=2, columnspacing=1.0, handlelength=1.2)
    axes.set_title("What varies in each embedding", fontsize=10.5, loc="left", color=INK)
    open_frame(axes)


def _draw_stack(axes: Axes, y: float, height: float, parts: VarianceParts, alpha: float) -> None:
    left = 0.0
    for key, part in parts.named().items():
        share, color = float(part), PARTS[key][0]
        axes.barh(y, share, left=left, height=height, color=color, alpha=alpha)
        if share > 0.05:
            ink = "white" if key in ("shared", "own") and alpha == 1 else INK
            size = 9 if alpha == 1 else 6.5
            axes.text(left + share / 2, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=size, color=ink)
        left += share


def draw_coordinates(axes: Axes, parts: VarianceParts, name: str) -> None:
    """The parts of every embedding coordinate, most shared first. parts: [d] each."""
    shares = {key: value.numpy() for key, value in parts.named().items()}
    order = np.lexsort([-shares["unshared"], -shares["shared"]])
    places, below = np.arange(len(order)), np.zeros(len(order))
    for key, values in shares.items():
        axes.bar(places, values[order], width=1.0, bottom=below, color=PARTS[key][0])
        below = below + values[order]
    axes.set_ylim(0, 1.02)
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set_xlabel("embedding coordinate, most shared first", fontsize=9)
    axes.set_title(f"{name}: the same parts, coordinate by coordinate", fontsize=10.5, loc="left", color=INK)
    open_frame(axes)


def probe_groups(probes: list[Score], pair: tuple[str, str]) -> Mapping[str, list[Score]]:
    """Representation, in words -> a score per target."""
    groups: dict[str, list[Score]] = {}
    for score in probes:
        groups.setdefault(in_words(score.subject, pair), []).append(score)
    return groups
