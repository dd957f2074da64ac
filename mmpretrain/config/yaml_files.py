"""YAML to and from raw values: files of any encoding answered in one line, every scalar left as it is written.

What a scalar means is for its key to say (config/typed.py). Here are no types, no variables, no tags; aliases and merge
keys (``<<``) are resolved, keys are texts, and a key that stands twice is refused.
"""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mmpretrain.config.scalars import Scalar, ScalarError, read_any

LARGEST = 4_000_000  # bytes of a file
MOST_VALUES = 100_000  # after aliases, which could make billions of a small file

_PLAIN, _QUOTED = "plain", "quoted"
_STRING = "tag:yaml.org,2002:str"
_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", _STRING, _PLAIN, _QUOTED, "!"}


class YamlError(ValueError):
    """A file or text that cannot be read; one line that names it, the line where there is one, and the fix."""


class Table(dict[str, Any]):
    """Keys and their raw values. line: where it starts; lines: where each key stands; None, empty: command line."""

    def __init__(self, entries: dict[str, Any] | None = None, line: int | None = None) -> None:
        super().__init__(entries or {})
        self.line = line
        self.lines: dict[str, int] = {}


class Items(list[Any]):
    """Raw values one after another. line: where they start, None on the command line."""

    def __init__(self, entries: list[Any] | None = None, line: int | None = None) -> None:
        super().__init__(entries or [])
        self.line = line


Raw = Scalar | Table | Items


def read_table(path: Path) -> Table:
    """The ``key: value`` lines of a file. Raises YamlError, also for an empty file and for a list."""
    raw = parse(_text_of(path), str(path))
    if raw is None or (isinstance(raw, Scalar) and raw.is_null):
        raise YamlError(f"{path} is empty: write `key: value` lines, or {{}} if nothing is to be set")
    if not isinstance(raw, Table):
        what = "a list" if isinstance(raw, Items) else "a single value"
        raise YamlError(f"{path} holds {what}: write `key: value` lines")
    return raw


def parse(text: str, name: str | None = None) -> Raw | None:
    """The raw value of a YAML text; None if there is nothing in it. Raises YamlError.

    name: of the file, for messages; None: the text is one value, and the caller says which.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
        return None if node is None else _Nodes(name).raw(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _place(name, mark.line + 1 if mark else None)
        raise YamlError(f"{place}this is no valid YAML ({error.problem or error.context}); {_FIX}") from None
    except yaml.reader.ReaderError as error:
        place = _place(name, text.count("\n", 0, error.position) + 1)
        raise YamlError(f"{place}the character U+{int(error.character):04X} is none of YAML's: delete it") from None
    except RecursionError:
        raise YamlError(f"{_place(name)}lists and mappings are nested too deeply to be read") from None


def to_yaml(tree: Any, *, inline: bool = False) -> str:
    """The YAML of plain values (texts, numbers, true, false, null, lists, mappings), which reads back as the same.

    inline: what a key of the outermost mapping holds stands in its line, in braces and brackets.
    """
    options: dict[str, Any] = {"Dumper": _Dumper, "allow_unicode": True, "sort_keys": False, "width": float("inf")}
    if not inline:
        return yaml.dump(tree, default_flow_style=False, **options)
    return "".join(f"{yaml.dump({k: v}, default_flow_style=True, **options).strip()[1:-1]}\n" for k, v in tree.items())


_FIX = "a text with `: `, ` #`, brackets or quotes in it needs quotes around it, and indents are spaces"


def _place(name: str | None, line: int | None = None) -> str:
    if name is None:
        return ""
    return f"{name}: " if line is None else f"{name}:{line}: "


def _text_of(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark."""
    if path.is_dir():
        raise YamlError(f"{path} is a folder: name a file of `key: value` lines")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise YamlError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > LARGEST:
        raise YamlError(f"{path} has more than {LARGEST} bytes: this is no file of settings")
    for mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if data.startswith(mark):
            raise YamlError(f"{path} is UTF-{'32' if len(mark) == 4 else '16'}: {_convert(path, 'UTF-16')}")
    if b"\0" in data:
        raise YamlError(f"{path} holds NUL bytes (a binary file, or UTF-16): {_convert(path, 'UTF-16')}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise YamlError(
            f"{path}:{line}: byte 0x{data[error.start]:02x} is no UTF-8: {_convert(path, 'ISO-8859-1')}"
        ) from None


def _convert(path: Path, encoding: str) -> str:
    made = shlex.quote(f"{path}.utf8")
    return f"save it as UTF-8, or, if it is {encoding}: iconv -f {encoding} -t UTF-8 {shlex.quote(str(path))} > {made}"


class _Loader(yaml.BaseLoader):
    """Nodes of YAML, whose scalars keep whether they stood in quotes and nothing else."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Tag of a node that has none of its own."""
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _QUOTED
        return str(super().resolve(kind, value, implicit))


class _Nodes:
    """From nodes to raw values, with limits against files that are made to explode."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.open: set[int] = set()
        self.count = 0

    def raw(self, node: yaml.Node) -> Raw:
        """The raw value of a node."""
        line = node.start_mark.line + 1
        self.count += 1
        if self.count > MOST_VALUES:
            raise YamlError(f"{_place(self.name)}there are more than {MOST_VALUES} values")
        if node.tag not in _TAGS:
            raise YamlError(f"{_place(self.name, line)}the tag {node.tag!r} is not read: leave it out")
        if isinstance(node, yaml.ScalarNode):
            return Scalar(node.value, node.tag == _PLAIN, line)
        if id(node) in self.open:
            raise YamlError(f"{_place(self.name, line)}this stands inside itself (an alias of what is around it)")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return Items([self.raw(entry) for entry in node.value], line)
            assert isinstance(node, yaml.MappingNode)
            return self._table(node, line)
        finally:
            self.open.discard(id(node))

    def _table(self, node: yaml.MappingNode, line: int) -> Table:
        table, merged = Table(line=line), Table()
        for key, value in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise YamlError(f"{_place(self.name, at)}a key must be one word")
            if key.tag == _PLAIN and key.value == "<<":
                for source in self._merged(value, at):
                    merged.update({k: v for k, v in source.items() if k not in merged})
                    merged.lines.update({k: v for k, v in source.lines.items() if k not in merged.lines})
                continue
            if key.value in table:
                first = table.lines[key.value]
                raise YamlError(
                    f"{_place(self.name, at)}{key.value} stands in line {first} already: leave one of them out"
                )
            table[key.value], table.lines[key.value] = self.raw(value), at
        for name in [name for name in merged if name not in table]:
            table[name], table.lines[name] = merged[name], merged.lines[name]
        return table

    def _merged(self, node: yaml.Node, line: int) -> Iterator[Table]:
        raw = self.raw(node)
        for source in raw if isinstance(raw, Items) else [raw]:
            if not isinstance(source, Table):
                raise YamlError(f"{_place(self.name, line)}<< takes mappings")
            yield source


class _Dumper(yaml.SafeDumper):
    """Texts in quotes wherever they would be read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Every value is written out where it stands."""
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    try:
        literal = read_any(Scalar(text)) == text and text == text.strip() and text.isprintable()
    except ScalarError:
        literal = False
    return dumper.represent_scalar(_STRING, text, style=None if literal else '"')


_Dumper.add_representer(str, _represent_text)
