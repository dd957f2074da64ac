"""A look at a data set through the code that trains on it: counts of every split, and the first samples of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmpretrain.config.choices import Choices
from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config
from mmpretrain.data.discovery import Discovery
from mmpretrain.data.index import SPLITS, ShardError, is_remote, load_index
from mmpretrain.data.index_checks import check_split
from mmpretrain.data.info import DatasetInfo, dataset_info
from mmpretrain.data.split import TRAIN, split_folders
from mmpretrain.preview.counts import SplitCounts, commonest, count_split
from mmpretrain.preview.opening import OpenedConfig, open_config
from mmpretrain.preview.samples import ShownSample, first_samples, named
from shards.inspection import index_counts
from shards.inspection import split_folders as part_folders


@dataclass(frozen=True)
class Preview:
    """Everything that the page shows.

    info: of dataset.json, None without. held: split -> what its folders hold (see ``index_counts``). splits: those
    that could be read. split: the one that the samples are from. problems: what stands against training; notes: what
    is good to know, one sentence each.
    """

    folder: str
    opened: OpenedConfig
    info: DatasetInfo | None
    held: dict[str, list[dict[str, Any]]]
    splits: dict[str, SplitCounts]
    split: str
    samples: list[ShownSample]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def config(self) -> Config:
        """What training would be told."""
        return self.opened.config

    def numbers(self) -> dict[str, Any]:
        """The counts as plain values."""
        splits = {name: self._numbers_of(counts) for name, counts in self.splits.items()}
        keys = [sample.key for sample in self.samples]
        return {
            "folder": self.folder,
            "problems": self.problems,
            "notes": self.notes,
            "splits": splits,
            "samples": {"split": self.split, "keys": keys},
        }

    def label_name(self, label: int) -> str:
        """Number and name of a class."""
        return named(label, self.info.classes if self.info else None)

    def _numbers_of(self, counts: SplitCounts) -> dict[str, Any]:
        return {
            "samples": counts.samples,
            "looked_at": counts.looked_at,
            "unusable": counts.unusable,
            "dropped": [asdict(entry) for entry in counts.causes],
            "labels": {self.label_name(label): counts.labels[label] for label in sorted(counts.labels)},
            "bytes": {name: {"members": len(s), "mean": sum(s) / len(s)} for name, s in sorted(counts.sizes.items())},
            "modalities": {name: self._modality(counts, name) for name in self.config.data.modalities},
        }

    def _modality(self, counts: SplitCounts, name: str) -> dict[str, Any]:
        found = counts.modalities[name]
        histograms = found.histograms(self.opened.previews[name].limits)
        return {
            "absent": found.absent,
            **{quantity: asdict(entry) for quantity, entry in histograms.items()},
            **{quality: dict(commonest(counter)) for quality, counter in found.words.items()},
        }


def composed(folder: str, tokens: Sequence[str], base: Path | None, config_dir: Path, notes: list[str]) -> Config:
    """The config that training would have for this folder; what was found out for it is added to ``notes``.

    Raises ConfigError (a ValueError).
    """
    choices, look = Choices(config_dir), Discovery()
    # One folder is looked at, whatever it is mixed with in training.
    config = compose([*tokens, "data.sources=null", f"data.path={folder}"], base, choices, look)
    if any(token.startswith("data.sources") for token in tokens):
        notes.append(f"of data.sources nothing is shown: this is {folder} alone; preview each of them")
    notes += [*choices.notes(), *look.notes]
    return config


def make_preview(
    folder: str,
    config: Config,
    split: str | None,
    samples: int,
    looked_at: int | None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Preview:
    """Look at the data set in ``folder`` as a run of ``config``, whose ``data.path`` it is, would.

    split: whose samples are shown (default: train, or else the first). samples: how many are shown. looked_at: how
    many of each split are counted, None for all. progress: called now and then with what is done, how far, and of how
    many. Raises ShardError if there is no such split, or an index is missing or damaged.
    """
    names = _splits(folder)
    shown = split or (TRAIN if TRAIN in names else names[0])
    if shown not in names:
        raise ShardError(f"{folder} has no split {shown!r}: there are {', '.join(names)}")
    opened = open_config(config)
    problems, counts = list(opened.problems), dict[str, SplitCounts]()
    notes: list[str] = []
    held = {name: [index_counts(load_index(part)) for part in split_folders(config.data, name)] for name in names}
    for name in names:
        checked = check_split(config.data, name)
        problems += checked.problems
        notes += checked.notes
        try:
            counts[name] = count_split(opened, name, looked_at, partial(progress, f"reading {name}"))
        except ShardError as error:
            problems.append(str(error))
    info = dataset_info(config.data)
    first: list[ShownSample] = []
    if shown in counts:
        number = min(samples, counts[shown].samples)
        first = first_samples(opened, shown, number, info.classes if info else None, problems)
    return Preview(folder, opened, info, held, counts, shown, first, *map(_once, (problems, notes)))


def _splits(folder: str) -> list[str]:
    """The splits of a data set; a folder of nothing but tars is for training."""
    if is_remote(folder):
        return [name for name in SPLITS if name == TRAIN or Discovery().has([folder], name)]
    parts = [Path(part) for part in part_folders(folder)]
    return [TRAIN] if parts == [Path(folder)] else [part.name for part in parts]


def _once(sentences: list[str]) -> list[str]:
    return list(dict.fromkeys(sentences))
