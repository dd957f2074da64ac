"""dataset.json: what a dataset is, written by its builder (no torch here)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mmpretrain.config.data import DataConfig
from mmpretrain.data.index import INFO_NAME, ShardError, read_text

LARGER = ("channels", "max_length", "seconds")
"""Settings of a modality of which the larger value serves the samples of several data sets."""


@dataclass(frozen=True)
class DatasetInfo:
    """What the shards do not say themselves.

    modalities: name -> kind, size, channels, max_length as in the config.
    classes: name of each label, None if unlabeled or if labels are codes of factors.
    factors: name of a factor -> number of its classes; a label is then the mixed-radix code of all factors, the first
    one most significant.
    statistics: vector modality -> {"minimum": [features], "maximum": [features]} of the train split.
    features: vector modality -> name of each feature, where known.
    provenance: how the samples were made from other data and models; in the file only where there is something to say.
    """

    name: str
    title: str
    source: str
    license: str
    modalities: dict[str, dict[str, Any]]
    classes: list[str] | None = None
    statistics: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    features: dict[str, list[str]] = field(default_factory=dict)
    factors: dict[str, int] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Text of dataset.json, the same for the same content."""
        content = asdict(self)
        if not self.provenance:
            del content["provenance"]
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load_info(path: str | Path) -> DatasetInfo:
    """Read the dataset.json of a local or remote dataset folder.

    Raises:
        FileNotFoundError: there is none.
        ShardError: it was not written by a builder, or is damaged.
    """
    source = f"{str(path).rstrip('/')}/{INFO_NAME}"
    text = read_text(source)
    try:
        document = json.loads(text)
        known = {f.name for f in fields(DatasetInfo)}
        return DatasetInfo(**{key: value for key, value in document.items() if key in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise ShardError(f"{source} is damaged ({error}): build the dataset again") from None


def dataset_info(data: DataConfig) -> DatasetInfo | None:
    """What the builder wrote to ``dataset.json``; None if the dataset is not built. Raises ShardError if damaged.

    Of several sources, what they say together: texts of all, and classes, factors and the names of features only where
    all agree.
    """
    infos = source_infos(data)
    return infos.get("") if not data.sources else _together(data.name, infos)


def source_infos(data: DataConfig) -> dict[str, DatasetInfo]:
    """Source (without sources: '') -> its ``dataset.json``; those without one are left out. Raises ShardError."""
    found = {}
    for name, part in data.parts.items():
        try:
            found[name] = load_info(part.paths[0])
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def contradictory_classes(data: DataConfig) -> str | None:
    """Where the same labels stand for different classes, by what the data sets say themselves; None if they do not."""
    first: tuple[str, Any] | None = None
    for path in data.paths:
        try:
            info = load_info(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        said = info.classes or info.factors
        if first and said and said != first[1]:
            return (
                f"{path} has other classes than {first[0]}, and a label is the number of a class: build them with the"
                " same classes, or leave labels out by data.classes=null"
            )
        first = first or ((path, said) if said else None)
    return None


def _together(name: str, infos: dict[str, DatasetInfo]) -> DatasetInfo | None:
    if not infos:
        return None
    every = list(infos.values())
    modalities = {key: entry for info in reversed(every) for key, entry in info.modalities.items()}
    said = {
        key: "; ".join(dict.fromkeys(text for info in every if (text := getattr(info, key))))
        for key in ("title", "source", "license")
    }
    return DatasetInfo(
        name,
        modalities=modalities,
        classes=_agreed([info.classes for info in every]),
        factors=_agreed([info.factors for info in every]) or {},
        statistics=_widest(every),
        features={key: features for key in modalities if (features := _agreed_features(every, key))},
        provenance=_agreed([info.provenance for info in every]) or {},
        **said,
    )


def _agreed(values: list[Any]) -> Any:
    """What all say; None where they do not agree."""
    return values[0] if all(value == values[0] for value in values) else None


def _agreed_features(infos: list[DatasetInfo], name: str) -> list[str] | None:
    return _agreed([info.features.get(name) for info in infos if name in info.modalities])


def _widest(infos: list[DatasetInfo]) -> dict[str, dict[str, list[float]]]:
    """The range of each vector's features over all sources that hold it; none where one of them does not say."""
    found = {}
    for name in {name: None for info in infos for name in info.statistics}:
        ranges = [info.statistics.get(name) for info in infos if name in info.modalities]
        if None in ranges or len({len(entry["minimum"]) for entry in ranges if entry}) > 1:
            continue
        given = [entry for entry in ranges if entry]
        found[name] = {
            "minimum": [min(values) for values in zip(*(entry["minimum"] for entry in given), strict=True)],
            "maximum": [max(values) for values in zip(*(entry["maximum"] for entry in given), strict=True)],
        }
    return found
