"""What `datasets` opens from a disk: saved datasets, and folders of Parquet, Arrow or textual files. No code is run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmpretrain.data.writing import BuildError
from mmpretrain.problems import one_line
from mmpretrain.words import texts_in
from shards.sources.columns import ADDRESS, Known, Wishes, agreed
from shards.sources.features import known_of_features, known_of_schema
from shards.sources.findings import Findings
from shards.sources.rows import SavedRows, load_saved, open_arrow, require_data_extra
from shards.sources.sample import Rows, Source
from shards.sources.table import choose_source, known_of, known_of_files, open_rows

OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
INSTEAD = {
    "imagefolder": "use `mmpretrain shards build folder`",
    "audiofolder": "use `mmpretrain shards build folder`",
    "webdataset": "these are tars already: `mmpretrain shards index` is enough",
}
TABLES = ("parquet", "arrow", "csv", "json")


def open_hub(path: Path, config: str | None, wishes: Wishes, work: Path, findings: Findings) -> Source:
    """Every split of a dataset on disk, its images and sounds undecoded. config: one of several (`datasets`' word).

    Raises BuildError: it is not there, `datasets` cannot open it, or its columns leave a choice.
    """
    if not path.exists():
        raise BuildError(f"{path} does not exist: name a folder that holds a dataset (nothing is fetched from the Hub)")
    with _only_local():
        splits, known = _open(path, config, work, findings)
    if "train" not in splits and len(splits) == 1:
        findings.add("the only split is taken as train", next(iter(splits)))
        splits = {"train": next(iter(splits.values()))}
    splits = {name: splits[name] for name in sorted(splits, key=lambda s: (s != "train", s))}
    root = path if path.is_dir() else path.parent
    return choose_source(splits, str(path), root, wishes, known, findings)


@contextmanager
def _only_local() -> Iterator[None]:
    """`datasets` without the Hub and without its progress bars."""
    before = {name: os.environ.get(name) for name in OFFLINE}
    os.environ.update(OFFLINE)  # read when `datasets` is imported
    require_data_extra()
    import datasets

    bars = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
        if bars:
            datasets.enable_progress_bars()


def _open(path: Path, config: str | None, work: Path, findings: Findings) -> tuple[dict[str, Rows], Known]:
    if path.is_file():
        if path.suffix == ".arrow":
            return {"train": open_arrow([path])}, known_of_schema(path)
        rows = open_rows([path], work / "train.jsonl", findings)
        return {"train": rows}, known_of(rows)
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _open_saved(path)
    return _open_files(path, config, work, findings)


def _open_saved(path: Path) -> tuple[dict[str, Rows], Known]:
    saved = load_saved(path, None)
    parts: dict[str | None, Any] = dict(saved) if isinstance(saved, dict) else {None: saved}
    splits: dict[str, Rows] = {
        split or "train": SavedRows(path, split, tuple(data.column_names), len(data)) for split, data in parts.items()
    }
    return splits, agreed(str(path), {str(split): known_of_features(data.features) for split, data in parts.items()})


def _open_files(path: Path, config: str | None, work: Path, findings: Findings) -> tuple[dict[str, Rows], Known]:
    """`datasets` says which files are which split; they are read where they lie, without its copy in a cache."""
    import datasets

    _refuse_remote_files(path)
    try:
        builder = datasets.load_dataset_builder(str(path), config, cache_dir=str(work / "cache"))
    except Exception as error:  # whatever README, folder or network bring it to raise
        raise BuildError(f"`datasets` cannot open {path} ({one_line(error)})") from None
    form = type(builder).__module__.rpartition(".")[2]
    if form not in TABLES:
        raise BuildError(f"{path} is a dataset of form {form!r}: {INSTEAD.get(form, 'save it by save_to_disk first')}")
    splits: dict[str, Rows] = {}
    said: dict[str, Known] = {}
    for split, names in (builder.config.data_files or {}).items():
        files = [_local(path, str(name)) for name in names]
        if form == "arrow":
            splits[str(split)], said[str(split)] = open_arrow(files), known_of_files(files)
        else:
            splits[str(split)] = open_rows(files, work / f"{len(splits)}.jsonl", findings)
            said[str(split)] = known_of(splits[str(split)])
    if not splits:
        raise BuildError(f"{path} holds no data files that `datasets` knows")
    declared, known = known_of_features(builder.info.features or {}), agreed(str(path), said)
    return splits, Known({**known.kinds, **declared.kinds}, {**known.classes, **declared.classes})


def _refuse_remote_files(path: Path) -> None:
    """A README may name files elsewhere; `datasets` would ask there whether they exist."""
    import yaml

    card = path / "README.md"
    parts = re.split(r"^---\s*$", card.read_text("utf-8", "replace"), maxsplit=2, flags=re.M) if card.is_file() else []
    try:
        head = yaml.safe_load(parts[1]) if len(parts) == 3 else None
    except yaml.YAMLError as error:
        raise BuildError(f"{card} has a damaged heading ({one_line(error)})") from None
    configs = head.get("configs") if isinstance(head, dict) else None
    for config in configs if isinstance(configs, list) else ():
        for name in texts_in(config.get("data_files") if isinstance(config, dict) else None):
            _local(path, name)


def _local(path: Path, name: str) -> Path:
    if ADDRESS.match(name):
        raise BuildError(f"{path} refers to {name}, which is not on this disk: nothing remote is fetched")
    return Path(name)
