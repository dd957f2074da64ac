"""Texts as they are read: the same code in training and in a release."""

from __future__ import annotations

import unicodedata

MARK = "\ufeff"  # the byte order mark, which some editors write before a text
# Letters and marks by category that nothing is drawn for: fillers, the empty braille cell, selectors of variants.
_UNDRAWN = {*"\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0", *map(chr, range(0xFE00, 0xFE10))}
_UNDRAWN |= {*map(chr, range(0x180B, 0x1810)), *map(chr, range(0xE0100, 0xE01F0))}
_NOTHING = ("Z", "C")  # Unicode's separators; controls, formats and what is not assigned


def clean(text: str) -> str:
    """``text`` without byte order marks before it; nothing else is changed.

    Raises ValueError for NUL, which tokenizers drop or stop at, and for halves of characters, which are no text.
    """
    text = text.lstrip(MARK)
    if "\0" in text:
        raise ValueError("a text with NUL characters: was it saved as UTF-16? Save it as UTF-8")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("a text with halves of characters (lone surrogates): mend the file that it comes from")
    return text


def is_blank(text: str) -> bool:
    """Whether a reader would see nothing: no character but white space, zero-width, control and format ones."""
    return all(unicodedata.category(letter)[0] in _NOTHING or letter in _UNDRAWN for letter in text)
