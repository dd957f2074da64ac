"""The data set of a comparison: its splits, and what its samples tell beside their modalities (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass

from mmpretrain.comparison.job import EvaluateJob
from mmpretrain.config.data import LabelConfig, LabelForm
from mmpretrain.data.index import Index, ShardError, load_index
from mmpretrain.data.info import DatasetInfo, load_info
from mmpretrain.data.members import LABEL_MEMBERS
from mmpretrain.data.split import split_folder


@dataclass(frozen=True)
class OpenedData:
    """splits: name -> index, of the split to measure on and, if it can be opened, of the one to learn from. info: what
    describes the data, None if nothing does. classes: names of the labels, None if they have none. label: where these
    lie, and what they are."""

    test: Index
    probe: Index | None
    splits: dict[str, Index]
    info: DatasetInfo | None
    classes: list[str] | None
    label: LabelConfig

    @property
    def described(self) -> list[str]:
        """The modalities that dataset.json lists."""
        return list(self.info.modalities) if self.info else []

    @property
    def named(self) -> list[str] | None:
        """The names of the labels that dataset.json has."""
        return self.info.classes if self.info else None

    @property
    def labeled(self) -> bool:
        """Whether every sample of the splits has a label."""
        return all(_labeled(index, self.label) for index in self.splits.values())

    @property
    def factors(self) -> dict[str, int]:
        """What labels are codes of."""
        return self.info.factors if self.info else {}


def open_data_set(job: EvaluateJob) -> OpenedData:
    """Raises ShardError if the split to measure on cannot be opened, or dataset.json is damaged, and ValueError if
    several classes have no names."""
    test = load_index(split_folder(job.data, job.split))
    probe = _index_if_any(job.data, job.probe_split)
    splits = {job.split: test} | ({} if probe is None else {job.probe_split: probe})
    try:
        info = load_info(job.data)
    except (FileNotFoundError, NotADirectoryError):
        info = None
    classes = list(job.classes) or (info.classes if info else None)
    if job.label_form == LabelForm.several and not classes:
        raise ValueError("--label-form several needs the names of all classes: give --classes")
    return OpenedData(test, probe, splits, info, classes, job.label_config)


def _index_if_any(data: str, split: str) -> Index | None:
    try:
        index = load_index(split_folder(data, split))
    except ShardError:
        return None
    return index if len(index) else None


def _labeled(index: Index, label: LabelConfig) -> bool:
    members = label.member or [member for member in LABEL_MEMBERS if member in index.extensions][:1]
    return bool(members) and index.count(members) == len(index)
