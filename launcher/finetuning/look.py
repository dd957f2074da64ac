"""The data of a fine-tuning under the names of its model: matched by name, else by kind where only one can be meant.

How samples are prepared is the model's to say; where they lie in the shards is the data's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from launcher.finetuning.start import Form, Start
from mmpretrain.config.data import DataConfig, ModalityConfig
from mmpretrain.config.kind import Kind
from mmpretrain.data.discovery import Discovery, Entry, join
from mmpretrain.data.index import ShardError, load_index
from mmpretrain.data.members import find_members
from mmpretrain.data.split import TRAIN, split_folder
from mmpretrain.words import listed

LAYOUT = ("member", "field", "weights")
_OF_DATA = (*LAYOUT, "optional")


class FinetuneLook(Discovery):
    """Looks into folders of shards for the modalities of ``start``."""

    def __init__(self, start: Start, split: str = TRAIN) -> None:
        super().__init__(split)
        self.start = start

    def data(self, path: str, given: Mapping[str, Any], least: int = 2) -> Entry:
        """As :meth:`Discovery.data`, with the model's names and preparation. Raises ShardError with the fix."""
        found = super().data(path, given, least)
        # A source of several may lack what others have.
        return found | {"modalities": self._matched(path, found["modalities"], given, lacking=least < 2)}

    def mixture(self, sources: Mapping[str, Any], given: Mapping[str, Any]) -> Entry:
        """As :meth:`Discovery.mixture`; where things lie is said by source."""
        found = {name: self._of_source(name, entry, given) for name, entry in sources.items()}
        joined = join(found)
        joined["sources"] = {
            source: {"modalities": {n: {k: e.get(k, []) for k in LAYOUT} for n, e in section["modalities"].items()}}
            for source, section in found.items()
        }
        for entry in joined["modalities"].values():
            for key in LAYOUT:
                entry.pop(key, None)
        return joined

    def _matched(
        self, path: str, found: Mapping[str, Entry], given: Mapping[str, Any], *, lacking: bool
    ) -> dict[str, Entry]:
        wanted = list(self.start.entries)
        # What somebody named a member for is there, whatever the builder called it.
        said = {n: {"kind": self.start.entries[n]["kind"]} for n in wanted if (given.get(n) or {}).get("member")}
        found = {**said, **found}
        pairs = match(self.start, wanted, {name: Kind(entry["kind"]) for name, entry in found.items()}, path, lacking)
        if unused := [name for name in found if name not in pairs.values()]:
            self.notes.append(f"of the data {listed(unused)} is not used: {self.start.called} has no encoder for it")
        return {name: self._entry(name, path, mine, found[mine]) for name, mine in pairs.items()}

    def _entry(self, name: str, path: str, mine: str, found: Entry) -> Entry:
        """The modality ``name`` of the model, which the data call ``mine``."""
        entry = prepared(self.start.entries[name], found)
        entry |= {key: found[key] for key in _OF_DATA if found.get(key)}
        if name != mine:
            members = _members(path, self.split, mine, found)
            entry["member"] = list(members)
            self.notes.append(f"{name} of the model is {mine} of the data ({listed(members)})")
        return entry


def match(start: Start, wanted: list[str], found: Mapping[str, Kind], path: str, lacking: bool) -> dict[str, str]:
    """Modality of the model -> that of the data; lacking: without those that the data do not have.

    Raises ShardError where that cannot be told, with the fix.
    """
    kinds = start.kinds
    pairs = {name: name for name in wanted if name in found and kinds.get(name, found[name]) is found[name]}
    for name in wanted:
        if name in pairs:
            continue
        fitting = [mine for mine, kind in found.items() if kind is kinds.get(name) and mine not in pairs.values()]
        rivals = [other for other in wanted if other not in pairs and kinds.get(other) is kinds.get(name)]
        if len(fitting) == 1 and rivals == [name]:
            pairs[name] = fitting[0]
            continue
        if fitting or not lacking:
            raise ShardError(_unmatched(start, name, fitting, found, path))
    return pairs


def _unmatched(start: Start, name: str, fitting: list[str], found: Mapping[str, Kind], path: str) -> str:
    held = listed(f"{mine} ({kind.value})" for mine, kind in found.items())
    if start.form is Form.encoders and name not in start.kinds:
        return f"{path} holds {held}, and none is called {name!r}: call the encoders as the data call their modalities"
    kind = start.kinds[name].value
    key = f"data.modalities.{name}"
    if fitting:
        return (
            f"{start.called} has {name!r} ({kind}), and {path} holds {held}: say which is meant by {key}.member=[EXT],"
            " what follows the key in the names of its members"
        )
    return (
        f"{start.called} has {name!r} ({kind}), and {path} holds {held}: name its members by {key}.member=[EXT], or"
        f" fine-tune without it: model.encoders.{name}=null"
    )


def prepared(model: Mapping[str, Any], found: Mapping[str, Any]) -> Entry:
    """The keys of a modality's section that say how it is prepared: the model's, else those of the data."""
    kind = Kind(model.get("kind", found["kind"]))
    # Of sounds the release says rate and length itself, unless somebody asks for others.
    keys = () if kind.row.extracted else kind.row.described_by
    return {"kind": kind.value} | {key: model.get(key, found.get(key)) for key in keys if key in {**found, **model}}


def _members(path: str, split: str, name: str, entry: Entry) -> tuple[str, ...]:
    """What follows the keys of the members that hold a modality of the data."""
    known = {key: value for key, value in entry.items() if key in ModalityConfig.__dataclass_fields__}
    modality = ModalityConfig(**{**known, "kind": Kind(entry["kind"])})
    index = load_index(split_folder(path, split))
    members, problems = find_members(DataConfig(modalities={name: modality}), index.extensions)
    if problems:
        raise ShardError("; ".join(problems))
    return members.modalities[name].members


def layouts(start: Start, path: str, split: str, said: list[str]) -> tuple[dict[str, Entry], int | None, list[str]]:
    """(modality -> where it lies, number of classes, notes) of another data set for the same model: the kept-out one.

    split: that is measured. said: the modalities whose members the user names. Raises ShardError with the fix.
    """
    look = FinetuneLook(start, split)
    try:
        found = look.data(path, {name: {"member": [f"{name}.txt"]} for name in said}, least=1)
    except ShardError as error:
        raise ShardError(str(error).replace("data.modalities", "finetune.general.modalities")) from None
    where = {name: {key: entry[key] for key in LAYOUT if entry.get(key)} for name, entry in found["modalities"].items()}
    return where, found["classes"], [f"kept-out {note}" for note in look.notes]
