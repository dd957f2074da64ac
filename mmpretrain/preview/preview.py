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
from mmpretrain.data.index import ShardError, is_remote
from mmpretrain.data.info import DatasetInfo, dataset_info
from mmpretrain.preview.counts import SplitCounts, commonest, count_split
from mmpretrain.preview.opening import OpenedConfig, open_config
from mmpretrain.preview.samples import ShownSample, first_samples, named
from shards.inspection import describe_dataset, split_folders

TRAIN = "train"
MOST_MEMBERS = 12  # that a message names


@dataclass(frozen=True)
class Preview:
    """Everything that the page shows.

    described: content of dataset.json and counts by split, as ``mmpretrain shards inspect`` has them. split: the one
    that the samples are from. problems: what stands against training, one sentence each.
    """

    folder: str
    opened: OpenedConfig
    described: dict[str, Any]
    splits: dict[str, SplitCounts]
    split: str
    samples: list[ShownSample]
    classes: list[str] | None = None
    problems: list[str] = field(default_factory=list)

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
            "splits": splits,
            "samples": {"split": self.split, "keys": keys},
        }

    def label_name(self, label: int) -> str:
        """Number and name of a class."""
        return named(label, self.classes)

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


def composed(folder: str, tokens: Sequence[str], base: Path | None, config_dir: Path) -> Config:
    """The config that training would have for this folder. Raises ConfigError (a ValueError), ShardError."""
    return compose([*tokens, f"data.path={_root(folder)}"], base, Choices(config_dir))


def make_preview(
    folder: str,
    config: Config,
    split: str | None,
    samples: int,
    looked_at: int | None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Preview:
    """Look at the data set in ``folder`` as a run of ``config`` would.

    split: whose samples are shown (default: train, or else the first). samples: how many are shown. looked_at: how
    many of each split are counted, None for all. progress: called now and then with what is done, how far, and of how
    many. Raises ShardError if a split cannot be read.
    """
    described = describe_dataset(folder)
    names = [_split_name(path) for path in described["splits"]]
    shown = split or (TRAIN if TRAIN in names else names[0])
    if shown not in names:
        raise ShardError(f"{folder} has no split {shown!r}: there are {', '.join(names)}")
    opened = open_config(config)
    problems = list(opened.problems)
    counts: dict[str, SplitCounts] = {}
    for name in names:
        try:
            counts[name] = count_split(opened, name, looked_at, partial(progress, f"reading {name}"))
        except ShardError as error:
            if name == shown:
                raise
            problems.append(str(error))
    if not counts[shown].usable:
        problems.insert(0, _misfit(config, counts[shown], shown))
    info: DatasetInfo | None = dataset_info(config.data)
    classes = info.classes if info else None
    first = first_samples(opened, shown, min(samples, counts[shown].samples), classes, problems)
    return Preview(folder, opened, described, counts, shown, first, classes, list(dict.fromkeys(problems)))


def _misfit(config: Config, counts: SplitCounts, split: str) -> str:
    """What to say where no sample fits the config."""
    held = sorted(counts.sizes)
    shown = f"{', '.join(held[:MOST_MEMBERS])}{f' and {len(held) - MOST_MEMBERS} more' if held[MOST_MEMBERS:] else ''}"
    return (
        f"no sample of {split} can be used: data.modalities names {', '.join(config.data.modalities)}, and the members"
        f" are {shown}: choose the data that fits them, data=NAME"
    )


def _root(folder: str) -> str:
    """The data set that ``folder`` is, or that the one split lies in."""
    parts = split_folders(folder)
    if is_remote(folder):
        return folder.rstrip("/").rpartition("/")[0]
    return folder if Path(parts[0]) != Path(folder) else str(Path(folder).absolute().parent)


def _split_name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2] if is_remote(path) else Path(path).absolute().name
