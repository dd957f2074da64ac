"""The samples of a split that a run learns from: of every folder of the data set, without those that are dropped.

No torch here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmpretrain.config.data import DataConfig, Incomplete, Kind, remote_problem
from mmpretrain.data.decode import MAX_ENCODED_BYTES
from mmpretrain.data.index import (
    INDEX_NAME,
    LABEL,
    Index,
    IndexMissingError,
    Pattern,
    ShardError,
    is_remote,
    load_index,
)
from mmpretrain.data.index_columns import EMPTY, LARGE
from mmpretrain.data.index_scan import is_litter
from mmpretrain.data.members import Holders, Members, find_members, suffix_of
from mmpretrain.data.sides import Side, rest, sides

TRAIN = "train"


@dataclass(frozen=True)
class Fault:
    """Samples that the index shows to be unusable for one cause: how many, and what they look like."""

    samples: int
    patterns: frozenset[Pattern]


@dataclass(frozen=True)
class Split:
    """A split, opened.

    index: the samples that count. members: where everything lies. dropped: cause -> how many samples are not in the
    index because of it; a sample with several causes counts for each. problems: what no member holds. held: what
    follows the keys in the names of all members, those of dropped samples too.
    """

    index: Index
    members: Members
    dropped: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


def split_folder(path: str, split: str) -> str:
    """The folder of a split's shards: ``PATH/SPLIT``, or PATH itself, whose tars all are for training."""
    folder = f"{path.rstrip('/')}/{split}"
    if is_remote(path) or split != TRAIN or Path(folder).is_dir():
        return folder
    return path if holds_shards(path) else folder


def holds_shards(folder: str) -> bool:
    """Whether a local folder has an index, or tars that may be indexed."""
    root = Path(folder)
    return (root / INDEX_NAME).is_file() or any(not is_litter(tar.name) for tar in root.glob("*.tar"))


def split_folders(config: DataConfig, split: str) -> list[str]:
    """The folders that hold the split: of ``path`` in any case, of further paths where there is one."""
    held = TRAIN if split in config.held_out else split
    first, *more = [split_folder(path, held) for path in config.paths]
    return [first, *(folder for folder in more if held == TRAIN or is_remote(folder) or Path(folder).is_dir())]


def side_of(config: DataConfig, split: str) -> Side | None:
    """Which of the samples of ``train`` are those of the split; None where it has all of its folder.

    Raises ShardError if a split that is to be held out lies there already.
    """
    for name in config.held_out:
        if there := [path for path in config.paths if not is_remote(path) and Path(split_folder(path, name)).is_dir()]:
            raise ShardError(f"data.held_out.{name}: {there[0]} has a folder {name} already: leave this share out")
    if not config.held_out or split not in (TRAIN, *config.held_out):
        return None
    return rest(config.held_out) if split == TRAIN else sides(config.held_out)[split]


def open_split(config: DataConfig, split: str) -> Split:
    """Open a split for reading.

    Raises ShardError if its index is missing, damaged or empty, if nothing is left of it, or if no member holds what
    the config wants.
    """
    opened = look_at(config, split)
    if opened.problems:
        raise ShardError("; ".join(opened.problems))
    return opened


def look_at(config: DataConfig, split: str, lacking: bool = False) -> Split:
    """As :func:`open_split`, but what no member holds is in ``problems``. lacking: as of :func:`find_members`."""
    config = config if split == TRAIN else config.without_negatives
    for path in config.paths:
        if problem := remote_problem(path):
            raise ShardError(f"data.path is {path!r}, which {problem}")
    first, *more = split_folders(config, split)
    others = [_index_if_any(folder, split) for folder in more]
    return of_indexes(config, split, [load_index(first), *(index for index in others if index is not None)], lacking)


def of_indexes(config: DataConfig, split: str, indexes: list[Index], lacking: bool = False) -> Split:
    """As :func:`look_at`, of the indexes of all folders."""
    index, side = joined(indexes), side_of(config, split)
    if side is not None and len(index):
        whole, index = index, index.on_side(side)
        if not len(index):
            raise ShardError(
                f"data.held_out leaves nothing for {split}: {whole.folder} has {len(whole)} samples;"
                f" {_other_share(config, split)}"
            )
    if not len(index):
        raise ShardError(f"{index.folder} has no samples: {again(config.build)}")
    held = tuple(index.extensions)
    members, problems = find_members(config, held, lacking)
    if problems or config.incomplete is Incomplete.refuse:
        return Split(index, members, problems=tuple(problems), held=held)
    faults = find_faults(config, index, members)
    unfit = frozenset[Pattern]().union(*(fault.patterns for fault in faults.values()))
    kept = index.kept(lambda pattern: pattern not in unfit) if unfit else index
    dropped = {cause: fault.samples for cause, fault in faults.items()}
    if not len(kept):
        causes = ", ".join(f"{cause} ({count})" for cause, count in dropped.items())
        raise ShardError(f"{index.folder}: data.incomplete=drop leaves none of its {len(index)} samples: {causes}")
    return Split(kept, members, dropped, held=held)


def _other_share(config: DataConfig, split: str) -> str:
    """What to do where a side is empty."""
    if split == TRAIN:
        return "hold out less of them"
    share = min(max(2 * config.held_out[split], 0.2), 0.5)
    return f"hold out more, such as data.held_out.{split}={share:g}, or give it a folder of its own"


def find_faults(config: DataConfig, index: Index, members: Members) -> dict[str, Fault]:
    """Cause -> which samples the index shows to be unusable for it; of the manifest alone, whatever their number."""
    found: dict[str, Fault] = {}
    for name, holders in members.modalities.items():
        modality = config.modalities[name]
        found |= _faults(name, holders, modality.kind, modality.optional, index)
    for name, holders in members.negatives.items():
        found |= _faults(f"hard negatives of {name}", holders, config.modalities[name].kind, True, index)
    return found | (_faults(LABEL, members.label, None, False, index) if members.label else {})


def again(build: str | None) -> str:
    """The advice to make a data set again."""
    return f"run `{build}`" if build else "build the dataset again"


def _index_if_any(folder: str, split: str) -> Index | None:
    """The index of a further folder; only asking a store tells whether a split is there that need not be."""
    try:
        return load_index(folder)
    except IndexMissingError:
        if split == TRAIN or not is_remote(folder):
            raise
        return None


def joined(indexes: list[Index]) -> Index:
    """All shards as one index, in the order of the folders."""
    first, *more = indexes
    return Index(first.folder, [shard for index in indexes for shard in index.shards]) if more else first


def _faults(name: str, holders: Holders, kind: Kind | None, optional: bool, index: Index) -> dict[str, Fault]:
    found: dict[str, Fault] = {}
    for cause, unfit in _causes(name, holders, kind, optional):
        patterns = frozenset(pattern for pattern in index.patterns if unfit(pattern))
        if patterns:
            found[cause] = Fault(sum(index.patterns[pattern] for pattern in patterns), patterns)
    return found


def _causes(
    name: str, holders: Holders, kind: Kind | None, optional: bool
) -> Iterator[tuple[str, Callable[[Pattern], bool]]]:
    """(cause, which patterns it is true of)."""
    members = frozenset(holders.members)
    yield f"no {name}", lambda pattern: not optional and not pattern.of(members)
    yield f"several {name}", lambda pattern: not holders.several and len(pattern.of(members)) > 1
    yield f"empty {name}", lambda pattern: set(pattern.of(members)) == {EMPTY}
    yield f"{name} above {MAX_ENCODED_BYTES >> 20} MiB", lambda pattern: LARGE in pattern.of(members)
    if kind is not None:
        odd = frozenset(member for member in members if suffix_of(member) not in kind.row.suffixes)
        yield f"{name} not of kind {kind.value}", lambda pattern: bool(pattern.of(odd))
