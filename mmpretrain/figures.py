"""What pictures have in common: colors, axes, legends, and bars beside chance, which draw onto axes they are given; and
the picture of a sound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.mlab import specgram
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter
from PIL import Image

from mmpretrain.records import Score

INK, FAINT = "#222222", "#8a8a8a"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7B5EA7", "#8C6D31")

WINDOW_S = 0.025
DECIBELS = 80  # below the loudest; what is softer has the darkest color


def spectrogram_image(wave: np.ndarray, sampling_rate: int, size: tuple[int, int] = (256, 96)) -> Image.Image:
    """The spectrogram of a sound [n] as an RGB image of ``size`` (width, height) in pixels.

    Time goes to the right, frequency up to half of ``sampling_rate`` (hertz), as far apart as tones are heard (mel).
    Silence has the darkest color.
    """
    window = max(16, round(WINDOW_S * sampling_rate))
    padded = np.pad(np.asarray(wave, dtype=np.float64), (0, max(0, 2 * window - len(wave))))
    # About two windows a pixel: more would not be seen.
    step = max(window // 4, len(padded) // (2 * size[0]), 1)
    power = np.asarray(specgram(padded, NFFT=window, Fs=sampling_rate, noverlap=max(0, window - step))[0])
    loudest = max(float(power.max()), 1e-12)
    level = 1 + 10 * np.log10(np.maximum(power / loudest, 10 ** (-DECIBELS / 10))) / DECIBELS
    # The bin of each row of pixels: the mel scale is that of log(1 + f / 700).
    tops = 700 * np.expm1(np.linspace(0, np.log1p(sampling_rate / 1400), size[1]))
    bins = (tops / (sampling_rate / 2) * (len(level) - 1)).round().astype(int)
    shades = (255 * colormaps["magma"](level[bins][::-1])[..., :3]).round().astype(np.uint8)
    return Image.fromarray(shades).resize(size, Image.Resampling.BILINEAR)


def draw_bars(
    axes: Axes, title: str, groups: Mapping[str, Sequence[Score]], names: Sequence[str] = (), *, legend: bool = True
) -> None:
    """One group of bars per label, one bar per score name, with a tick where chance lies and a line for an interval.

    names: of all scores, where some are in other axes alone, so that each has one color. Where every label has one
    score its name is left to the title and the labels.
    """
    if not names:
        names = list(dict.fromkeys(score.name for scores in groups.values() for score in scores))
        names = names[:1] if all(len(scores) == 1 for scores in groups.values()) else names
    for row, scores in enumerate(groups.values()):
        for score in scores:
            _bar(axes, row, names.index(score.name) if len(names) > 1 else 0, len(names), score)
    if legend:
        _bar_legend(axes, names)
    axes.set_yticks(range(len(groups)), labels=list(groups), fontsize=9)
    axes.set_ylim(len(groups) - 0.45, -0.55)
    _share_axis(axes, max(max(s.value, s.chance or 0, s.high or 0) for scores in groups.values() for s in scores))
    axes.set_title(title, fontsize=10.5, loc="left", color=INK)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    _open_frame(axes)


def _bar(axes: Axes, row: int, place: int, places: int, score: Score) -> None:
    """The bar of ``score``, as number ``place`` of ``places`` in the group at height ``row``."""
    thickness = (0.55 if places == 1 else 0.8) / places
    y = row + (place - (places - 1) / 2) * thickness
    axes.barh(y, score.value, height=0.9 * thickness, color=COLORS[place % len(COLORS)], alpha=0.85)
    edge = max(score.value, score.chance or 0, score.high or 0)
    if score.low is not None and score.high is not None:
        axes.plot([score.low, score.high], [y, y], color=INK, linewidth=0.9, alpha=0.75, solid_capstyle="butt")
    axes.annotate(
        f"{100 * score.value:.1f}",
        (edge, y),
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=INK,
    )
    if score.chance is not None:
        span = (y - 0.45 * thickness, y + 0.45 * thickness)
        axes.plot([score.chance] * 2, span, color=INK, linewidth=2, solid_capstyle="butt")


def _share_axis(axes: Axes, largest: float) -> None:
    """A percent axis from 0 to just above ``largest``, with room for the last number and no tick above 100 %."""
    limit = max(largest, 0.01)
    axes.set_xlim(0, 1.14 * limit)
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, limit)
    axes.set_xticks([tick for tick in ticks if tick <= min(1, 1.14 * limit)])
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))


def _bar_legend(axes: Axes, names: Sequence[str]) -> None:
    if len(names) > 1:
        for place, name in enumerate(names):
            axes.barh(0, 0, color=COLORS[place % len(COLORS)], alpha=0.85, label=name)
    axes.plot([], [], color=INK, linewidth=2, label="chance")
    legend_below(axes, columns=4, distance=2.6)


def style_axes(axes: Axes, title: str, label: str) -> None:
    """A curve's axes over the samples seen: title, the vertical axis's ``label``, grid."""
    axes.set_title(title, fontsize=10.5, loc="left", color=INK)
    axes.set_xlabel("samples seen", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#e6e6e6", linewidth=0.7)
    _open_frame(axes)


def _open_frame(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, color=FAINT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)


def legend_below(axes: Axes, columns: int = 4, distance: float = 4.6) -> None:
    """A legend under the axes, ``distance`` font sizes below them (clear of tick labels and axis label)."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        order = sorted(range(len(labels)), key=lambda i: labels[i] in ("chance", "loss"))
        axes.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            borderaxespad=distance,
            ncols=columns,
            fontsize=8,
            frameon=False,
            handlelength=1.4,
            columnspacing=1.2,
        )
