"""Ticks, and numbers as people read them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Axis:
    """A range of values, plain or logarithmic, and its ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, values: np.ndarray) -> np.ndarray:
        """Where ``values`` lie, 0 at the low end and 1 at the high one; nan where they cannot be shown."""
        if self.log:
            with np.errstate(divide="ignore", invalid="ignore"):
                values = np.where(values > 0, np.log10(values), np.nan)
            low, high = math.log10(self.low), math.log10(self.high)
        else:
            low, high = self.low, self.high
        # Halves first: the span of the largest numbers is no number any more.
        return (values / 2 - low / 2) / ((high / 2 - low / 2) or 1.0)


def plain_axis(low: float, high: float, most: int = 5) -> Axis:
    """From ``low`` to ``high`` or somewhat beyond, with round ticks."""
    if not high > low:
        pad = abs(low) / 10 or 1.0
        low, high = low - pad, high + pad
    step = _round_step(high / most - low / most)
    if not math.isfinite(step) or step <= 0:
        return Axis(low, high, (low, high))
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    ticks = tuple(round(number * step, 12 - math.floor(math.log10(step))) for number in range(first, last + 1))
    return Axis(first * step, last * step, ticks)


def span_axis(low: float, high: float, most: int = 5) -> Axis:
    """Exactly from ``low`` to ``high``, with the round ticks that lie inside."""
    rounded = plain_axis(low, high, most)
    if not high > low:
        return rounded
    return Axis(low, high, tuple(tick for tick in rounded.ticks if low <= tick <= high))


def log_axis(low: float, high: float) -> Axis | None:
    """The same for values above 0, by powers of ten or by 1, 2 and 5; None where nothing is above 0."""
    if not 0 < low <= high:
        return None
    first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
    last = max(last, first + 1)
    if last - first <= 2:
        ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
        inside = [tick for tick in ticks if low <= tick * 1.0001 and tick <= high * 1.0001]
        edges = [max((t for t in ticks if t <= low), default=low), min((t for t in ticks if t >= high), default=high)]
        return Axis(edges[0], edges[1], tuple(dict.fromkeys([edges[0], *inside, edges[1]])), log=True)
    stride = math.ceil((last - first) / 6)
    return Axis(10.0**first, 10.0**last, tuple(10.0**power for power in range(first, last + 1, stride)), log=True)


def short(value: float) -> str:
    """A tick or a value in few characters: 0.25, 1.5k, 3e-4."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    size = abs(value)
    for unit, suffix in SUFFIXES:
        if unit <= size < 1e15:
            return f"{value / unit:.4g}{suffix}"
    if size and (size < 1e-3 or size >= 1e15):
        return exponent(value)
    return f"{value:.4g}"


def exponent(value: float) -> str:
    """0.0015 -> 1.5e-3."""
    if not value or not math.isfinite(value):
        return f"{value:.4g}"
    mantissa, power = f"{value:.3e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"


def percent(value: float) -> str:
    """A share in percent: 0.125 -> 12.5%."""
    return f"{100 * value:.3g}%" if math.isfinite(value) and abs(value) < 10 else short(value)


def count(value: float) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,.0f}"


def duration(minutes: float) -> str:
    """25 s, 12 min, 3 h 20 min, 2 d 5 h."""
    if minutes < 2:
        return f"{60 * minutes:.0f} s"
    if minutes < 120:
        return f"{minutes:.0f} min"
    hours = minutes / 60
    if hours < 48:
        return f"{int(hours)} h {int(minutes % 60)} min"
    return f"{int(hours // 24)} d {int(hours % 24)} h"


def _round_step(rough: float) -> float:
    if not rough > 0 or not math.isfinite(rough):
        return math.nan
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999), 10 * power)
