"""Configs of runs: which keys differ, and each as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mmpretrain.config.merging import leaves
from mmpretrain.report.record import Record
from mmpretrain.words import shortened, without_secrets

ABSENT = "(no such key)"
OF_EVERY_RUN = ("run.name", "run.root")  # they differ by nature
LONGEST = 200  # characters of a value


@dataclass(frozen=True)
class Difference:
    """A key and its value in each run."""

    key: str
    values: list[str]


def differences(records: Sequence[Record]) -> list[Difference]:
    """The keys whose values differ between runs that have a config; empty for fewer than two."""
    flat = [dict(leaves(record.config)) for record in records]
    keys = dict.fromkeys(key for entry in flat for key in entry if key not in OF_EVERY_RUN)
    if sum(map(bool, flat)) < 2:
        return []
    rows = [Difference(key, [_value(entry, key) if entry else "(no config)" for entry in flat]) for key in keys]
    return sorted((row for row in rows if len(set(row.values)) > 1), key=lambda row: row.key.count(".") > 3)


def sections(record: Record) -> list[tuple[str, str]]:
    """The config, a text of YAML for every section; what stands alone first."""
    alone = {key: value for key, value in record.config.items() if not isinstance(value, dict)}
    parts = [("alone", alone)] if alone else []
    parts += [(key, value) for key, value in record.config.items() if isinstance(value, dict)]
    return [(str(key), _yaml(value)) for key, value in parts]


def _yaml(value: Any) -> str:
    return without_secrets(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)).rstrip()


def _value(flat: dict[str, Any], key: str) -> str:
    if key not in flat:
        return ABSENT
    value = flat[key]
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return shortened(without_secrets(text), LONGEST)
