"""Which column becomes which modality, as the options say, or by itself where the choice is unique."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpretrain.config.sources import LabelForm
from mmpretrain.data.index import LABEL
from mmpretrain.data.writing import BuildError
from mmpretrain.problems import nearest
from mmpretrain.words import listed
from shards.sources.findings import Findings
from shards.sources.members import kind_of_bytes
from shards.sources.rows import WHERE
from shards.sources.sample import Column, MemberKind, located
from shards.sources.values import is_gap, label_name, written_list

IMAGE_SUFFIXES = tuple(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif"]
)
AUDIO_SUFFIXES = tuple([".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"])
KIND_OF_SUFFIX = dict.fromkeys(IMAGE_SUFFIXES, MemberKind.image) | dict.fromkeys(AUDIO_SUFFIXES, MemberKind.audio)
CAPTION_NAMES = ("caption", "captions", "text", "texts", "sentence", "sentences", "description", "prompt")
LABEL_NAMES = ("label", "class", "cls", "category")
DEFAULT_NAMES = {MemberKind.image: "image", MemberKind.audio: "sound", MemberKind.text: "caption"}
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Wishes:
    """What the options say about columns. modalities: name -> (column, kind or None). label_form: of the labels."""

    modalities: Mapping[str, tuple[str, MemberKind | None]] = field(default_factory=dict)
    label: str | None = None
    key: str | None = None
    label_form: LabelForm = LabelForm.one_class
    split: str | None = None
    """The column of splits."""

    @property
    def columns(self) -> list[str | None]:
        """Every column that is named; None for labels, keys or splits that are not."""
        return [*(column for column, _ in self.modalities.values()), self.label, self.key, self.split]


@dataclass(frozen=True)
class Known:
    """What a source says of its columns. kinds: of images and sounds; classes: names of its labels."""

    kinds: Mapping[str, MemberKind] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    """Columns whose texts are paths."""


def agreed(where: str, parts: Mapping[str, Known]) -> Known:
    """What several splits or files say together. Raises BuildError where they number the classes of a column otherwise:
    the labels of one would be those of others in the next."""
    kinds: dict[str, MemberKind] = {}
    classes: dict[str, tuple[str, ...]] = {}
    files = frozenset[str]()
    for part, known in parts.items():
        for column, names in known.classes.items():
            if classes.setdefault(column, names) != names:
                raise BuildError(
                    f"{where} numbers the classes of {column!r} differently in {part} ({listed(names, 3)}) than before"
                    f" ({listed(classes[column], 3)}): give all parts the same features (`datasets`: cast)"
                )
        kinds |= known.kinds
        files |= known.files
    return Known(kinds, classes, files)


@dataclass(frozen=True)
class Choice:
    """The columns that become modalities, and the one of labels, if any."""

    columns: tuple[Column, ...]
    label: str | None


def parse_modalities(options: Sequence[str]) -> dict[str, tuple[str, MemberKind | None]]:
    """``NAME=COLUMN`` or ``NAME=COLUMN:KIND`` -> name -> (column, kind). Raises BuildError for anything else."""
    found: dict[str, tuple[str, MemberKind | None]] = {}
    for option in options:
        name, equals, column = option.partition("=")
        if not equals or not column or name in found:
            raise BuildError(f"--modality {option}: write NAME=COLUMN, each NAME once (such as image=file)")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name == LABEL:
            raise BuildError(f"--modality {option}: {name!r} cannot be a name, use letters and digits (not 'label')")
        before, colon, kind = column.rpartition(":")
        is_kind = bool(colon) and kind in list(MemberKind)
        found[name] = (before, MemberKind(kind)) if is_kind else (column, None)
    return found


def choose_columns(
    where: str,
    names: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    root: Path,
    wishes: Wishes,
    known: Known,
    findings: Findings,
) -> Choice:
    """Decide by the first rows of a table. findings: gets the columns that are left out.

    Raises BuildError: a column is not there, or there are several choices; the message lists the columns.
    """
    names = [name for name in names if name != WHERE]
    for column in wishes.columns:
        if column is not None and column not in names:
            raise BuildError(f"{where} has no column {column!r}{nearest(column, names)}; it has {listed(names, 20)}")
    label = wishes.label or _label(names, known, {column for column, _ in wishes.modalities.values()})
    if label is not None and (why := _no_classes(label, rows, wishes)):
        if wishes.label:
            raise BuildError(f"column {label!r} of {where} holds {why}: a label is one class per sample")
        findings.add("columns that look like labels are not taken as such (--label takes them)", f"{label} ({why})")
        label = None
    seen = {name: _looked_at(name, rows, root, known) for name in names if name != label}
    if wishes.modalities:
        columns = [_asked_for(where, name, *wish, seen) for name, wish in wishes.modalities.items()]
    else:
        named = {wishes.split, wishes.key}
        columns = _by_themselves(where, {n: s for n, s in seen.items() if n not in named or s.files})
    used = {column.column for column in columns} | {wishes.key, wishes.split}
    for name in seen:
        if name not in used and not name.startswith("__"):
            findings.add("columns that are not used", f"{name} ({seen[name].words})")
    return Choice(tuple(columns), label)


@dataclass(frozen=True)
class _Seen:
    """What the first values of a column look like. kind: None if it is no modality, and why (``words``)."""

    kind: MemberKind | None
    words: str
    files: bool = False
    lists: bool = False


def _looked_at(name: str, rows: Sequence[Mapping[str, Any]], root: Path, known: Known) -> _Seen:
    values: list[Any] = [value for row in rows if not is_gap(value := row.get(name)) and value not in ("", [])]
    if name in known.files:
        return _Seen(_kind_of_most(values) or _kind_of_paths(values, root) or MemberKind.text, "files", files=True)
    if name in known.kinds:
        return _Seen(known.kinds[name], known.kinds[name].value)
    if not values:
        return _Seen(None, "empty")
    if all(isinstance(value, str) for value in values):
        return _looked_at_texts(values, root)
    if all(isinstance(value, list) for value in values) and _flat(values):
        return _Seen(MemberKind.text, "lists of texts")
    if parts := _parts(values):
        return _Seen(None, f"objects: a part of them is named as {name}.{parts[0]}")
    if all(isinstance(value, str | list) for value in values):
        return _Seen(MemberKind.text, "texts and lists of texts") if _flat(values) else _Seen(None, "nested lists")
    kinds = {_kind_of_value(value) for value in values}
    kind = kinds.pop() if len(kinds) == 1 else None
    return _Seen(kind, f"{kind.value} bytes" if kind else f"values of type {type(values[0]).__name__}")


def _flat(values: Sequence[Any]) -> bool:
    return all(isinstance(v, str) or is_gap(v) for value in values if isinstance(value, list) for v in value)


def _parts(values: Sequence[Any]) -> list[str]:
    """Keys of the objects in a column, or in its lists; none for images and sounds as `datasets` stores them."""
    flat = [entry for value in values for entry in (value if isinstance(value, list) else [value])]
    if not flat or not all(isinstance(entry, Mapping) for entry in flat):
        return []
    keys = list(flat[0])
    texts = [k for k in keys if isinstance(flat[0][k], str) or _is_texts(flat[0][k])]
    return [] if {"bytes", "path"} & set(keys) else texts or keys


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and _flat([value])


def _looked_at_texts(values: Sequence[str], root: Path) -> _Seen:
    if all(ADDRESS.match(value) for value in values):
        return _Seen(None, "remote addresses, which are not fetched")
    if all(written_list(value) for value in values):
        return _Seen(MemberKind.text, "lists of texts", lists=True)
    kind = _kind_of_paths(values, root)
    return _Seen(kind, f"paths of {kind.value} files", files=True) if kind else _Seen(MemberKind.text, "texts")


def _kind_of_most(paths: Sequence[str]) -> MemberKind | None:
    """The kind of most of these files by suffix, if no other kind is among them: some may be of a form that is not
    read, and are left out later."""
    kinds = [kind for path in paths if (kind := KIND_OF_SUFFIX.get(Path(path).suffix.lower()))]
    return kinds[0] if len(set(kinds)) == 1 and 2 * len(kinds) > len(paths) else None


def _kind_of_paths(values: Sequence[str], root: Path) -> MemberKind | None:
    """The kind of files that all these texts name, by suffix; or without one by the bytes of those that are there."""
    kinds = {KIND_OF_SUFFIX.get(Path(value).suffix.lower()) for value in values}
    if len(kinds) == 1 and None not in kinds:
        return kinds.pop()
    usable = [value for value in values if len(value) < 1024 and "\0" not in value]
    found = [path for value in usable if _is_file(path := located(root, value))]
    if 2 * len(found) <= len(values):
        return None
    kinds = {_kind_of_file(path) for path in found}
    return kinds.pop() if len(kinds) == 1 else None


def _is_file(path: Path) -> bool:
    """False for a text that is too long for a name, too, which Python raises for."""
    try:
        return path.is_file()
    except OSError:
        return False


def _kind_of_file(path: Path) -> MemberKind | None:
    try:
        with path.open("rb") as file:
            return kind_of_bytes(file.read(64))
    except OSError:
        return None


def _kind_of_value(value: Any) -> MemberKind | None:
    if isinstance(value, Mapping) and value.get("bytes") is None and isinstance(value.get("path"), str):
        return KIND_OF_SUFFIX.get(Path(value["path"]).suffix.lower())
    data = value.get("bytes") if isinstance(value, Mapping) else value
    return kind_of_bytes(data[:64]) if isinstance(data, bytes) else None


def _label(names: Sequence[str], known: Known, taken: set[str]) -> str | None:
    """The only column that is one of labels, by what the source says or by its name."""
    free = [name for name in names if name not in taken]
    declared = [name for name in free if name in known.classes]
    found = declared or [name for name in free if name.lower() in LABEL_NAMES]
    return found[0] if len(found) == 1 else None


def _no_classes(label: str, rows: Sequence[Mapping[str, Any]], wishes: Wishes) -> str | None:
    """What is in a column instead of one class per row; None if it is what it seems, or what was asked for."""
    if wishes.label_form is not LabelForm.one_class:
        return None
    asked = wishes.label is not None
    values = [value for row in rows if not is_gap(value := row.get(label))]
    if any(isinstance(value, list | Mapping) for value in values):
        return "lists or objects"
    return "numbers with fractions" if not asked and any(map(_is_fraction, values)) else None


def _is_fraction(value: Any) -> bool:
    return re.fullmatch(r"-?\d*\.\d*[1-9]\d*", label_name(value)) is not None


def _asked_for(where: str, name: str, column: str, kind: MemberKind | None, seen: Mapping[str, _Seen]) -> Column:
    found = seen.get(column)
    if found is None:
        raise BuildError(f"column {column!r} of {where} is the labels' and cannot be modality {name!r} too")
    kind = kind or found.kind
    if kind is None:
        raise BuildError(
            f"column {column!r} of {where} holds {found.words}: no modality; if these are files say --modality"
            f" {name}={column}:image (or :audio, :text)"
        )
    files = found.files or (kind is not MemberKind.text and found.words in ("texts", "empty"))
    return Column(name, column, kind, files, found.lists)


def _by_themselves(where: str, seen: Mapping[str, _Seen]) -> list[Column]:
    """All columns of images, of sounds, and the one of texts."""
    media = [name for name, s in seen.items() if s.kind in (MemberKind.image, MemberKind.audio)]
    texts = [name for name, s in seen.items() if s.kind is MemberKind.text]
    named = [name for name in texts if name.lower() in CAPTION_NAMES or seen[name].files]
    if len(texts) > 1 and len(named) != 1:
        raise BuildError(
            f"{where} has {len(texts)} columns of texts ({', '.join(texts[:10])}): say which by --modality NAME=COLUMN"
            f" for each modality, such as {' '.join(f'--modality {_name(n)}={n}' for n in [*media[:1], texts[0]])}"
        )
    chosen = [*media, *(texts if len(texts) == 1 else named)]
    if not chosen:
        listed = "; ".join(f"{name}: {s.words}" for name, s in list(seen.items())[:20]) or "no columns"
        raise BuildError(f"{where} has no column of images, sounds or texts ({listed})")
    columns = []
    for name in chosen:
        kind = seen[name].kind
        assert kind is not None
        alone = sum(seen[other].kind is kind for other in chosen) == 1 and kind is not MemberKind.text
        default = name == "file_name" or (alone and not name.endswith("_file_name"))
        modality = DEFAULT_NAMES[kind] if default else _name(name.removesuffix("_file_name"))
        columns.append(Column(modality, name, kind, seen[name].files, seen[name].lists))
    return columns


def _name(column: str) -> str:
    """A modality's name made of a column's."""
    name = re.sub(r"\W+", "_", column, flags=re.ASCII).strip("_").lower()
    return name if re.match(r"[a-z]", name) and name != LABEL else f"m_{name}"
