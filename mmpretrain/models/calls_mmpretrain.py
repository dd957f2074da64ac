"""How a call of the processor is written: transformers' keywords, as samples by modality and entries for this call."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .batch_mmpretrain import check_form
from .inputs_mmpretrain import CUT, MULTIPLE, UNPADDED, WHOLE

# transformers' keyword -> the kind of modality that it means.
ALIASES = {"images": "image", "text": "text", "audio": "audio", "audios": "audio"}
OPTIONS = ("padding", "truncation", "max_length", "return_tensors", "sampling_rate", "flat")
# transformers' keywords that hold keywords -> the kind of modality that these are for; empty: for all.
_GROUPS = {
    "common_kwargs": "",
    "text_kwargs": "text",
    "images_kwargs": "image",
    "audio_kwargs": "audio",
    "videos_kwargs": "video",
}
_LONGEST, _FULL, _UNPADDED = (None, True, "longest"), ("max_length",), (False, "do_not_pad")
_CUT, _WHOLE = (None, True, "longest_first", "only_first"), (False, "do_not_truncate")

Entry = dict[str, Any]


@dataclass(frozen=True)
class CallOptions:
    """What a call asks for beside its samples, as transformers' processors understand it.

    padding: None, True or ``"longest"``: to the longest text of the call where the release allows it, else to the full
    length, so that a text always gets its embedding; ``"max_length"``: to the full length; False: not at all.
    truncation: None or True: longer texts are cut; False: they are refused. max_length: how many tokens count; None: as
    many as the modality takes. return_tensors: ``"pt"`` (None, too) or ``"np"``. flat: whether the answer is the
    tensors of the only modality that is passed, not nested, for readers that know no modalities.

    Raises ValueError for values that no release knows.
    """

    padding: Any = None
    truncation: Any = None
    max_length: Any = None
    return_tensors: Any = None
    flat: bool = False

    def __post_init__(self) -> None:
        # Enumerations of transformers are strings.
        _check("padding", self.padding, _LONGEST + _FULL + _UNPADDED)
        _check("truncation", self.truncation, _CUT + _WHOLE)
        check_form(self.return_tensors)

    def entry(self, name: str, modality: Entry, reader: Any) -> Entry:
        """The entry of a text or sequence for this call; others, and what the call says nothing about, stay.

        Raises ValueError where the release's encoder does not allow it: its embeddings would be others.
        """
        changes = self.padding not in _LONGEST or self.truncation in _WHOLE or self.max_length is not None
        if modality["kind"] not in ("text", "sequence") or not changes:
            return modality
        entry, by_batch = dict(modality), MULTIPLE in modality
        if self.padding in _FULL:
            entry.pop(MULTIPLE, None)
        if modality["kind"] == "text":
            entry |= {WHOLE: self.truncation in _WHOLE} | self._length(name, modality, reader, by_batch)
        if self.padding in _UNPADDED:
            _check_unpadded(name, modality, by_batch)
            entry[UNPADDED] = True
        return entry

    def _length(self, name: str, modality: Entry, reader: Any, by_batch: bool) -> Entry:
        if self.max_length is None:
            return {}
        least, most = reader.num_special_tokens_to_add() + 1, modality["max_length"]
        if not isinstance(self.max_length, int) or not least <= self.max_length <= most:
            raise ValueError(f"max_length is {self.max_length!r}, and modality {name!r} takes {least} to {most} tokens")
        # Where padding would be seen, a text that is cut to less is still padded to the full length.
        return {"max_length" if by_batch else CUT: self.max_length}


def call_of(modalities: Mapping[str, Entry], given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was passed to the processor -> (modality -> samples, option -> value).

    ``images``, ``text`` and ``audio`` (or ``audios``) mean the only modality of that kind, unless one has that very
    name. Raises ValueError for a keyword that means several modalities or none, and for what is given twice.
    """
    samples: dict[str, Any] = {}
    options: dict[str, Any] = {}
    kinds = {modalities[key]["kind"] if key in modalities else ALIASES.get(key) for key in given}
    for key, value in _flat(given, kinds):
        if key in OPTIONS and key not in modalities:
            options[key] = value
        elif key in modalities or key not in ALIASES or value is not None:
            name = _modality(key, modalities)
            if name in samples:
                raise ValueError(f"modality {name!r} was given twice: once as {key}")
            samples[name] = value
    return samples, options


def _flat(given: Mapping[str, Any], kinds: Collection[str | None]) -> list[tuple[str, Any]]:
    """Keyword and value, those in transformers' groups as if they stood beside them. kinds: that samples were passed
    of; what a group says of others counts for nothing."""
    found = []
    for key, value in given.items():
        if key in _GROUPS:
            unknown = sorted(set(value) - set(OPTIONS))
            if unknown:
                raise ValueError(f"{key} has {', '.join(unknown)}: a release knows {', '.join(OPTIONS)}")
            found += list(value.items()) if not _GROUPS[key] or _GROUPS[key] in kinds else []
        else:
            found.append((key, value))
    return found


def _modality(key: str, modalities: Mapping[str, Entry]) -> str:
    """The modality that a keyword means."""
    if key in modalities:
        return key
    if key not in ALIASES:
        raise ValueError(
            f"unknown modality {key!r}: this processor has {', '.join(modalities)}, and the keywords images, text,"
            f" audio, {', '.join(OPTIONS)}"
        )
    found = [name for name, entry in modalities.items() if entry["kind"] == ALIASES[key]]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"{key} was passed, and none of the modalities {', '.join(modalities)} is of that kind")
    raise ValueError(f"{key} may mean {' or '.join(found)}: name the modality, as {found[0]}=...")


def _check(key: str, value: Any, known: tuple[Any, ...]) -> None:
    # By type too: 1 is True to Python.
    if not (value is None or isinstance(value, (bool, str))) or getattr(value, "value", value) not in known:
        raise ValueError(f"{key} is {value!r}: use one of {', '.join(map(repr, known))}")


def _check_unpadded(name: str, modality: Entry, by_batch: bool) -> None:
    if modality["kind"] == "sequence":
        raise ValueError(f"modality {name!r} is a sequence, which is always padded: leave padding out")
    if not by_batch:
        raise ValueError(
            f"modality {name!r} needs all of its {modality['max_length']} places, since padding may be seen in its"
            " embeddings: leave padding out"
        )
