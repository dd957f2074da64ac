"""The bytes of a sample become objects: each modality from the members that hold it, and the label (no torch here)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmpretrain.config.data import Kind, LabelForm, ModalityConfig
from mmpretrain.data.decode import MAX_LABEL_DIGITS, Raw, SampleError, decode
from mmpretrain.data.kinds.text import decode_json, json_content
from mmpretrain.data.members import Holders, Members, suffix_of

MAX_VALUE_CHARACTERS = 64  # of a measured value
MAX_LIST_BYTES = 1 << 20  # of several class numbers
Sample = Mapping[str, Any]  # ``__key__``, ``__url__``, extension -> bytes
Draw = Callable[[str], float]  # modality -> number of [0, 1) that decides which of several texts is taken


def objects_of(
    sample: Sample,
    modalities: Mapping[str, ModalityConfig],
    members: Members,
    draw: Draw | None = None,
    readers: Mapping[str, Callable[[bytes], Any]] | None = None,
) -> dict[str, Any]:
    """The object of each modality; None for an optional one that the sample lacks.

    draw: decides between several texts; None: the first one is taken. readers: modality -> what makes its object of a
    member's bytes, in place of the kind's decoder. Raises SampleError.
    """
    objects: dict[str, Any] = {}
    for name, modality in modalities.items():
        reader = readers.get(name) if readers else None
        objects[name] = _object(name, sample, modality, members.modalities[name], draw, reader)
    if all(value is None for value in objects.values()):
        raise SampleError(f"it has none of its modalities, {', '.join(objects)}")
    return objects


def present_object(name: str, sample: Sample, kind: Kind, holders: Holders) -> Raw | None:
    """The object of a modality of which nothing but the kind is known; None if the sample lacks it."""
    found = _held(sample, holders)
    return _read(name, sample, kind, holders, found, None) if found else None


def captions_of(sample: Sample, kind: Kind, holders: Holders) -> list[str]:
    """All texts of a sample, of which training draws one; none if it lacks the modality. Raises SampleError."""
    return [text for text, _ in _captions(sample, kind, holders, _held(sample, holders))]


def label_of(
    sample: Sample, holders: Holders, classes: int, form: LabelForm = LabelForm.one_class, numbers: int = 1
) -> int | list[int] | float | list[float]:
    """The class number, all class numbers in order, or a measured value (of several ``numbers`` a list), as ``form``
    says.

    Raises SampleError unless it is there and holds decimal integers in [0, classes), or so many finite numbers.
    """
    found = _held(sample, holders)
    if len(found) != 1:
        raise SampleError(f"it has {' and '.join(found) or f'no {holders.members[0]}'}: exactly one label is needed")
    data: bytes = sample[found[0]]
    if holders.fields:
        content = json_content(data)
        data = str(content.get(holders.fields[0]) if isinstance(content, dict) else content).encode()
    text = data.strip()
    if form is LabelForm.value and numbers == 1:
        return _value(found[0], text)
    if form is LabelForm.value:
        values = [_value(found[0], value) for value in _listed(found[0], text)]
        if len(values) != numbers:
            raise SampleError(f"{found[0]}: has {len(values)} numbers, and data.label.numbers is {numbers}")
        return values
    if form is LabelForm.several:
        return sorted({_class(found[0], number, classes) for number in _listed(found[0], text)})
    return _class(found[0], text, classes)


def _listed(member: str, text: bytes) -> list[bytes]:
    """The numbers of a list, as JSON or with spaces or commas between them."""
    if len(text) > MAX_LIST_BYTES:
        raise SampleError(f"{member}: has {len(text)} bytes of numbers, more than {MAX_LIST_BYTES}")
    return text.removeprefix(b"[").removesuffix(b"]").replace(b",", b" ").split()


def _class(member: str, text: bytes, classes: int) -> int:
    if not text.isdigit() or len(text) > MAX_LABEL_DIGITS:
        raise SampleError(f"{member}: {text[:20]!r} is not a class number")
    if int(text) >= classes:
        raise SampleError(f"{member}: class {int(text)} is not below data.classes={classes}")
    return int(text)


def _value(member: str, text: bytes) -> float:
    try:
        value = float(text) if len(text) <= MAX_VALUE_CHARACTERS else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SampleError(f"{member}: {text[:20]!r} is not a finite number")
    return value


def _object(
    name: str,
    sample: Sample,
    modality: ModalityConfig,
    holders: Holders,
    draw: Draw | None,
    reader: Callable[[bytes], Any] | None,
) -> Any:
    found = _held(sample, holders)
    if modality.optional and not found:
        return None
    value = _read(name, sample, modality.kind, holders, found, draw, reader)
    return value if reader is not None else _checked(found[0], value, modality)


def _held(sample: Sample, holders: Holders) -> list[str]:
    return [member for member in holders.members if member in sample]


def _read(
    name: str,
    sample: Sample,
    kind: Kind,
    holders: Holders,
    found: Sequence[str],
    draw: Draw | None,
    reader: Callable[[bytes], Any] | None = None,
) -> Any:
    if len(found) != 1 and not (found and holders.several):
        raise SampleError(f"it has {' and '.join(found) or 'no member'} for {name!r}: exactly one is needed")
    if not kind.row.listed:
        return decode(found[0], sample[found[0]], kind, reader)
    return _drawn(name, _captions(sample, kind, holders, found), found[0], draw)


def _captions(sample: Sample, kind: Kind, holders: Holders, found: Sequence[str]) -> list[tuple[str, float]]:
    """All texts of a sample in order, each with its share of the weight of where it lies."""
    weighed: list[tuple[str, float]] = []
    for member in found:
        if suffix_of(member) != "json":
            groups = [[str(decode(member, sample[member], kind))]]
        else:
            groups = _json_texts(member, sample[member], holders.fields)
        by_field = holders.fields and suffix_of(member) == "json"
        for place, texts in enumerate(groups):
            way = place if by_field else holders.members.index(member)
            weight = holders.weights[way] if holders.weights else len(texts)
            weighed += [(text, weight / len(texts)) for text in texts]
    return weighed


def _json_texts(member: str, data: bytes, fields: Sequence[str]) -> list[list[str]]:
    try:
        return decode_json(data, fields)
    except SampleError as error:
        raise SampleError(f"{member}: {error}") from None


def _drawn(name: str, weighed: list[tuple[str, float]], member: str, draw: Draw | None) -> str:
    usable = [(text, weight) for text, weight in weighed if weight > 0]
    if not usable:
        raise SampleError(f"{member}: there is no text in it")
    if draw is None or len(usable) == 1:
        return usable[0][0]
    edges = np.cumsum([weight for _, weight in usable])
    return usable[min(int(np.searchsorted(edges, draw(name) * edges[-1], side="right")), len(usable) - 1)][0]


def _checked(member: str, value: Raw, modality: ModalityConfig) -> Raw:
    """``value``, if its shape is the configured one (images are resized, texts and sequences cut by the processor)."""
    if not isinstance(value, np.ndarray):
        return value
    shape, size, kind = list(value.shape), list(modality.size), modality.kind.value
    if modality.kind.row.tokens:
        if len(shape) != len(size) or not shape[0] or shape[1:] != size[1:]:
            needed = ", ".join([modality.kind.row.size[0], *map(str, size[1:])])
            raise SampleError(f"{member}: has shape {shape}, but a {kind} needs [{needed}]")
    elif shape != size:
        raise SampleError(f"{member}: has shape {shape}, but {kind}s of shape {size} are expected")
    return value
