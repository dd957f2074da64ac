"""The page: one HTML file that needs nothing else, by the template beside this file.

The template escapes whatever is no Markup, and the page forbids itself scripts and every request: captions and keys are
strangers' texts.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mmpretrain import __version__
from mmpretrain.config.augment import AugmentConfig
from mmpretrain.config.data import ModalityConfig
from mmpretrain.preview.counts import Histogram, commonest
from mmpretrain.preview.preview import Preview

TEMPLATE = "page.html"
MOST_LABELS = 100
_UNITS = ("B", "kB", "MB", "GB", "TB")


def page(preview: Preview) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bytes": bytes_text, "number": number_text, "share": share_text, "heights": heights}
    return environment.get_template(TEMPLATE).render(
        preview=preview,
        version=__version__,
        settings=settings,
        histograms=_histograms(preview),
        commonest=commonest,
        most_labels=MOST_LABELS,
    )


def settings(modality: ModalityConfig) -> str:
    """What the config says of a modality beyond the defaults, as it would be written."""
    described = {key: getattr(modality, key) for key in modality.kind.row.described_by}
    said = {"kind": modality.kind.value, **_changed(modality, ModalityConfig(modality.kind)), **described}
    return ", ".join(f"{key}: {value}" for key, value in said.items())


def bytes_text(count: float) -> str:
    """1234567 -> 1.2 MB."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.3g} {_UNITS[unit]}"


def number_text(value: float) -> str:
    """A number as people write it: thousands apart, four digits where it is no whole one."""
    return f"{int(value):,}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def share_text(part: int, whole: int) -> str:
    """3, 64 -> 4.7 %; what is not nothing never reads 0 %."""
    share = part / whole if whole else 0.0
    return f"{share:.1%}" if not part or share >= 0.001 else "< 0.1%"


def heights(counts: list[int]) -> list[float]:
    """Heights of bars in percent of the tallest; what is not empty can be seen."""
    most = max(counts, default=0) or 1
    return [0.0 if not count else max(2.0, round(100 * count / most, 1)) for count in counts]


def _histograms(preview: Preview) -> dict[str, dict[str, dict[str, Histogram]]]:
    """Split -> modality -> quantity -> histogram."""
    return {
        split: {name: counts.modalities[name].histograms(kind.limits) for name, kind in preview.opened.previews.items()}
        for split, counts in preview.splits.items()
    }


def _changed(entry: Any, default: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from another's; of fields that are dataclasses again, their own."""
    found: dict[str, Any] = {}
    for key in (field.name for field in fields(entry)):
        value = getattr(entry, key)
        if isinstance(value, AugmentConfig):
            inner = _changed(value, AugmentConfig()).items()
            found[key] = "{" + ", ".join(f"{name}: {setting}" for name, setting in inner) + "}"
        elif value != getattr(default, key):
            found[key] = value
    return found
