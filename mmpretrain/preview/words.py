"""Texts: as decoded, and their tokens back as text, with what is cut, unknown or special marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from torch import Tensor

from mmpretrain.config.data import ModalityConfig
from mmpretrain.preview.plain import Measured

LONGEST = 600  # characters of a text, and tokens of a row, that are shown
SPACE = "\u2423"
PARTIAL = "\ufffd"  # what decoding gives for a part of a character


class TextPreview:
    """A modality of texts; see :class:`KindPreview`."""

    def __init__(
        self, name: str, modality: ModalityConfig, entry: Mapping[str, Any] | None, tokenizer: Any | None
    ) -> None:
        self.name, self._most = name, modality.max_length
        self._tokenizer: Any = tokenizer
        self.limits = {"tokens": float(modality.max_length)}
        framing = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "pad_token_id")
        ends = [getattr(tokenizer, key, None) for key in framing]
        unknown = getattr(tokenizer, "unk_token_id", None)
        self._unknown = None if unknown in ends else unknown  # CLIP's and GPT-2's is the one that ends a text
        self._special = set(getattr(tokenizer, "all_special_ids", ())) - {self._unknown}

    def decoded(self, value: Any) -> Markup:
        """See :class:`KindPreview`: every caption where there are several."""
        texts = [value] if isinstance(value, str) else list(value)
        found = Markup("").join(Markup('<p class="text">{}</p>').format(_short(text)) for text in texts)
        told = f"{len(texts)} captions, of which one is drawn: " if len(texts) > 1 else ""
        return found + _note(f"{told}{', '.join(f'{len(text):,}' for text in texts)} characters")

    def seen(self, tensors: Mapping[str, Tensor], value: Any) -> Markup:
        """See :class:`KindPreview`."""
        mask = tensors["attention_mask"].bool()
        ids = tensors["input_ids"][mask].tolist()
        padding = int((~mask).sum())
        whole = self._ids(value) if isinstance(value, str) else None
        cut = self._cut(value, ids, whole) if whole is not None else []
        shown = Markup("").join(self._token(number) for number in ids[:LONGEST])
        shown += Markup("").join(self._token(number, "cut") for number in cut[:LONGEST])
        told = f"{len(ids)} tokens" + (f", {padding} of padding" if padding else "")
        if whole is not None and len(whole) > self._most:
            told += f"; cut: the text has {len(whole)}, max_length is {self._most}"
        back = self._tokenizer.decode(ids, skip_special_tokens=True).strip()
        return Markup('<p class="tokens">{}</p><p class="text back">{}</p>{}').format(shown, _short(back), _note(told))

    def measured(self, value: Any) -> Measured:
        """See :class:`KindPreview`; of several captions the longest."""
        texts = [value] if isinstance(value, str) else list(value)
        numbers: dict[str, float] = {"characters": max(map(len, texts))}
        if self._tokenizer is None:
            return Measured(numbers)
        rows = [self._ids(text) for text in texts]
        numbers = {"tokens": max(map(len, rows)), **numbers}
        if self._unknown is not None:
            numbers["unknown tokens"] = sum(row.count(self._unknown) for row in rows)
        return Measured(numbers)

    def _ids(self, text: str) -> list[int]:
        """All tokens of a text, whatever its length."""
        ids: list[int] = self._tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return ids

    def _cut(self, text: str, ids: Sequence[int], whole: Sequence[int]) -> list[int]:
        """The tokens that do not reach the model; nothing where they are not simply the last ones of the text."""
        if len(whole) <= self._most:
            return []
        content = self._tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        kept = self._most - (len(whole) - len(content))
        is_start = any(list(ids[at : at + kept]) == content[:kept] for at in range(len(ids) - kept + 1))
        return list(content[kept:]) if kept > 0 and is_start else []

    def _token(self, number: int, cut: str = "") -> Markup:
        kinds = ["token"]
        if number == self._unknown:
            kinds.append("unknown")
        elif number in self._special:
            kinds.append("special")
        name = self._tokenizer.convert_ids_to_tokens(number)
        text = self._tokenizer.decode([number])
        shown = SPACE if text.isspace() else text if text and PARTIAL not in text else name
        classes = " ".join([*kinds, cut]).strip()
        return Markup('<span class="{}" title="{}">{}</span>').format(classes, f"{name} = {number}", shown)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _note(text: str) -> Markup:
    return Markup('<p class="note">{}</p>').format(text)
