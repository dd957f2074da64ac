"""Config of the data (no torch here: the launcher reads it before anything heavy is imported)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from omegaconf import MISSING

from mmpretrain.config.augment import AugmentConfig, Choose
from mmpretrain.config.keys import FREE, PATH, PLACE
from mmpretrain.config.kind import Kind
from mmpretrain.config.modality import Decoding, ModalityConfig, Padding, Resize
from mmpretrain.config.negatives import NegativesConfig
from mmpretrain.config.reading import Incomplete, Unread, Verify
from mmpretrain.config.sources import LabelConfig, LabelForm, LayoutConfig, Mixing, SourceConfig
from mmpretrain.words import without_secrets

__all__ = [
    "AugmentConfig",
    "Choose",
    "DataConfig",
    "Decoding",
    "Incomplete",
    "Kind",
    "LabelConfig",
    "LabelForm",
    "LayoutConfig",
    "Mixing",
    "ModalityConfig",
    "NegativesConfig",
    "Padding",
    "Resize",
    "SourceConfig",
    "Unread",
    "Verify",
    "remote_problem",
]

REMOTE_SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf", "memory")

# What shards call labels, evaluations what is made of several modalities, processors the rate of sounds, and a call of
# the model what it is to answer.
RESERVED = (
    "label",
    "fused",
    "shared",
    "unique",
    "one_hot",
    "sampling_rate",
    "labels",
    "return_loss",
    "return_dict",
    "output_hidden_states",
    "output_attentions",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "flat",
)

# Samples per second, and seconds.
MOST = {"sampling_rate": 384_000, "seconds": 600.0, "load_seconds": 600.0}


@dataclass
class DataConfig:
    """Where the shards are and how they are streamed."""

    name: str = MISSING
    """Name of the dataset, part of the default name of a run."""

    path: str | None = field(default=None, metadata=PATH | PLACE)
    """Folder with ``train/`` and ``test/`` (tars and an ``index.json`` each) and ``dataset.json``: local, or a URL.
    null: ``sources`` says where samples lie; one of both is needed."""

    build: str | None = field(default=None, metadata=FREE)
    """The command that makes that folder; messages name it where the folder is missing. null: none is known."""

    modalities: dict[str, ModalityConfig] = field(default_factory=dict)
    """The modalities by name, at least two. ``data.modalities.NAME=null`` takes one out, and
    ``model.encoders.NAME=null`` its encoder. Where neither a file nor the command line names any, they are what
    ``dataset.json`` or the index of ``path`` says."""

    classes: int | None = None
    """Number of different labels, at least 2; null where samples have no labels."""

    global_batch: int = 128
    """Samples per optimizer step, over all ranks together."""

    window: int = 8
    """Shards whose samples are shuffled together."""

    workers: int = field(default=0, metadata=FREE)
    """Loader processes per rank; 0 loads in the training process."""

    prefetch_mb: float | None = field(default=None, metadata=FREE)
    """Memory on each rank for batches that loader processes make ahead of their step, in MB (10^6 bytes); a batch must
    fit. null: no bound but 2 batches per process. What the processes themselves need comes on top."""

    verify: Verify = field(default=Verify.first_use, metadata=FREE)
    """When a shard's sha256 is compared with the index. Shards of a URL are verified in any case, as they arrive."""

    max_bad_fraction: float = field(default=0.01, metadata=FREE)
    """Share of samples (0 to 1) that cannot be decoded and are replaced by others; above it the run ends."""

    record_keys: bool = field(default=True, metadata=FREE)
    """Whether the keys of every batch are written to ``consumed.jsonl`` (large files where batches are huge)."""

    cache_gb: float = field(default=64.0, metadata=FREE)
    """Disk space on each node for the shards of a URL, in GB (10^9 bytes). The cache lies in ``$MMPRETRAIN_CACHE``."""

    more_paths: list[str] = field(default_factory=list, metadata=PATH | PLACE)
    """Further folders like ``path`` whose samples belong to the same data set; a folder without a split adds nothing to
    it."""

    label: LabelConfig = field(default_factory=LabelConfig)
    """Where the labels lie; read only with ``classes``."""

    incomplete: Incomplete = Incomplete.refuse
    """What happens to samples that the index shows to be unusable."""

    unread: Unread = field(default=Unread.refuse, metadata=FREE)
    """What happens where files beside the shards look like data that would not be read."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """In place of ``path``: several data sets, by names of your choice, that are mixed in one stream by exact shares
    (docs/data.md). ``data.sources.NAME=null`` takes one out."""

    mixing: Mixing = Mixing.weight
    """What the shares of the ``sources`` come from."""

    temperature: float = 1.0
    """Of ``mixing: temperature``, above 0: 1 is by size, and from a very high one all sources are alike."""

    held_out: dict[str, float] = field(default_factory=dict)
    """Splits that the data set lacks, each with the share of ``train`` that becomes it, by a hash of each key:
    ``{validation: 0.1, test: 0.1}``. A run does not learn from these samples. ``data.held_out=null`` empties it."""

    accept_index: str | None = field(default=None, metadata=FREE)
    """Goes on with shards that have changed since the checkpoint: the first characters (8 at least) of the index that
    they have now, which the refusal names. The stream then goes on at its position in the new order of samples, so
    that until the next epoch some are seen again and others not (docs/resuming.md). null: such shards are refused."""

    @property
    def labeled(self) -> bool:
        """Whether samples have labels."""
        return self.classes is not None or self.label.form is LabelForm.value

    @property
    def paths(self) -> list[str]:
        """Every folder of the data set."""
        if self.sources:
            return [path for source in self.sources.values() for path in source.paths]
        return [*([self.path] if self.path else []), *self.more_paths]

    @property
    def place(self) -> str:
        """Where the data set lies, in words."""
        if not self.sources:
            return str(self.path)
        return " and ".join(f"{source.path} (source {name})" for name, source in self.sources.items())

    @property
    def parts(self) -> dict[str, DataConfig]:
        """Source -> its section, as if it were a data set of its own; without sources this one, by ''.

        By name, since a config is the same in whatever order it names its sources, and so must be the stream.
        """
        if not self.sources:
            return {"": self}
        return {name: self._part(source) for name, source in sorted(self.sources.items())}

    @property
    def hard_negatives(self) -> dict[str, NegativesConfig]:
        """Where hard negatives lie, of the modalities that have some."""
        return {name: entry.negatives for name, entry in self.modalities.items() if entry.negatives is not None}

    @property
    def without_negatives(self) -> DataConfig:
        """The same without hard negatives, which only training reads."""
        if not self.hard_negatives:
            return self
        return replace(self, modalities={name: replace(m, negatives=None) for name, m in self.modalities.items()})

    def _part(self, source: SourceConfig) -> DataConfig:
        modalities = {
            name: replace(modality, **vars(source.modalities[name])) if name in source.modalities else modality
            for name, modality in self.modalities.items()
        }
        label, more = source.label or self.label, list(source.more_paths)
        return replace(self, path=source.path, more_paths=more, sources={}, modalities=modalities, label=label)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = [p for name, modality in self.modalities.items() for p in modality.problems(name)]
        found += self._places()
        if len(self.modalities) < 2:
            named = ", ".join(self.modalities)
            found.append(
                f"data.modalities names {len(self.modalities)}{f' ({named})' if named else ''}: contrastive pretraining"
                " needs at least 2"
            )
        bad_names = [name for name in self.modalities if not name.isidentifier() or name in RESERVED]
        found += [
            f"data.modalities.{name}: use a plain identifier, none of {', '.join(RESERVED)}" for name in bad_names
        ]
        for key in ("global_batch", "window"):
            if getattr(self, key) < 1:
                found.append(f"data.{key} is {getattr(self, key)}: it must be at least 1")
        if self.cache_gb <= 0:
            found.append(f"data.cache_gb is {self.cache_gb}: it must be above 0")
        if self.prefetch_mb is not None and self.prefetch_mb <= 0:
            found.append(f"data.prefetch_mb is {self.prefetch_mb}: it must be above 0, or null for no bound")
        if self.workers < 0:
            found.append(f"data.workers is {self.workers}: it must be 0 or more")
        if not 0 <= self.max_bad_fraction <= 1:
            found.append(f"data.max_bad_fraction is {self.max_bad_fraction}: it must lie between 0 and 1")
        found += [*self._label_forms(), *self._held_out()]
        if self.accept_index is not None and not re.fullmatch("[0-9a-f]{8,64}", self.accept_index):
            found.append(f"data.accept_index is {self.accept_index!r}: 8 to 64 characters of 0-9 and a-f are needed")
        if self.temperature <= 0:
            found.append(f"data.temperature is {self.temperature}: it must be above 0")
        return found

    def _held_out(self) -> list[str]:
        """What is wrong with the shares that are held out."""
        names = [name for name in self.held_out if name == "train" or not name.isidentifier()]
        found = [f"data.held_out.{name}: name a split that is not there yet, such as validation" for name in names]
        shares = list(self.held_out.values())
        if any(not 0 < share < 1 for share in shares) or sum(shares) >= 1:
            found.append(f"data.held_out is {dict(self.held_out)}: shares lie above 0, and add up to less than 1")
        return found

    def _label_forms(self) -> list[str]:
        """What is wrong with the form of labels."""
        form = self.label.form
        found = [
            f"data.sources.{name}.label.form is {source.label.form} and data.label.form is {form}: give both the same"
            for name, source in self.sources.items()
            if source.label is not None and source.label.form is not form
        ]
        if form is LabelForm.value and self.classes is not None:
            found.append(f"data.label.form is value and data.classes is {self.classes}: set data.classes=null")
        if form is LabelForm.several and self.classes is None:
            found.append("data.label.form is several: set data.classes to the number of classes")
        for key, label in self._label_sections().items():
            if label.numbers != self.label.numbers:
                both = f"{key}.numbers is {label.numbers} and data.label.numbers is {self.label.numbers}"
                found.append(f"{both}: give both the same")
            elif label.numbers < 1:
                found.append(f"{key}.numbers is {label.numbers}: it must be at least 1")
            elif label.numbers > 1 and form is not LabelForm.value:
                found.append(
                    f"{key}.numbers is {label.numbers} and {key}.form is {form}: several numbers are of the form value"
                )
        return found

    def _label_sections(self) -> dict[str, LabelConfig]:
        """Key -> what is said of labels there."""
        own = {f"data.sources.{name}.label": source.label for name, source in self.sources.items() if source.label}
        return {"data.label": self.label, **own}

    def _places(self) -> list[str]:
        """What is wrong with where samples are said to lie."""
        if not self.sources:
            found = [] if self.path else ["data.path has no value"]
            keys = {"data.path": [self.path] if self.path else [], "data.more_paths": self.more_paths}
        elif self.path or self.more_paths:
            key, value = ("path", "null") if self.path else ("more_paths", "[]")
            return [
                f"data.{key} is {getattr(self, key)} and data.sources names {', '.join(self.sources)}, and a run reads"
                f" one or the other: set data.{key}={value}, or data.sources=null"
            ]
        else:
            found = [p for name, source in self.sources.items() for p in source.problems(name, self.modalities)]
            found += [] if found else _without_weight(self.sources)
            keys = {f"data.sources.{name}.path": [source.path] for name, source in self.sources.items()}
            keys |= {f"data.sources.{name}.more_paths": source.more_paths for name, source in self.sources.items()}
        for key, paths in keys.items():
            found += [
                f"{key} is {without_secrets(path)!r}, which {problem}"
                for path in paths
                if (problem := remote_problem(path))
            ]
        return found + self._twice()

    def _twice(self) -> list[str]:
        twice = sorted({path for path in self.paths if self.paths.count(path) > 1})
        key = "data.sources" if self.sources else "data.more_paths"
        return [f"{key} names {path!r} twice: its samples would count twice" for path in twice[:1]]


def _without_weight(sources: dict[str, SourceConfig]) -> list[str]:
    """A sentence if from some position on no source has a weight."""
    for position in sorted({0, *(int(first) for source in sources.values() for first in source.weight_from)}):
        if not any(source.weight_at(position) > 0 for source in sources.values()):
            return [f"data.sources: no source has a weight above 0 at position {position} of the stream"]
    return []


def remote_problem(path: str) -> str | None:
    """Why a path is neither local nor a URL that we fetch from, as the end of a sentence; None if it is one of them."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", path)
    if scheme is None:
        return None
    if "::" in path or scheme[1] not in REMOTE_SCHEMES or not path.startswith(f"{scheme[1]}://"):
        return f"is not read: use a folder, or one plain URL of {', '.join(f'{s}://' for s in REMOTE_SCHEMES)}"
    if scheme[1].startswith("http") and "?" in path:
        return "is not read: no file can be named behind a query; use the credentials that the store's library reads"
    return None
