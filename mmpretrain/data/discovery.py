"""What a folder of shards holds, as config: for data that no file describes (no torch here).

``dataset.json`` says it where a builder wrote one. Else the index does: each member's name and extension, and a look
into the first sample where those leave something open.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.config.data import DataConfig, ModalityConfig, Verify
from mmpretrain.config.default_model import BYTES, IMAGE_SIZE, SOUND_SECONDS
from mmpretrain.config.kind import Kind
from mmpretrain.data.decode import DECODERS, SampleError, decode
from mmpretrain.data.index import LABEL, SPLITS, Index, IndexMissingError, ShardError, is_remote, load_index
from mmpretrain.data.info import LARGER, load_info
from mmpretrain.data.kinds.text import json_content
from mmpretrain.data.members import LABEL_MEMBERS, Members, find_members, modality_of, suffix_of, usual_members
from mmpretrain.data.reader import Reader
from mmpretrain.data.split import TRAIN, holds_shards, split_folder
from mmpretrain.words import command, listed

# Names of keys that hold texts to learn from, the surest first.
USUAL_FIELDS = ("caption", "text", "captions", "texts", "prompt", "description", "sentence", "sentences")
# Of a file, and not what it shows; and what it does not show.
ABOUT = ("key", "url", "status", "license", "source", "split", "error_message", "negatives", "hard_negatives")
LOOKED_AT = 32  # JSON members: the first may be the one without a text
TOKENIZER = "tokenizer"  # folder beside the shards, where `mmpretrain tokenizer train` puts it

Entry = dict[str, Any]


class Discovery:
    """Looks into folders of shards on behalf of ``compose``. notes: what was found, one sentence each. split: that is
    looked into."""

    def __init__(self, split: str = TRAIN) -> None:
        self.notes: list[str] = []
        self.split = split
        self._numbered: list[str] = []  # what labels stand for in each data set that says it

    def data(self, path: str, given: Mapping[str, Any], least: int = 2) -> Entry:
        """The section ``data`` of the config: name, modalities, classes.

        given: entries of modalities that somebody described in part. least: modalities that the folder must hold.
        Raises ShardError with the fix if that cannot be told.
        """
        try:
            info = load_info(path)
        except (FileNotFoundError, NotADirectoryError):
            return self._from_index(path, given, least)
        known = set(ModalityConfig.__dataclass_fields__)
        modalities = {n: {k: v for k, v in entry.items() if k in known} for n, entry in info.modalities.items()}
        classes = len(info.classes) if info.classes else int(np.prod(list(info.factors.values()))) or None
        self._numbered += [str(info.classes or info.factors)] if classes else []
        self.notes.append(f"data: {_named(modalities)}, as {path}/dataset.json says")
        return {"name": _plain(info.name), "modalities": modalities, "classes": classes if classes != 1 else None}

    def mixture(self, sources: Mapping[str, Any], given: Mapping[str, Any]) -> Entry:
        """The section ``data`` of several sources: the union of what each of them holds.

        sources: entries of ``data.sources``. given: as of :meth:`data`. A modality that not all of them hold is
        optional, and where they hold texts of JSON under other keys, that is said by source. Raises ShardError where
        they contradict one another.
        """
        found = {name: self._of_source(name, entry, given) for name, entry in sources.items()}
        joined = join(found)
        if joined["classes"] and len(set(self._numbered)) > 1:
            joined["classes"] = None
            self.notes.append("labels are not used: the sources give the same numbers to different classes")
        if len(joined["modalities"]) < 2:
            raise ShardError(
                f"the sources hold {_named(joined['modalities'])} alone, and contrastive pretraining needs at least 2"
                " modalities: name others by data.modalities.NAME.member"
            )
        return joined

    def _of_source(self, name: str, entry: Mapping[str, Any], given: Mapping[str, Any]) -> Entry:
        try:
            return self.data(entry["path"], _given(entry, given), least=1)
        except ShardError as error:
            raise ShardError(f"data.sources.{name}: {str(error).removeprefix('data.')}") from None

    def tokenizer(self, paths: Sequence[str]) -> str:
        """The tokenizer that lies beside the shards of the first folder that has one; else bytes."""
        for path in paths:
            beside = Path(path) / TOKENIZER
            if not is_remote(path) and beside.is_dir():
                return str(beside)
        better = command("mmpretrain", "tokenizer", "train", "--data", paths[0])
        self.notes.append(f"texts are read byte by byte; for pieces of words: {better}")
        return BYTES

    def has(self, paths: Sequence[str], split: str) -> bool:
        """Whether one of the folders has this split; one that is not there at all may still get it."""
        return any(self._has(path, split) for path in paths)

    def _has(self, path: str, split: str) -> bool:
        if is_remote(path):
            try:
                return len(load_index(split_folder(path, split))) >= 0
            except ShardError:
                return False
        return not Path(path).is_dir() or holds_shards(split_folder(path, split))

    def _from_index(self, path: str, given: Mapping[str, Any], least: int) -> Entry:
        index = _open(path, self.split)
        modalities: dict[str, Entry] = {}
        for name, members in _by_modality(index).items():
            stated = (given.get(name) or {}).get("kind")
            modalities[name] = {"kind": Kind(stated).value} if stated else _entry(name, members, index)
        for name, entry in given.items():
            if isinstance(entry, Mapping) and entry.get("member") and name not in modalities:
                modalities[name] = {"kind": _kind_of(name, entry["member"])}
        if len(modalities) < least:
            found = f"only {_named(modalities)}" if modalities else "nothing"
            raise ShardError(
                f"{index.folder} holds {_held(index)}: {found} is known to be a modality by its name, and contrastive"
                f" pretraining needs at least 2; {_advice(index)}"
            )
        self.notes.append(f"data: {_named(modalities)}, found in {index.folder}, which holds {_held(index)}")
        if labels := [member for member in LABEL_MEMBERS if member in index.extensions]:
            self.notes.append(f"labels lie in {labels[0]}: they are used if data.classes is the number of classes")
        return {"name": _plain(Path(path).name), "modalities": modalities, "classes": None}


def placed(modalities: Mapping[str, ModalityConfig], index: Index) -> tuple[dict[str, ModalityConfig], Members]:
    """Modalities of a trained model and where they lie in other shards, found as for training, fields of JSON too.

    Raises ShardError for one that no member holds.
    """
    members, problems = find_members(DataConfig(modalities=dict(modalities)), index.extensions)
    if problems:
        raise ShardError("; ".join(problems))
    found = {
        name: replace(modality, **json_field(name, members.modalities[name].members, index))
        if modality.kind.row.listed
        else modality
        for name, modality in modalities.items()
    }
    return found, find_members(DataConfig(modalities=found), index.extensions)[0]


def _open(path: str, split: str) -> Index:
    folder = split_folder(path, split)
    if is_remote(path) or holds_shards(folder):
        try:
            return load_index(folder)
        except IndexMissingError:
            fix = command("mmpretrain", "shards", "index", folder)
            raise ShardError(f"data.path={path}: {folder} is not indexed: run `{fix}`") from None
    raise no_shards(path)


def no_shards(path: str) -> ShardError:
    """The error for a local ``path`` without shards: what it is instead, and what to do."""
    root = Path(path)
    if not root.is_dir():
        found = "is a file" if root.exists() else "there is no such folder"
        advice = "name a folder of shards, or data=NAME for one that a file describes"
        return ShardError(f"data.path={path}: {found}; {advice}")
    if others := [split for split in SPLITS if holds_shards(str(root / split))]:
        return ShardError(f"data.path={path}: has shards in {listed(others)} alone, and a run learns from {TRAIN}")
    held = listed(sorted({file.suffix.lower() or file.name for file in root.rglob("*") if file.is_file()}), 6)
    fix = command("mmpretrain", "shards", "build", "folder", path, f"data/{_plain(root.resolve().name)}")
    return ShardError(f"data.path={path}: holds no shards but {held or 'nothing'}; make some: `{fix}`")


def _by_modality(index: Index) -> dict[str, list[str]]:
    """Modality -> its members, of what could be one."""
    found: dict[str, list[str]] = {}
    for extension in index.extensions:
        name = modality_of(extension)
        if name and name != LABEL and name.isidentifier() and suffix_of(extension) in DECODERS:
            found.setdefault(name, []).append(extension)
    taken = {kind for members in found.values() for kind in DECODERS[suffix_of(members[0])].kinds}
    return found | {name: members for name, (_, members) in usual_members(found, taken, index.extensions).items()}


def _kind_of(name: str, members: Collection[str] | str) -> str:
    first = members if isinstance(members, str) else next(iter(members))
    decoder = DECODERS.get(suffix_of(str(first).lower()))
    if decoder is None or len(decoder.kinds) != 1:
        raise ShardError(f"data.modalities.{name}.kind is missing, and {first} does not tell it: set it")
    return decoder.kinds[0].value


def _entry(name: str, members: list[str], index: Index) -> Entry:
    kinds = DECODERS[suffix_of(members[0])].kinds
    kind = kinds[0] if len(kinds) == 1 else _kind_of_array(name, members, index)
    entry: Entry = {"kind": kind.value}
    if kind.row.resized:
        entry["size"] = [IMAGE_SIZE, IMAGE_SIZE]
    elif kind.row.extracted:
        entry["seconds"] = SOUND_SECONDS
    elif kind.row.listed:
        entry |= json_field(name, members, index)
    elif kind is Kind.vector:
        entry["size"] = list(_first_array(name, members, index).shape)
    return entry


def _kind_of_array(name: str, members: list[str], index: Index) -> Kind:
    array = _first_array(name, members, index)
    if array.ndim == 1:
        return Kind.vector
    raise ShardError(
        f"{name!r} has arrays of shape {list(array.shape)}: set data.modalities.{name}.kind=sequence and"
        f" data.modalities.{name}.size=[TIME STEPS,{array.shape[-1]}]"
    )


def json_field(name: str, members: Sequence[str], index: Index) -> Entry:
    """``field`` where texts lie in a JSON object and only one of its keys can be meant; {} where they need none.

    Raises ShardError where that cannot be told.
    """
    if suffix_of(members[0]) != "json":
        return {}
    objects: list[dict[str, Any]] = []
    for data in _some(members, index, LOOKED_AT):
        try:
            content = json_content(data)
        except SampleError as error:
            raise ShardError(f"{name!r} in {members[0]}: {error}") from None
        if isinstance(content, dict):
            objects.append(content)
    if not objects:
        return {}
    keys = list(dict.fromkeys(key for content in objects for key in content))
    texts = [key for key in keys if _may_be_texts([content.get(key) for content in objects])]
    usual = [key for key in USUAL_FIELDS if key in texts] or [
        key for key in texts if key not in ABOUT and any(_has_words(content.get(key)) for content in objects)
    ]
    if len(usual) == 1 or usual[:1] == ["caption"]:
        return {"field": usual[:1]}
    raise ShardError(
        f"{members[0]} holds an object with {listed(keys)}: say which of them are texts,"
        f" data.modalities.{name}.field=[KEY]"
    )


def _may_be_texts(values: Sequence[Any]) -> bool:
    """Whether there are texts or lists of texts among these values, and beside them only null."""
    flat = [entry for value in values for entry in (value if isinstance(value, list) else [value])]
    there = [entry for entry in flat if entry is not None]
    return bool(there) and all(isinstance(entry, str) for entry in there)


def _has_words(value: Any) -> bool:
    """Whether a text has several words or is one, as addresses, names of files and hashes are not."""
    texts = [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str)]
    return any(len(text.split()) > 1 or text.isalpha() for text in texts)


def _first_array(name: str, members: list[str], index: Index) -> np.ndarray:
    data = _first(members, index)
    if data is None:
        raise ShardError(
            f"data.modalities.{name}.kind and .size are missing, and remote shards are not opened: set them"
        )
    try:
        value = decode(members[0], data, Kind.vector)
    except SampleError as error:
        raise ShardError(f"{index.folder}: {error}") from None
    assert isinstance(value, np.ndarray)
    return value


def _first(members: Sequence[str], index: Index) -> bytes | None:
    """The first of these members; None for remote shards, which a look would fetch whole."""
    return next(iter(_some(members, index, 1)), None)


def _some(members: Sequence[str], index: Index, most: int) -> list[bytes]:
    """The first of these members in so many samples; none of remote shards, which a look would fetch whole."""
    if is_remote(index.folder):
        return []
    held = chain.from_iterable(ordinals.tolist() for ordinals in index.holding(members[:1]))
    reader = Reader(index, Verify.never, max_open=1)
    found: list[bytes] = [reader.sample(number)[members[0]] for number in islice(held, most)]
    reader.close()
    return found


def _held(index: Index) -> str:
    return listed(index.extensions) or "no members"


def _advice(index: Index) -> str:
    """What helps where the names of members tell too little."""
    unread = sorted({f".{suffix_of(e)}" for e in index.extensions if suffix_of(e) not in DECODERS} - {".cls"})
    odd = [e for e in index.extensions if modality_of(e) and not modality_of(e).isidentifier()]
    if 2 * len(odd) > len(index.extensions):
        first = f"{odd[0]} is what follows the first one"
        return f"your keys seem to contain dots ({first}): write the shards with other names"
    said = f" ({listed(unread)}: not read)" if unread else ""
    return f"name the others by data.modalities.NAME.member{said}"


def _named(modalities: Mapping[str, Entry]) -> str:
    return ", ".join(f"{name} ({_what(entry)})" for name, entry in modalities.items())


def _what(entry: Entry) -> str:
    return f"{entry['kind']}, its {' and '.join(entry['field'])}" if entry.get("field") else str(entry["kind"])


def _plain(name: str) -> str:
    """A name that a run may have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "own"


def join(found: Mapping[str, Entry]) -> Entry:
    """One section ``data`` of those of several sources. A color set is not read gray because a gray one is beside it.

    Raises ShardError where a modality is of two kinds, or a vector of two sizes.
    """
    modalities: dict[str, Entry] = {}
    layouts: dict[str, Entry] = {}
    for source, section in found.items():
        for name, entry in section["modalities"].items():
            first = modalities.setdefault(name, dict(entry))
            _refuse_contradiction(name, source, first, entry)
            first |= {key: max(first[key], entry[key]) for key in LARGER if first.get(key) and entry.get(key)}
            if entry.get("field", []) != first.get("field", []):
                layouts.setdefault(source, {})[name] = {"field": entry.get("field", [])}
    for name, entry in modalities.items():
        if not all(name in section["modalities"] for section in found.values()):
            entry["optional"] = True
    classes = {section["classes"] for section in found.values()}
    joined: Entry = {"name": "-".join(found), "modalities": modalities}
    joined["classes"] = classes.pop() if len(classes) == 1 else None
    if layouts:
        joined["sources"] = {source: {"modalities": entry} for source, entry in layouts.items()}
    return joined


def _refuse_contradiction(name: str, source: str, first: Entry, entry: Entry) -> None:
    keys = ["kind", *(["size"] if entry["kind"] in (Kind.vector.value, Kind.sequence.value) else [])]
    for key in keys:
        if entry.get(key) != first.get(key):
            raise ShardError(
                f"source {source} holds {name!r} with {key} {entry.get(key)}, and another source with {first.get(key)}:"
                f" these cannot be one modality; set data.sources.{source}.modalities.{name}.member to what can be"
            )


def _given(source: Mapping[str, Any], given: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is known of the modalities, with what a source says of where they lie in it."""
    layouts = source.get("modalities") or {}
    return {name: {**(given.get(name) or {}), **(layouts.get(name) or {})} for name in {**given, **layouts}}
