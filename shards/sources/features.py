"""What `datasets` writes beside its columns: which are images and sounds, and the names of classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shards.sources.columns import Known
from shards.sources.rows import map_arrow, require_data_extra
from shards.sources.sample import MemberKind


def known_of_features(features: Mapping[str, Any]) -> Known:
    """From a datasets.Features."""
    import datasets

    kinds = {name: MemberKind.image for name, f in features.items() if isinstance(f, datasets.Image)}
    kinds |= {name: MemberKind.audio for name, f in features.items() if isinstance(f, datasets.Audio)}
    classes = {name: tuple(f.names) for name, f in features.items() if isinstance(f, datasets.ClassLabel)}
    return Known(kinds, classes)


def known_of_schema(path: Path) -> Known:
    """From the schema of a Parquet or Arrow file."""
    require_data_extra()
    import datasets
    import pyarrow.parquet as pq

    schema = map_arrow(path).schema if path.suffix == ".arrow" else pq.read_schema(path)
    if b"huggingface" not in (schema.metadata or {}):
        return Known()
    try:
        return known_of_features(datasets.Features.from_arrow_schema(schema))
    except (ValueError, KeyError, TypeError):  # of another version: then by the values alone
        return Known()
