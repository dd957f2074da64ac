"""What a run learned from, as far as its folder says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpretrain.report.axis import count, short
from mmpretrain.report.record import Record, inner
from mmpretrain.words import listed, shortened, without_secrets

Pairs = list[tuple[str, str]]
MOST_CAUSES = 5


def data_facts(record: Record) -> Pairs:
    """Names and texts."""
    info = record.facts.get("dataset")
    info = info if isinstance(info, dict) else {}
    rows: Pairs = [
        ("data set", str(info.get("title") or record.setting("data.name") or "")),
        ("from", without_secrets(str(info.get("source") or ""))),
        ("license", str(info.get("license") or "")),
        ("place", without_secrets(str(record.setting("data.path") or ""))),
        ("training samples", _training(record)),
        ("held out", _held_out(record)),
        ("classes", _classes(info)),
        *_sources(record),
        *_modalities(record),
        *_quarantined(record),
    ]
    return [(name, text) for name, text in rows if text]


def _training(record: Record) -> str:
    size, epochs = inner(record.plan, "batches.dataset_samples"), inner(record.plan, "batches.epochs")
    if not isinstance(size, int):
        return ""
    planned = f", seen {epochs:.3g} times over the whole run" if isinstance(epochs, int | float) else ""
    return count(size) + planned


def _held_out(record: Record) -> str:
    split, samples = record.map.get("split"), record.map.get("samples")
    return f"{count(samples)} samples of {split} were evaluated" if isinstance(samples, int) else ""


def _classes(info: Mapping[str, Any]) -> str:
    names = info.get("classes")
    return f"{len(names)}: {listed(names, 12)}" if isinstance(names, list) and names else ""


def _sources(record: Record) -> Pairs:
    """Of a mixture, each with its share of what was seen."""
    seen = {name.partition("/")[2]: c.values[-1] for name, c in record.columns.items() if name.startswith("samples/")}
    total = sum(seen.values()) or 1.0
    rows: Pairs = []
    for name in record.setting("data.sources") or {}:
        epochs = record.columns.get(f"epoch/{name}")
        said = f"{count(seen[name])} samples seen, {100 * seen[name] / total:.1f} %" if name in seen else "mixed in"
        rows.append((f"source {name}", said + (f", {short(epochs.values[-1])} epochs" if epochs else "")))
    return rows


def _modalities(record: Record) -> Pairs:
    rows: Pairs = []
    for name, entry in record.modalities.items():
        own = record.setting(f"model.encoders.{name}")
        own = own if isinstance(own, dict) else {}
        size = " x ".join(map(str, entry.get("size") or []))
        parts = [str(entry.get("kind", "")), size, "may be missing" if entry.get("optional") else ""]
        parts.append(f"encoder {without_secrets(str(own.get('pretrained') or own.get('architecture')))}" if own else "")
        parts.append("frozen" if own and own.get("freeze") else "")
        rows.append((f"modality {name}", ", ".join(part for part in parts if part)))
    return rows


def _quarantined(record: Record) -> Pairs:
    total = sum(record.quarantine.values())
    if not total:
        return [("unusable samples", "none")] if record.metrics.columns else []
    causes = [f"{count(n)}: {shortened(cause, 160)}" for cause, n in record.quarantine.most_common(MOST_CAUSES)]
    rest = len(record.quarantine) - len(causes)
    causes += [f"and {rest} rarer causes"] if rest > 0 else []
    return [("unusable samples", f"{count(total)} were replaced. " + "; ".join(causes))]
