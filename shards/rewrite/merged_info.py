"""One dataset.json out of several: what agrees is kept, what would make samples mean something else is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpretrain.data.info import LARGER, DatasetInfo
from mmpretrain.data.writing import BuildError
from shards.sources.findings import Findings

MEANING = ("kind", "sampling_rate")
"""Settings of a modality that must agree; the size of vectors and sequences too."""
OF_ARRAYS = ("vector", "sequence")

Named = tuple[str, DatasetInfo]
"""A source as the command names it, and its dataset.json."""


def merge_infos(name: str, sources: Sequence[Named], notes: Findings) -> DatasetInfo:
    """What the merged data set is. notes: gets what the sources say differently.

    Raises BuildError where they contradict one another: kinds, sizes of vectors, classes, factors, names of features.
    """
    infos = [info for _, info in sources]
    modalities: dict[str, dict[str, Any]] = {}
    for source, info in sources:
        for modality, entry in info.modalities.items():
            known = modalities.setdefault(modality, dict(entry))
            _join_modality(known, entry, f"{source}: modality {modality!r}", notes)
    provenance = {source: info.provenance for source, info in sources if info.provenance}
    return DatasetInfo(
        name=name,
        title=" + ".join(dict.fromkeys(info.title for info in infos)),
        source="; ".join(dict.fromkeys(info.source for info in infos)),
        license="; ".join(dict.fromkeys(info.license for info in infos)),
        modalities=modalities,
        classes=_classes(sources, notes),
        statistics=_statistics(sources, notes),
        features=_features(sources),
        factors=_factors(sources),
        provenance=provenance,
    )


def _join_modality(known: dict[str, Any], entry: dict[str, Any], where: str, notes: Findings) -> None:
    """Bring the settings of one more source into those known so far."""
    meaning = (*MEANING, "size") if entry.get("kind") in OF_ARRAYS else MEANING
    for key in meaning:
        if key in known and key in entry and known[key] != entry[key]:
            raise BuildError(f"{where} has {key} {entry[key]}, and {known[key]} in the sources before: {_RENAME}")
    for key, value in entry.items():
        kept = known.setdefault(key, value)
        if kept != value:
            known[key] = max(kept, value) if key in LARGER else kept
            notes.add("sources differ in a setting of dataset.json", f"{where} has {key} {value}, kept: {known[key]}")


_RENAME = "build one of them with another name for it, or leave one out"


def _classes(sources: Sequence[Named], notes: Findings) -> list[str] | None:
    """The classes of all sources that have any; labels are numbers of classes, so different ones are refused."""
    first, classes = next(((s, info.classes) for s, info in sources if info.classes is not None), ("", None))
    for source, info in sources:
        if classes is not None and info.classes is None:
            notes.add("sources without classes: their samples have no label", source)
        elif info.classes != classes:
            raise BuildError(
                f"{source} has other classes than {first}, and a label is the number of a class: build them with the"
                " same classes, or leave one out"
            )
    return classes


def _factors(sources: Sequence[Named]) -> dict[str, int]:
    (first, info), *others = sources
    for source, other in others:
        if list(other.factors.items()) != list(info.factors.items()):
            raise BuildError(f"{source} has other factors than {first}, and its labels are their codes: leave one out")
    return info.factors


def _features(sources: Sequence[Named]) -> dict[str, list[str]]:
    """Names of features by modality."""
    found: dict[str, list[str]] = {}
    for source, info in sources:
        for modality, names in info.features.items():
            if found.setdefault(modality, names) != names:
                raise BuildError(f"{source}: the features of {modality!r} are others than in the sources before")
    return found


def _statistics(sources: Sequence[Named], notes: Findings) -> dict[str, dict[str, list[float]]]:
    """Minimum and maximum over all sources; those of a modality that a source does not know are left out."""
    found: dict[str, dict[str, list[float]]] = {}
    for modality in dict.fromkeys(name for _, info in sources for name in info.statistics):
        holders = [info.statistics.get(modality) for _, info in sources if modality in info.modalities]
        known = [entry for entry in holders if entry is not None]
        if len(known) < len(holders):
            notes.add("statistics that not all sources have are left out of dataset.json", modality)
            continue
        found[modality] = {
            "minimum": [min(values) for values in zip(*(entry["minimum"] for entry in known), strict=True)],
            "maximum": [max(values) for values in zip(*(entry["maximum"] for entry in known), strict=True)],
        }
    return found
