"""The picture of an information report; blue is common, orange a modality's own, as over explained samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mmpretrain.explain.decomposition import CodesOrigin
from mmpretrain.explain.explain_figures import COMMON, OWN, open_frame
from mmpretrain.explain.report import Report, coordinate_shares
from mmpretrain.figures import FAINT, INK, draw_bars
from mmpretrain.records import Score

REST = "#c9c9c9"
MOST_CORRELATIONS = 40


def draw_report(report: Report, title: str) -> Figure:
    """Spectrum, split of the variance, what carries it coordinate by coordinate, and probes if there are labels."""
    groups = probe_groups(report.probes)
    bars = 1.3 + 0.16 * len(report.probes) if groups else 0.0
    figure = Figure(figsize=(11.0, 6.4 + bars), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    heights = [3.0, 3.0, *([bars] if groups else [])]
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
    spectrum, split = parts[0].subplots(1, 2, width_ratios=[1.7, 1])
    draw_spectrum(spectrum, report)
    draw_split(split, report)
    for axes, name in zip(parts[1].subplots(1, 2), report.decomposition.pair, strict=True):
        draw_coordinates(axes, report, name)
    if groups:
        binary = {score.chance for score in report.probes} == {0.5}
        what = "area under the ROC curve" if binary else "balanced accuracy"
        draw_bars(parts[2].subplots(), f"What a linear probe reads of the labels: {what} in percent", groups)
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
        axes.bar(places[shown:], spectrum[shown:], color=REST, label="fitted, the others")
    held = places[: len(held_out)]
    axes.plot(held, held_out.numpy(), "o", color=INK, markersize=3.5, label="held-out samples")
    axes.axhline(fitted.threshold, color=OWN, linewidth=1.5, linestyle="--", label="unrelated data, 95 %")
    axes.axhline(0, color=FAINT, linewidth=0.8)
    lowest = min([0.0, *fitted.rho.tolist(), *held_out.tolist()])
    axes.set_ylim(min(-0.05, lowest - 0.02), 1.02)
    axes.set_xlabel("direction", fontsize=9)
    axes.set_ylabel("canonical correlation", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    axes.set_title(f"What {' and '.join(fitted.pair)} share", fontsize=10.5, loc="left", color=INK)
    open_frame(axes)


def draw_split(axes: Axes, report: Report) -> None:
    """The variance of each modality's embedding: common, its own, left out."""
    for row, name in enumerate(report.decomposition.pair):
        common, own = report.decomposition.parts[name].shares
        left = 0.0
        for share, color in ((common, COMMON), (own, OWN), (max(0.0, 1 - common - own), REST)):
            axes.barh(row, share, left=left, height=0.5, color=color, alpha=0.85)
            if share > 0.06:
                ink = "white" if color != REST else INK
                axes.text(left + share / 2, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color=ink)
            left += share
    for color, label in ((COMMON, "common"), (OWN, "its own"), (REST, "left out")):
        axes.barh(0, 0, color=color, label=label)
    axes.set_yticks([0, 1], labels=list(report.decomposition.pair), fontsize=9)
    axes.set_ylim(1.9, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.legend(fontsize=8, frameon=False, loc="lower left", ncols=3, columnspacing=1.0, handlelength=1.2)
    axes.set_title("Variance of the embeddings", fontsize=10.5, loc="left", color=INK)
    open_frame(axes)


def draw_coordinates(axes: Axes, report: Report, name: str) -> None:
    """How much of every embedding coordinate is common and how much its own, most common first."""
    common, own = coordinate_shares(report.decomposition, name)
    order = np.argsort(-common, kind="stable")
    places = np.arange(len(order))
    axes.bar(places, common[order], width=1.0, color=COMMON, alpha=0.85, label="common")
    axes.bar(places, own[order], width=1.0, bottom=common[order], color=OWN, alpha=0.85, label="its own")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(-0.5, len(order) - 0.5)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set_xlabel("embedding coordinate, most common first", fontsize=9)
    axes.set_title(f"{name}: which coordinates carry it", fontsize=10.5, loc="left", color=INK)
    open_frame(axes)


def probe_groups(probes: list[Score]) -> Mapping[str, list[Score]]:
    """Representation -> a score per target."""
    groups: dict[str, list[Score]] = {}
    for score in probes:
        groups.setdefault(score.subject, []).append(score)
    return groups
