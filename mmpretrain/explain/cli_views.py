"""What ``mmpretrain explain`` and ``mmpretrain information`` print for people (no torch here)."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from mmpretrain.console import table

PART_COLUMNS = {"shared": "shared", "unshared": "unshared", "own": "own", "left_out": "left out"}


def explain_view(result: dict[str, Any]) -> Group:
    """result: as ``mmpretrain explain --json`` prints it."""
    first, second = result["pair"]
    lines = [
        towers_line(result),
        f"{first} and {second}: {result['common_dimension']} common dimensions ({result['codes']})",
        f"common score: mean {result['common']['mean']:.2f}, unrelated pairs {result['common']['unrelated']:.2f},"
        f" expected {result['common']['expected']:.2f}",
    ]
    columns = ("sample", "common", "cosine", *(f"{name}'s own, %" for name in result["pair"]))
    rows = [
        (
            s["key"],
            f"{s['common']:.2f}",
            f"{s['common_cosine']:.2f}",
            *(f"{100 * s[f'own_{n}']:.0f}" for n in result["pair"]),
        )
        for s in result["explained"]
    ]
    shown = [table("", columns, rows), *([_sanity(result["sanity"])] if result.get("sanity") else [])]
    doubts = [f"doubt: {doubt}" for doubt in (result.get("sanity") or {}).get("doubts", [])]
    return Group(*map(Text, lines), *shown, *map(Text, doubts), Text("\n".join(result["files"])))


def information_view(result: dict[str, Any]) -> Group:
    """result: as ``mmpretrain information --json`` prints it."""
    correlations = result["correlations"]
    lines = [
        towers_line(result),
        *result["sentences"],
        result["advice"],
        "correlations of common codes: " + ", ".join(f"{rho:.2f}" for rho in correlations["common_codes"]),
        "              unseen samples: " + ", ".join(f"{rho:.2f}" for rho in correlations["common_codes_held_out"]),
    ]
    variance = [
        (name, where, *(f"{100 * modality['parts'][split][part]:.1f}" for part in PART_COLUMNS))
        for name, modality in result["modalities"].items()
        for split, where in (("held_out", "unseen"), ("in_sample", "of the fit"))
    ]
    probes = [(name, f"{100 * p['score']:.1f}", f"{100 * p['chance']:.1f}") for name, p in result["probes"].items()]
    title = "What varies in each embedding, percent"
    shown: list[Any] = [table(title, ("modality", "samples", *PART_COLUMNS.values()), variance)]
    meanings = [f"  {PART_COLUMNS[part]}: {meaning}" for part, meaning in result["definitions"].items()]
    shown.append(Text("\n".join(meanings)))
    title = "What linear classifiers read of labels, percent on unseen samples"
    shown += [table(title, ("from the codes/which label", "score", "chance"), probes)] if probes else []
    return Group(*map(Text, lines), *shown, Text("\n".join(result["files"])))


def towers_line(result: dict[str, Any]) -> str:
    """Which modality of the data which tower of the release embedded."""
    return "embedded by: " + ", ".join(f"{name} -> tower {tower}" for name, tower in result["towers"].items())


def _sanity(sanity: dict[str, Any]) -> Table:
    rows = [
        (
            entry["modality"],
            entry["part"],
            "" if entry["randomized_correlation"] is None else f"{entry['randomized_correlation']:.2f}",
            *(("", "") if entry["area"] is None else (f"{entry['area']:.2f}", f"{entry['area_random']:.2f}")),
        )
        for entry in sanity["checks"]
    ]
    columns = ("modality", "part", "correlation with shuffled weights", "deletion area", "in random order")
    return table("Checks of the maps: a low correlation and an area below the random one speak for them", columns, rows)
