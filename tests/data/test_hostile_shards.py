"""Damaged and hostile shards from the index to the batch: the very same samples, or one sentence that refuses them."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmpretrain.config.data import Incomplete
from mmpretrain.data.index import ShardError, build_index
from mmpretrain.data.quarantine import BadDataError
from tests.data.small_dataset import stream, write_split

BLOCK = 512


def seen(path: Path, steps: int = 2, world_size: int = 1, **changes: Any) -> list[Any]:
    """Keys, positions, labels and tensors of the first steps, those of all ranks put together."""
    found: list[Any] = []
    ranks = [stream(path, rank, world_size, **changes).batches(0, steps) for rank in range(world_size)]
    for batches in zip(*ranks, strict=True):
        for batch in batches:
            tensors = {f"{m}.{k}": t.tolist() for m, inputs in batch.inputs.items() for k, t in inputs.items()}
            rows = zip(batch.keys, batch.positions.tolist(), batch.labels.tolist(), *tensors.values(), strict=True)
            found += list(rows)
    return found


def outcome(path: Path, **changes: Any) -> list[Any] | None:
    """What a run sees when no sample may be replaced; None if it is refused, in one line that names a file."""
    try:
        return seen(path, global_batch=3, max_bad_fraction=0, **changes)
    except (ShardError, BadDataError) as error:
        assert str(path) in str(error) and "\n" not in str(error) and "Traceback" not in str(error)
        return None


def damages(whole: bytes, at: int) -> Iterator[bytes]:
    """A tar in which the block at this offset is zeroed, noise, one bit another, gone, there twice, or the last one."""
    before, block, after = whole[:at], whole[at : at + BLOCK], whole[at + BLOCK :]
    for other in (bytes(BLOCK), b"\xa5" * BLOCK, bytes([block[0] ^ 1]) + block[1:], b"", block + block):
        yield before + other + after
    yield before + block
    yield before + block[:200]


@pytest.fixture(scope="module")
def tar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The only shard of a data set of 3 samples; tests damage it."""
    path = tmp_path_factory.mktemp("damaged")
    write_split(path / "train", (3,))
    return path / "train/shard-000000.tar"


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_damage_after_indexing_is_refused(tar: Path, every: int) -> None:
    """Each block in seven ways: the sha256 differs, so no sample of it is ever read."""
    path, whole = tar.parents[1], tar.read_bytes()
    expected = outcome(path)
    assert expected is not None and len(expected) == 6
    try:
        for at in range(0, len(whole), BLOCK * every):
            for mutant in damages(whole, at):
                tar.write_bytes(mutant)
                assert outcome(path) == (expected if mutant == whole else None), at
    finally:
        tar.write_bytes(whole)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_every_damage_before_indexing_is_refused_or_harmless(tar: Path, every: int) -> None:
    """Headers, the blocks between members and the end mark; what a member's own bytes are, no tar can say."""
    path, whole = tar.parents[1], tar.read_bytes()
    expected, index = outcome(path), (tar.parent / "index.json").read_bytes()
    with tarfile.open(tar) as opened:
        members = opened.getmembers()
    inside = {at for m in members for at in range(m.offset_data, m.offset_data + m.size, BLOCK)}
    try:
        for at in range(0, len(whole), BLOCK * every):
            for number, mutant in enumerate(damages(whole, at)):
                if at in inside and number < 3:
                    continue
                tar.write_bytes(mutant)
                assert _indexed(path) in (None, expected), (at, number)
    finally:
        tar.write_bytes(whole)
        (tar.parent / "index.json").write_bytes(index)


def _indexed(path: Path) -> list[Any] | None:
    """The outcome of a run after the folder was indexed as it is now."""
    try:
        build_index(path / "train")
    except ShardError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return None
    return outcome(path)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.processes)])
@pytest.mark.parametrize("renamed", [True, False])
def test_nothing_is_read_of_shards_that_change_in_the_middle_of_a_run(
    tmp_path: Path, renamed: bool, workers: int
) -> None:
    """To others of the same size: written into, they end the run; renamed over, too, or open files are the old ones."""
    write_split(tmp_path / "train", (6, 6))
    settings = {"global_batch": 2, "window": 1, "workers": workers}
    expected = seen(tmp_path, 40, **settings)
    batches = stream(tmp_path, **settings).batches(0, 40)
    keys = list(next(batches).keys)
    for shard in (tmp_path / "train").glob("*.tar"):
        content = bytearray(shard.read_bytes())
        content[BLOCK] ^= 1
        (tmp_path / "new").write_bytes(content)
        if renamed:
            os.replace(tmp_path / "new", shard)
        else:
            shard.write_bytes(content)
    try:
        for batch in batches:
            keys += batch.keys
        assert renamed
    except ShardError as error:
        assert "has sha256" in str(error) and len(keys) < 80
    assert keys == [row[0] for row in expected[: len(keys)]]


SIZES = [(0, 3, 0, 5, 0), (1,), (2, 1)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("world_size", [2, 4])
def test_few_and_empty_shards_are_dealt_to_all_ranks(tmp_path: Path, sizes: tuple[int, ...], world_size: int) -> None:
    """All ranks make as many steps, and each sample comes once in an epoch, whatever the shards hold."""
    write_split(tmp_path / "train", sizes)
    rows = seen(tmp_path, sum(sizes), world_size)
    assert rows == seen(tmp_path, sum(sizes))
    epochs = [rows[at : at + sum(sizes)] for at in range(0, len(rows), sum(sizes))]
    assert all(sorted(row[0] for row in epoch) == [f"s{n:04d}" for n in range(sum(sizes))] for epoch in epochs)


@pytest.mark.processes
def test_more_workers_than_shards_change_nothing(tmp_path: Path) -> None:
    """Two ranks of three loader processes each over one shard."""
    write_split(tmp_path / "train", (5,))
    assert seen(tmp_path, 6, 2, workers=3) == seen(tmp_path, 6)


def test_nothing_to_read_is_said_at_once(tmp_path: Path) -> None:
    """A split of empty shards, and one of which nothing is left."""
    write_split(tmp_path / "empty/train", (0, 0))
    with pytest.raises(ShardError, match="has no samples"):
        stream(tmp_path / "empty")
    write_split(tmp_path / "gone/train", (3,), lambda _, s: s | {"picture.png": b""})
    with pytest.raises(ShardError, match=r"leaves none of its 3 samples: empty picture \(3\)"):
        stream(tmp_path / "gone", incomplete=Incomplete.drop)


@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_what_has_no_end_is_not_indexed(tmp_path: Path, kind: str) -> None:
    """Nobody waits for a pipe or reads a device in the place of a tar."""
    if kind == "a pipe":
        os.mkfifo(tmp_path / "a.tar")
    else:
        (tmp_path / "a.tar").symlink_to("/dev/zero")
    with pytest.raises(ShardError, match=r"a\.tar: cannot be read .it is a pipe or a device"):
        build_index(tmp_path)


def long_name(size: int) -> bytes:
    """A GNU header that promises a name of so many bytes."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return info.tobuf(tarfile.GNU_FORMAT) + b"a" * BLOCK


def pax(records: dict[str, str]) -> bytes:
    """A member of 3 bytes whose extended header says something else."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as made:
        info = tarfile.TarInfo("a.caption.txt")
        info.size, info.pax_headers = 3, records
        made.addfile(info, io.BytesIO(b"abc"))
    return file.getvalue()


def of_type(kind: bytes, size: int = 0, name: str = "a.caption.txt", link: str = "") -> bytes:
    """A header of this type alone, and an end mark."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(4 * BLOCK)


def hostile_tars() -> dict[str, bytes]:
    """What a tar may be to escape from its folder, or to cost memory."""
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 60)}
    return {
        "a name of 8 GB": long_name(8 << 30),
        "a name of 900 kB": long_name(900 << 10) + bytes(900 << 10) + pax({}),
        "an extended header of 8 GB": of_type(tarfile.XHDTYPE, 8 << 30),
        "extended headers without end": b"".join(
            of_type(tarfile.XHDTYPE, BLOCK)[:BLOCK] + bytes(BLOCK) for _ in range(9999)
        ),
        "another size": pax({"size": str(1 << 60)}),
        "a size below zero": pax({"size": "-512"}),
        "no size": pax({"size": "1e9"}),
        "a sparse member": pax({**sparse, "GNU.sparse.name": "a.caption.txt"}),
        "an old sparse member": of_type(tarfile.GNUTYPE_SPARSE, BLOCK),
        "a member beyond the file": of_type(tarfile.REGTYPE, 1 << 40),
        "a symlink": of_type(tarfile.SYMTYPE, link="/etc/passwd"),
        "a hard link": of_type(tarfile.LNKTYPE, link="../../x"),
        "a device": of_type(tarfile.CHRTYPE),
        "a pipe": of_type(tarfile.FIFOTYPE),
        "a way up": of_type(tarfile.REGTYPE, name="../../x.caption.txt"),
        "an absolute name": of_type(tarfile.REGTYPE, name="/tmp/x.caption.txt"),
        "NUL in a name": pax({"path": "a\0b.caption.txt"}),
        "a name of 10 kB": of_type(tarfile.REGTYPE, name="x" * 10_000 + ".caption.txt"),
        "names that are not UTF-8": of_type(tarfile.REGTYPE, name="\udcff.caption.txt"),
        "gzip": b"\x1f\x8b\x08" + bytes(4000),
    }


@pytest.mark.processes
def test_hostile_tars_are_refused_in_little_memory(tmp_path: Path) -> None:
    """In a process that may have 64 MB more than it has after importing; nothing is written outside of the folder."""
    for number, (what, content) in enumerate(hostile_tars().items()):
        folder = tmp_path / f"{number:02d} {what}"
        folder.mkdir()
        (folder / "a.tar").write_bytes(content)
    names = {path.relative_to(tmp_path) for path in tmp_path.rglob("*")}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(tmp_path)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert run.returncode == 0, run.stderr[-3000:]
    refused = json.loads(run.stdout)
    assert set(refused) == {path.name for path in tmp_path.iterdir()}, "the others were indexed"
    assert all("a.tar" in sentence and "\n" not in sentence and len(sentence) < 2000 for sentence in refused.values())
    assert {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.name != "columns"} == names


BOUNDED = f"""
import json, resource, sys
from pathlib import Path
from mmpretrain.data.index import ShardError, build_index

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), {resource.RLIM_INFINITY}))
refused = {{}}
for folder in Path(sys.argv[1]).iterdir():
    try:
        build_index(folder)
    except ShardError as error:
        refused[folder.name] = str(error)
print(json.dumps(refused))
"""
