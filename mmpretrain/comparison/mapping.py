"""Which tower of a model takes which modality of the data: by name, or because nothing else can be meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmpretrain.config.data import Kind
from mmpretrain.data.index import Index
from mmpretrain.embedding.choice import choose_towers, held_kinds
from mmpretrain.embedding.space import Space
from mmpretrain.problems import UnusableError
from mmpretrain.words import listed

Towers = dict[str, str]  # modality of the data -> tower


def map_modalities(
    space: Space, index: Index, asked: Mapping[str, Sequence[str]], pair: Sequence[str], described: Sequence[str]
) -> Towers:
    """Modality of the data -> tower of the space, in the order of ``described``, then of the shards.

    asked: modalities that are wanted -> towers that may take them (of several models; () for the one that fits); empty:
    all. pair: two modalities that the space must embed, and nothing else is embedded; () for no such wish. described:
    the modalities that dataset.json lists.
    A tower takes the modality of its name, else the only one of its kind, of those that are described if any is. Raises
    UnusableError with the choice to make where there are several, and for a choice that does not fit.
    """
    kinds = held_kinds(index)
    _check_names(space, kinds, [*asked, *pair])
    order = dict.fromkeys([*described, *kinds])
    names = [name for name in order if name in kinds and (not asked or name in asked) and (not pair or name in pair)]
    named = {name: tower for name in names for tower in asked.get(name, ()) if tower in space.towers}
    by_name = {n: n for n in names if n not in named and n in space.towers and space.towers[n].kind in kinds[n]}
    found = named | by_name
    # Where towers have names of their own and some of them fit, another name means something else.
    if not found or all(tower == reading.kind.value for tower, reading in space.towers.items()):
        left = [name for name in names if name not in found]
        found |= _by_kind(space, kinds, left, set(found.values()), described)
    chosen = {name: found[name] for name in names if name in found}
    if lacking := [name for name in pair if name not in chosen]:
        raise UnusableError([f"{_both(space, kinds)}: it has no tower for {lacking[0]!r} of --pair {','.join(pair)}"])
    if not chosen:
        raise UnusableError([f"{_both(space, kinds)}: say which is which, --modalities {_example(kinds, space)}"])
    return choose_towers(space, index, dict(chosen))


def _by_kind(
    space: Space,
    kinds: Mapping[str, tuple[Kind, ...]],
    names: Sequence[str],
    taken: set[str],
    described: Sequence[str],
) -> Towers:
    """Of what is left, each tower with the only modality of its kind. Raises UnusableError where one has several."""
    found: Towers = {}
    for tower, reading in space.towers.items():
        fitting = [name for name in names if reading.kind in kinds[name]]
        fitting = [name for name in fitting if name in described] or fitting
        rivals = [t for t, other in space.towers.items() if other.kind is reading.kind and t not in taken]
        if tower in taken or not fitting:
            continue
        if len(fitting) > 1 or len(rivals) > 1:
            raise UnusableError(
                [
                    f"{_both(space, kinds)}: which {reading.kind.value} is meant is not clear; say"
                    f" --modalities {fitting[0]}={tower}"
                ]
            )
        found[fitting[0]] = tower
    return found


def _check_names(space: Space, kinds: Mapping[str, tuple[Kind, ...]], names: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in kinds]:
        raise UnusableError([f"unknown modality {unknown[0]!r}: {_both(space, kinds)}"])


def _example(kinds: Mapping[str, tuple[Kind, ...]], space: Space) -> str:
    return f"{next(iter(kinds), 'NAME')}={next(iter(space.towers), 'TOWER')}"


def _both(space: Space, kinds: Mapping[str, tuple[Kind, ...]]) -> str:
    held = listed(f"{name} ({' or '.join(dict.fromkeys(k.value for k in ks))})" for name, ks in kinds.items())
    taken = listed(f"{name} ({reading.kind.value})" for name, reading in space.towers.items())
    return f"the shards hold {held or 'no modality'}, and {space.name} embeds {taken}"
