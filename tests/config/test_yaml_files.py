"""Files of any encoding and shape are read or answered in one line, and what is written reads back as the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmpretrain.config.scalars import Scalar, read_decimal, read_whole
from mmpretrain.config.yaml_files import Items, Table, YamlError, parse, read_table, to_yaml

TEXT = "a: é\n"
# Content, what the one line says.
REFUSED = {
    "UTF-16": (TEXT.encode("utf-16"), "is UTF-16: save it as UTF-8"),
    "UTF-16 without a mark": (TEXT.encode("utf-16-le"), "NUL bytes"),
    "UTF-32": (TEXT.encode("utf-32"), "is UTF-32"),
    "Latin-1": (b"b: 1\n" + TEXT.encode("latin-1"), ":2: byte 0xe9 is no UTF-8"),
    "binary": (b"\x7fELF\0\0\0", "NUL bytes"),
    "a control character": (b"a: \x07\n", ":1: the character U+0007"),
    "empty": (b"", "is empty: write `key: value` lines"),
    "comments": (b"# a: 1\n", "is empty"),
    "a list": (b"- a\n", "holds a list"),
    "words": (b"just words\n", "holds a single value"),
    "two documents": (b"a: 1\n---\nb: 2\n", "no valid YAML"),
    "a key twice": (b"a: 1\nb: 2\na: 3\n", ":3: a stands in line 1 already"),
    "a tab": (b"a:\n\tb: 1\n", ":2: this is no valid YAML"),
    "a tag": (b"a: !!python/name:os.system x\n", ":1: the tag"),
    "an alias of itself": (b"a: &x [*x]\n", "stands inside itself"),
    "aliases of aliases": (
        b"a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 10)) for n in range(ord("b"), ord("i"))),
        "more than 100000 values",
    ),
    "deep nesting": (b"a: " + b"[" * 5000, "nested too deeply"),
    "a list as key": (b"? [a]\n: 1\n", "a key must be one word"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_is_none_is_answered_in_one_line(tmp_path: Path, case: str) -> None:
    content, reason = REFUSED[case]
    path = tmp_path / "a file.yaml"
    path.write_bytes(content)
    with pytest.raises(YamlError) as caught:
        read_table(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and reason in message and "\n" not in message


def test_a_folder_and_a_missing_file_are_answered_too(tmp_path: Path) -> None:
    with pytest.raises(YamlError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(YamlError, match="No such file"):
        read_table(tmp_path / "missing.yaml")


def test_the_fix_for_an_encoding_is_a_command_that_a_shell_reads(tmp_path: Path) -> None:
    path = tmp_path / "a file.yaml"
    path.write_bytes(TEXT.encode("latin-1"))
    with pytest.raises(YamlError, match=f"iconv -f ISO-8859-1 -t UTF-8 '{path}' > '{path}.utf8'"):
        read_table(path)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfaccount: 0012345  # ours\r\nname: 'no'\r\n")
    table = read_table(tmp_path / "a.yaml")
    assert table == {"account": Scalar("0012345", True, 1), "name": Scalar("no", False, 2)}


def test_aliases_and_merge_keys_are_resolved() -> None:
    raw = parse("a: &x {p: 1, q: 2}\nb: *x\nc: {<<: *x, q: 3}\nd: !!str 5\n", "file")
    assert isinstance(raw, Table) and raw["a"] == raw["b"]
    assert {key: value.text for key, value in raw["c"].items()} == {"p": "1", "q": "3"}
    assert raw["d"].text == "5"


SEEN = ("007", "no", "1_000", "12:30:45", "2026-11-29", "null", "~", "# x", "a: b", "é", "${X}", " ", "", "1e5", "0o7")
TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), TREES, max_size=4))
@settings(max_examples=150, deadline=None)
@example({text: text for text in SEEN})
@example({"a": "\x85\u2028 x\n y\n\n", "b": "- a", "c": "'", "d": '"', "e": "\ufeffx", "f": "=", "g": "<<", "<<": 1})
def test_what_is_written_reads_back_as_the_same(tree: dict[str, Any]) -> None:
    assert same(parse(to_yaml(tree), "file"), tree)


def same(raw: Any, value: Any) -> bool:
    """Whether a raw value is what was written, read by a key of its type."""
    if isinstance(value, dict):
        return isinstance(raw, Table) and raw.keys() == value.keys() and all(same(raw[k], value[k]) for k in value)
    if isinstance(value, list):
        return isinstance(raw, Items) and len(raw) == len(value) and all(map(same, raw, value))
    if value is None:
        return bool(raw.is_null)
    if isinstance(value, str):
        return bool(raw.text == value and not raw.is_null)
    if isinstance(value, bool):
        return bool(raw.text == str(value).lower())
    return bool((read_whole if isinstance(value, int) else read_decimal)(raw) == value)
