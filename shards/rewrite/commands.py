"""What reshard, shuffle and merge make of their sources: a plan, and the data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any

from mmpretrain.data.index import INFO_NAME, is_remote
from mmpretrain.data.info import DatasetInfo, load_info
from mmpretrain.data.writing import BuildError
from mmpretrain.files import replace_text
from mmpretrain.words import command
from shards.rewrite.keys import Progress
from shards.rewrite.merged_info import merge_infos
from shards.rewrite.order import Order, Shuffled, in_place
from shards.rewrite.pieces import Piece, ShardSize, cut_evenly, cut_pieces
from shards.rewrite.rewrite import Plan, Rewritten, copy_beside, refuse_target, rewrite
from shards.rewrite.samples import Origin, SplitSamples
from shards.rewrite.sources import (
    BESIDE,
    DataSet,
    in_one_layout,
    note_what_stays,
    open_data_set,
    origin,
    prefixes_by_name,
    prefixes_by_shard,
    split_samples,
)
from shards.sources.findings import Findings


class Keys(Enum):
    """What becomes of the samples' keys."""

    keep = "keep"
    """They stay; one that comes more than once is refused."""

    prefix = "prefix"
    """The name of the shard, or of the data set in a merge, and a slash are put before them."""


def reshard(source: str, target: Path, size: ShardSize, keys: Keys, workers: int, progress: Progress) -> Rewritten:
    """The samples of ``source`` in the same order, in shards of another size; raises as :func:`rewrite` does."""
    return _one_to_one(source, target, ["reshard"], lambda count: in_place, (cut_pieces, size), keys, workers, progress)


def shuffle(
    source: str, target: Path, seed: int, size: ShardSize, keys: Keys, workers: int, progress: Progress
) -> Rewritten:
    """The samples of each split of ``source`` in the order of :class:`Shuffled`; raises as :func:`rewrite` does.

    Raises BuildError for a URL: each new shard reads from everywhere, which a bounded cache makes slow.
    """
    if is_remote(source):
        raise BuildError(f"{source} is a URL: `{command('mmpretrain', 'shards', 'reshard', source)}` brings it here")
    what = ["shuffle", seed]
    return _one_to_one(
        source, target, what, lambda count: Shuffled(count, seed), (cut_evenly, size), keys, workers, progress
    )


def merge(
    sources: Sequence[str], target: Path, size: ShardSize, keys: Keys, workers: int, progress: Progress
) -> Rewritten:
    """The samples of all sources, one after the other, split by split; raises as :func:`rewrite` does, and BuildError
    where the sources' dataset.json contradict one another.
    """
    target, asides = Path(os.path.realpath(target)), Findings()
    refuse_target(target, list(sources))
    opened = [open_data_set(source) for source in sources]
    found = in_one_layout(opened)
    text = _merged_text(target.name, found, asides)
    names = prefixes_by_name(found) if keys is Keys.prefix else [""] * len(found)
    splits: dict[str, SplitSamples] = {}
    for split in dict.fromkeys(chain.from_iterable(data_set.splits for data_set in found)):
        holders = [(d.splits[split], name) for d, name in zip(found, names, strict=True) if split in d.splits]
        splits[split] = split_samples([origin(index, (name,) * len(index.shards)) for index, name in holders])
    for data_set in opened:
        note_what_stays(data_set, (INFO_NAME,), asides)
    advice = "--prefix-keys puts the name of each source before its keys"
    if keys is Keys.prefix:
        advice = "first give one source other keys, by `mmpretrain shards reshard SOURCE NEW --prefix-keys`"
    return rewrite(
        Plan(splits, _cut(splits, cut_pieces, size), _writes(text), ["merge", _content(splits), text], advice),
        target,
        workers,
        asides,
        progress,
    )


Cut = Callable[[str, list[Any], ShardSize], list[Piece]]


def _one_to_one(
    source: str,
    target: Path,
    what: list[Any],
    order: Callable[[int], Order],
    cut: tuple[Cut, ShardSize],
    keys: Keys,
    workers: int,
    progress: Progress,
) -> Rewritten:
    """One data set becomes one. order: of a split of so many samples."""
    target, asides = Path(os.path.realpath(target)), Findings()
    refuse_target(target, [source])
    data_set = open_data_set(source)
    prefixes = prefixes_by_shard(data_set) if keys is Keys.prefix else {}
    splits = {
        split: split_samples([origin(index, prefixes.get(split))], order(len(index)))
        for split, index in data_set.splits.items()
    }
    note_what_stays(data_set, BESIDE, asides)
    info = _info_text(source)
    advice = "give the shards names that differ in letters and digits"
    if keys is Keys.keep:
        advice = "--prefix-keys puts the name of each shard before its keys"
    beside = copy_beside(Path(source), BESIDE) if not is_remote(source) else _writes(info)
    identity = [what, _content(splits), info]
    return rewrite(Plan(splits, _cut(splits, *cut), beside, identity, advice), target, workers, asides, progress)


def _cut(splits: dict[str, SplitSamples], cut: Cut, size: ShardSize) -> list[Piece]:
    def indexes(samples: SplitSamples) -> list[Any]:
        return [one.reader.index for one in samples.origins]

    return list(chain.from_iterable(cut(split, indexes(samples), size) for split, samples in splits.items()))


def _content(splits: dict[str, SplitSamples]) -> dict[str, Any]:
    """What is read and how keys change, as JSON."""

    def one(found: Origin) -> list[Any]:
        return [found.reader.index.fingerprint, found.prefixes]

    return {split: [one(found) for found in samples.origins] for split, samples in splits.items()}


def _info_text(source: str) -> str | None:
    """The dataset.json of a source as it would be written now; None if it has none."""
    try:
        return load_info(source).to_json()
    except FileNotFoundError:
        return None


def _merged_text(name: str, sources: list[DataSet], asides: Findings) -> str | None:
    """The merged dataset.json; None, with a note, unless all sources have one."""
    infos: list[tuple[str, DatasetInfo]] = []
    for data_set in sources:
        try:
            infos.append((data_set.folder, load_info(data_set.folder)))
        except FileNotFoundError:
            asides.add("sources without dataset.json, so the new data set has none", data_set.folder)
    if len(infos) < len(sources):
        return None
    try:
        return merge_infos(name, infos, asides).to_json()
    except (TypeError, KeyError, AttributeError) as error:
        raise BuildError(f"a dataset.json of {', '.join(s for s, _ in infos)} is damaged ({error!r})") from None


def _writes(text: str | None) -> Callable[[Path], None]:
    """A function that writes dataset.json into a folder, if there is any."""
    return lambda folder: None if text is None else replace_text(folder / INFO_NAME, text)
