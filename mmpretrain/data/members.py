"""Which members of a shard hold what: said by the config, or by their names where the choice is unique (no torch)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.data.index_scan import ShardError
from mmpretrain.data.index_shard import LABEL, modality_of
from mmpretrain.words import listed

# Of members without a modality in their names.
USUAL_NAMES = {Kind.image: "image", Kind.audio: "sound", Kind.text: "caption"}

LABEL_MEMBERS = (f"{LABEL}.cls", "cls")  # the first that is there, unless the config names another


@dataclass(frozen=True)
class Holders:
    """The members that hold one modality, or the label.

    members: what follows the key in their names. fields: keys in JSON members. weights: of ``fields``, else of
    ``members``; empty: no draw by weight. several: whether a sample may have more than one of them.
    """

    members: tuple[str, ...]
    fields: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    several: bool = False


@dataclass(frozen=True)
class Members:
    """Where everything that a config reads lies in the shards of an index. negatives: hard negatives by modality."""

    modalities: Mapping[str, Holders] = field(default_factory=dict)
    label: Holders | None = None
    negatives: Mapping[str, Holders] = field(default_factory=dict)

    @property
    def wanted(self) -> set[str]:
        """All members that are read."""
        holders = [*self.modalities.values(), *([self.label] if self.label else []), *self.negatives.values()]
        return {member for entry in holders for member in entry.members}


class NowhereError(ShardError):
    """No member holds what is looked for."""


def find_members(config: DataConfig, extensions: Collection[str], lacking: bool = False) -> tuple[Members, list[str]]:
    """Where the modalities (and, with labels, the label) of ``config`` lie, and a sentence for each that is nowhere.

    extensions: what follows the keys in the names of all members. lacking: whether optional modalities may be nowhere;
    they have no holders then.
    """
    found: dict[str, Holders] = {}
    problems: list[str] = []
    for name, modality in config.modalities.items():
        try:
            found[name] = _holders(name, modality, config, extensions)
        except NowhereError as error:
            if lacking and modality.optional:
                found[name] = Holders(())
            else:
                problems.append(str(error))
        except ShardError as error:
            problems.append(str(error))
    label = None
    if config.labeled:
        try:
            label = _label(config, extensions)
        except ShardError as error:
            problems.append(str(error))
    negatives, lacked = _negatives(config, extensions, lacking)
    return Members(found, label, negatives), problems + lacked


def _negatives(config: DataConfig, extensions: Collection[str], lacking: bool) -> tuple[dict[str, Holders], list[str]]:
    """Where hard negatives lie, and a sentence for those that are nowhere. lacking: as of :func:`find_members`."""
    found: dict[str, Holders] = {}
    problems: list[str] = []
    for name, negatives in config.hard_negatives.items():
        key = f"data.modalities.{name}.negatives"
        try:
            members = _named(f"{key}.member", negatives.members_of(name), extensions)
            _check_suffixes(key, f"{key}.member", members, config.modalities[name].kind)
            found[name] = Holders(tuple(members), tuple(negatives.field), several=True)
        except NowhereError as error:
            if not lacking:
                problems.append(str(error))
        except ShardError as error:
            problems.append(str(error))
    return found, problems


def suffix_of(extension: str) -> str:
    """``jpg`` of ``image.jpg`` and of ``jpg``."""
    return extension.rpartition(".")[2]


def nowhere(what: str, extensions: Collection[str], advice: str) -> str:
    """The sentence for something that no member holds."""
    return f"no member of the shards holds {what}; they have {listed(sorted(extensions)) or 'no members'}: {advice}"


def _holders(name: str, modality: ModalityConfig, config: DataConfig, extensions: Collection[str]) -> Holders:
    key = f"data.modalities.{name}"
    members = _named(f"{key}.member", modality.member, extensions) or _by_name(name, modality.kind, config, extensions)
    _check_suffixes(key, f"{key}.kind, or {key}.member", members, modality.kind)
    several = modality.kind.row.listed and len(modality.member) > 1
    return Holders(tuple(members), tuple(modality.field), tuple(modality.weights), several)


def _named(key: str, asked: Iterable[str], extensions: Collection[str]) -> list[str]:
    """The members that the config names, without a leading dot and in lower case, as the index has them."""
    wanted = [member.lstrip(".").lower() for member in asked]
    if wanted and not set(wanted) & set(extensions):
        raise NowhereError(nowhere(f"{key}=[{', '.join(wanted)}]", extensions, f"set {key} to some of these"))
    return wanted


def _check_suffixes(key: str, keys: str, members: Collection[str], kind: Kind) -> None:
    """Raises ShardError if none of the members can be of this kind. keys: what may be set."""
    unfit = [member for member in members if suffix_of(member) not in kind.row.suffixes]
    if len(unfit) == len(members):
        forms = ", ".join(f".{suffix}" for suffix in kind.row.suffixes)
        raise ShardError(
            f"{key} is a {kind.value} ({forms}), and the shards hold it as {listed(unfit)}: set {keys} to other members"
        )


def _by_name(name: str, kind: Kind, config: DataConfig, extensions: Collection[str]) -> list[str]:
    """``NAME.EXT``; else the members without a modality in their names, if only this one can be meant."""
    if called := sorted(e for e in extensions if modality_of(e) == name):
        return called
    bare = plain_members(kind, extensions)
    key = f"data.modalities.{name}.member"
    if not bare:
        raise NowhereError(nowhere(repr(name), extensions, f"choose among them, or set {key}"))
    rivals = [
        other
        for other, modality in config.modalities.items()
        if modality.kind is kind and not modality.member and not any(modality_of(e) == other for e in extensions)
    ]
    if len(rivals) > 1:
        raise ShardError(
            f"{' and '.join(rivals)} are {kind.value}s, and it is not clear which of {listed(bare)} holds {name!r}:"
            f" set {key}"
        )
    return bare


def plain_members(kind: Kind, extensions: Collection[str]) -> list[str]:
    """Members named ``KEY.EXT`` that a modality of this kind may be: metadata in JSON only where there is no text."""
    bare = sorted(e for e in extensions if not modality_of(e) and e in kind.row.suffixes)
    return [e for e in bare if e != "json"] or bare


def usual_members(
    names: Collection[str], taken: Collection[Kind], extensions: Collection[str]
) -> dict[str, tuple[Kind, list[str]]]:
    """Modality -> (kind, its members ``KEY.EXT``), by the usual name of each kind.

    names, taken: modalities that members are named after, and their kinds, of which there is no second one.
    """
    found: dict[str, tuple[Kind, list[str]]] = {}
    for kind, name in USUAL_NAMES.items():
        members = plain_members(kind, extensions)
        if members and kind not in taken and name not in names:
            found[name] = kind, members
    return found


def _label(config: DataConfig, extensions: Collection[str]) -> Holders:
    fields = (config.label.field,) if config.label.field else ()
    if asked := _named("data.label.member", config.label.member, extensions):
        return Holders(tuple(asked), fields)
    for member in LABEL_MEMBERS:
        if member in extensions:
            return Holders((member,), fields)
    elsewhere = sorted(e for e in extensions if modality_of(e) == LABEL)
    advice = f"set data.label.member=[{elsewhere[0]}]" if elsewhere else "set data.label.member, or data.classes=null"
    raise ShardError(nowhere(repr(LABEL), extensions, advice))
