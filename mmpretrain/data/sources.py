"""A data set as a run reads it: one folder, or several sources that are mixed (no torch here)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path

from mmpretrain.config.data import DataConfig, Mixing
from mmpretrain.data.index import Index, IndexMissingError, ShardError, is_remote
from mmpretrain.data.members import Members
from mmpretrain.data.mixture import MixedSource, Mixture
from mmpretrain.data.plan import Plan
from mmpretrain.data.split import TRAIN, Split, joined, look_at, open_split, split_folder

# Of powers: far more than the shares can tell apart, and in software, so that no two machines differ.
_DIGITS = Context(prec=40)


@dataclass(frozen=True)
class OpenedData:
    """A split of all sources that have it.

    index: all shards, source by source; a sample's ordinal counts through it. members: where things lie, of each shard.
    parts: source -> its own split; without sources one, by ''.
    """

    index: Index
    members: tuple[Members, ...]
    parts: dict[str, Split]

    def plan(self, config: DataConfig, split: str, seed: int) -> Plan | Mixture:
        """The order of the samples; a mixture of the sources where the run trains on them.

        Raises ValueError as these do.
        """
        if config.sources and split == TRAIN:
            sources = mixed(config, {name: part.index for name, part in self.parts.items()})
            return Mixture(sources, seed, config.window, config.global_batch)
        sizes = tuple(shard.samples for shard in self.index.shards)
        return Plan(sizes, seed, config.window, config.global_batch)


def open_data(config: DataConfig, split: str) -> OpenedData:
    """Open a split for reading.

    Raises ShardError if an index is missing, damaged or empty, if nothing is left of it, or if no member holds what the
    config wants.
    """
    config = config if split == TRAIN else config.without_negatives
    if not config.sources:
        opened = open_split(config, split)
        return OpenedData(opened.index, (opened.members,) * len(opened.index.shards), {"": opened})
    parts = {name: part for name in parts_with(config, split) if (part := _look_at_part(config, name, split))}
    if problems := [*_problems(config, parts), *_nowhere(config, split, parts)]:
        raise ShardError("; ".join(problems))
    members = [part.members for part in parts.values() for _ in part.index.shards]
    return OpenedData(joined([part.index for part in parts.values()]), tuple(members), parts)


def parts_with(config: DataConfig, split: str) -> dict[str, DataConfig]:
    """The sections of the sources that have the split; of URLs, all, since that is only known when they are read.

    All of them have the training split, or must have it.
    """
    parts = config.parts
    if split == TRAIN or not config.sources:
        return parts
    found = {name: part for name, part in parts.items() if any(_may_have(path, split) for path in part.paths)}
    return found or parts  # that none has it is then said of the first


def mixed(config: DataConfig, indexes: dict[str, Index]) -> tuple[MixedSource, ...]:
    """The sources with their weights, as exact fractions of the decimals that the config has."""
    found = []
    for name, index in indexes.items():
        source = config.sources[name]
        size = _size_factor(len(index), config)
        firsts = sorted({0, *map(int, source.weight_from)})
        steps = tuple((first, Fraction(str(source.weight_at(first))) * size) for first in firsts)
        found.append(MixedSource(name, tuple(shard.samples for shard in index.shards), steps))
    return tuple(found)


def layout_problems(config: DataConfig, parts: dict[str, Split]) -> Iterator[str]:
    """A sentence for each modality that a source is said to hold in members of its own, and that no source holds."""
    for name, part in parts.items():
        for modality in config.sources[name].modalities:
            holders = part.members.modalities.get(modality)
            if holders is not None and not holders.members:
                yield f"data.sources.{name}.modalities.{modality} names no member of {part.index.folder}"
    for modality in config.hard_negatives:
        if parts and not any(modality in part.members.negatives for part in parts.values()):
            yield (
                f"no source holds hard negatives of {modality!r}: set data.modalities.{modality}.negatives.member, or"
                f" leave data.modalities.{modality}.negatives out"
            )
    for modality in config.modalities:
        found = [part.members.modalities.get(modality) for part in parts.values()]
        if found and all(holders is not None and not holders.members for holders in found):
            yield f"no source holds {modality!r}: set data.modalities.{modality}.member, or leave the modality out"


def _size_factor(samples: int, config: DataConfig) -> Fraction:
    if config.mixing is Mixing.weight:
        return Fraction(1)
    if config.mixing is Mixing.size or config.temperature == 1:
        return Fraction(samples)
    power = _DIGITS.divide(_DIGITS.ln(Decimal(samples)), Decimal(str(config.temperature)))
    return Fraction(_DIGITS.exp(power))


def _may_have(path: str, split: str) -> bool:
    return is_remote(path) or Path(split_folder(path, split)).is_dir()


def _look_at_part(config: DataConfig, name: str, split: str) -> Split | None:
    """None for a URL without this split."""
    part = config.parts[name]
    try:
        return look_at(part, split, lacking=True)
    except IndexMissingError:
        if split != TRAIN and is_remote(part.paths[0]) and len(config.sources) > 1:
            return None
        raise


def _problems(config: DataConfig, parts: dict[str, Split]) -> Iterator[str]:
    for name, part in parts.items():
        yield from (f"data.sources.{name}: {problem}" for problem in part.problems)
    yield from layout_problems(config, parts)


def _nowhere(config: DataConfig, split: str, parts: dict[str, Split]) -> Iterator[str]:
    if not parts:
        yield f"no source has a split {split!r}: {config.place}"
