"""What ``mmpretrain evaluate`` is asked to do, as its ranks receive it (no torch here)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpretrain.config.data import LabelConfig, LabelForm
from mmpretrain.config.evaluation import EvaluationConfig, Metric
from mmpretrain.data.index import ShardError, load_index
from mmpretrain.data.split import split_folder
from mmpretrain.embedding.jobs import POOLS
from mmpretrain.problems import nearest, one_line

RESULT = "evaluate.json"


@dataclass(frozen=True)
class EvaluateJob:
    """What all ranks of a command share.

    models: name in the table -> folder or Hub id of what is opened. data: data set; split, probe_split: folders of it.
    out: folder for the result. metrics: () for all that can be measured. towers: modality of the data -> towers that
    may take it, () for the one that fits; empty: all modalities. pair: modalities that every model must embed, and
    nothing else is; () for no such wish. settings: keys of the config's section ``evaluation``, KEY=VALUE.
    label: member that holds the labels, or MEMBER:FIELD of a JSON one; None: where builders put them. label_form: what
    they are. limit: samples of a split. workers: loader processes per rank. max_bad_fraction: share of samples that may
    be unreadable.
    """

    worker: ClassVar[str] = "mmpretrain.comparison.worker"

    models: Mapping[str, str]
    data: str
    out: str
    split: str = "test"
    probe_split: str = "train"
    metrics: Sequence[str] = ()
    towers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    pair: Sequence[str] = ()
    settings: Sequence[str] = ()
    label: str | None = None
    label_form: str = LabelForm.one_class.value
    classes: Sequence[str] = ()
    templates: Sequence[str] = ()
    limit: int = 50_000
    batch: int = 256
    workers: int = 0
    pool: str | None = None
    max_bad_fraction: float = 0.0

    def problems(self) -> list[str]:
        """What is wrong with it, one sentence each; local folders are looked at, and indexes read."""
        found = [
            f"--{key} is {getattr(self, key)}: it must be at least 1"
            for key in ("limit", "batch")
            if getattr(self, key) < 1
        ]
        if self.workers < 0:
            found.append(f"--workers is {self.workers}: it must be 0 or more")
        if not 0 <= self.max_bad_fraction <= 1:
            found.append(f"--max-bad-fraction is {self.max_bad_fraction}: it must lie between 0 and 1")
        if self.pool is not None and self.pool not in POOLS:
            found.append(f"--pool is {self.pool!r}: use one of {', '.join(POOLS)}")
        found += [*self._unknown_metrics(), *self._wrong_pair(), *self._wrong_templates(), *self._unusable_data()]
        found += list(self._wrong_labels())
        return found or list(self._wrong_settings())

    @property
    def label_config(self) -> LabelConfig:
        """Where labels lie, and what they are."""
        member, _, field = (self.label or "").partition(":")
        return LabelConfig([member] if member else [], field or None, LabelForm(self.label_form))

    @property
    def wanted(self) -> list[Metric]:
        """The metrics that were asked for; none: all that can be measured."""
        return [Metric.__members__[name] for name in self.metrics]

    def evaluation(self) -> EvaluationConfig:
        """The settings of the metrics. Raises ValueError, with the key, for what they do not know."""
        given = {"split": self.split, "probe_split": self.probe_split, "max_samples": self.limit, "batch": self.batch}
        words = {"classes": list(self.classes), "templates": list(self.templates)}
        zero_shot = {"zero_shot": {key: texts for key, texts in words.items() if texts}}
        try:
            base = OmegaConf.structured(EvaluationConfig)
            merged = OmegaConf.merge(base, OmegaConf.from_dotlist(list(self.settings)), given, zero_shot)
            made = OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            raise ValueError(f"--set {' '.join(self.settings)}: {one_line(error)}") from None
        assert isinstance(made, EvaluationConfig)
        return made

    def to_json(self) -> str:
        """Text from which :meth:`from_json` makes it again."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EvaluateJob:
        """The job that :meth:`to_json` wrote."""
        return cls(**json.loads(text))

    def _unknown_metrics(self) -> Iterator[str]:
        for name in self.metrics:
            if name not in list(Metric):
                yield f"--metric is {name!r}{nearest(name, list(Metric))}: use one of {', '.join(Metric)}"

    def _wrong_pair(self) -> Iterator[str]:
        if self.pair and (len(self.pair) != 2 or len(set(self.pair)) != 2 or not all(self.pair)):
            yield f"--pair is {','.join(self.pair)!r}: write the names of two modalities, FIRST,SECOND"
        for name, towers in self.towers.items():
            if not name or not all(towers):
                yield f"--modalities has an entry {name!r}={','.join(towers)!r}: write NAME or NAME=TOWER, ..."

    def _wrong_templates(self) -> Iterator[str]:
        for text in self.templates:
            if text.count("{}") != 1:
                yield f"--template is {text!r}: write {{}} once, where the name of the class goes"
        for name in (name for name in set(self.classes) if self.classes.count(name) > 1):
            yield f"--classes has {name!r} twice: give every class a name of its own, in the order of the labels"

    def _wrong_labels(self) -> Iterator[str]:
        if self.label_form not in list(LabelForm):
            yield f"--label-form is {self.label_form!r}: use one of {', '.join(LabelForm)}"

    def _wrong_settings(self) -> Iterator[str]:
        try:
            yield from self.evaluation().problems()
        except ValueError as error:
            yield str(error)

    def _unusable_data(self) -> Iterator[str]:
        try:
            index = load_index(split_folder(self.data, self.split))
            if not len(index):
                yield f"{index.folder} has no samples: name another --split"
        except ShardError as error:
            others = [entry.name for entry in sorted(Path(self.data).glob("*/index.json"))]
            splits = [path.parent.name for path in sorted(Path(self.data).glob("*/index.json"))] if others else []
            yield f"{error}{f'; or --split {splits[0]}, which is there' if splits and self.split not in splits else ''}"
