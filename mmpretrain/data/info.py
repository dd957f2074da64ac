"""dataset.json: what a dataset is, written by its builder (no torch here)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mmpretrain.config.data import DataConfig
from mmpretrain.data.index import INFO_NAME, ShardError, read_text


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
    """What the builder wrote to ``dataset.json``; None if the dataset is not built. Raises ShardError if damaged."""
    try:
        return load_info(data.path)
    except FileNotFoundError:
        return None
