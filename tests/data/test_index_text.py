"""The manifest: what is not what was written is refused, and what many shards have alike is kept once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmpretrain.data import index_text
from mmpretrain.data.index import ShardError, build_index, load_index
from tests.data.tars import contents, sample_members, write_tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of one layout."""
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / name, [*sample_members(2), ("z.caption.txt", b"")])
    build_index(tmp_path)
    return tmp_path


def forged(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the second shard's line, with a checksum that fits."""
    first, *lines = (folder / "index.json").read_text().splitlines()
    record = json.loads(lines[1])
    change(record)
    lines[1] = json.dumps(record)
    body = "\n".join(lines) + "\n"
    head = json.loads(first + "]}") | {"checksum": hashlib.sha256(body.encode()).hexdigest()}
    (folder / "index.json").write_text(json.dumps(head)[:-2] + "\n" + body)


def test_it_is_json_with_a_line_per_shard(folder: Path) -> None:
    text = (folder / "index.json").read_text()
    document = json.loads(text)
    assert document["version"] == 2 and [shard["name"] for shard in document["shards"]] == ["a.tar", "b.tar"]
    assert document["shards"][0]["patterns"] == {"++": 2, "0-": 1} and len(text.splitlines()) == 4
    index = load_index(folder)
    assert index.shards[0].counts is index.shards[1].counts
    assert index.shards[0].extensions is index.shards[1].extensions


@pytest.mark.parametrize(
    "change",
    [
        lambda shard: shard.update(name="a.tar"),
        lambda shard: shard.update(name="../b.tar"),
        lambda shard: shard.update(name="b\0.tar"),
        lambda shard: shard.update(samples=-1),
        lambda shard: shard.update(samples=True),
        lambda shard: shard.update(samples=1 << 70),
        lambda shard: shard.update(samples=2),
        lambda shard: shard.update(bytes="512"),
        lambda shard: shard.update(sha256="ab"),
        lambda shard: shard.update(extensions=["txt"]),
        lambda shard: shard.update(extensions=[1, 2]),
        lambda shard: shard.update(extensions=[f"{n}.txt" for n in range(300)], patterns=None),
        lambda shard: shard.update(patterns={"+?": 3}),
        lambda shard: shard.update(patterns={"++": 4}),
        lambda shard: shard.update(patterns={"++": -1, "+-": 4}),
        lambda shard: shard.update(patterns=[]),
        lambda shard: shard.update(columns=None),
        lambda shard: shard.update(columns={"bytes": 8, "sha256": "ab" * 32}),
        lambda shard: shard.clear(),
    ],
)
def test_lines_that_cannot_be_are_refused(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    forged(folder, change)
    with pytest.raises(ShardError, match=r"index\.json is damaged.*mmpretrain shards index"):
        load_index(folder)


def test_a_line_about_another_file_is_noticed_when_it_is_read(folder: Path) -> None:
    """The patterns may be forged so that they fit; the columns then do not."""
    forged(folder, lambda shard: shard.update(patterns={"++": 3}))
    index = load_index(folder)
    assert index.count(["label.cls"]) == 5
    forged(folder, lambda shard: shard.update(extensions=["caption.txt", "image.jpg"]))
    with pytest.raises(ShardError, match=r"b\.safetensors is damaged or out of date \(it is of another tar\)"):
        load_index(folder).sample(5)


def test_every_change_of_a_byte_is_noticed(folder: Path) -> None:
    text = (folder / "index.json").read_bytes()
    known = contents(load_index(folder))
    for at in range(0, len(text), 7):
        (folder / "index.json").write_bytes(text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :])
        try:
            # The limit may be another one: then what is too large is looked up.
            assert contents(load_index(folder)) == known
        except ShardError as error:
            assert "is damaged" in str(error)
            continue
        assert text[:at].rfind(b'"limit"') > text[:at].rfind(b'"shards"')


def test_very_many_patterns_and_other_limits_are_looked_up_in_the_columns(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = load_index(folder)
    monkeypatch.setattr(index_text, "MOST_PATTERNS", 1)
    build_index(folder, again=True)
    assert '"patterns":null' in (folder / "index.json").read_text()
    unlisted = load_index(folder)
    assert unlisted.shards[0].counts is None and unlisted.patterns == counted.patterns
    assert unlisted.fingerprint == counted.fingerprint
    kept = [index.kept(lambda pattern: "-" not in pattern.states) for index in (counted, unlisted)]
    assert kept[0].fingerprint == kept[1].fingerprint != counted.fingerprint and len(kept[1]) == 4
    monkeypatch.setattr("mmpretrain.data.index_text.MAX_ENCODED_BYTES", 10)
    assert load_index(folder).shards[0].counts is None
