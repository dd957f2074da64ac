"""Whatever readers would lose, misread or blow up is refused by name."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpretrain.data.index import (
    ShardError,
    build_index,
)
from mmpretrain.data.index_scan import is_litter, scan_shard
from tests.data.tars import contents, sample_members, write_tar


@pytest.fixture(scope="module")
def small(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, bytes, list[int], dict[str, dict[str, bytes]]]:
    """A folder for mutants, a tar's bytes, the offsets of its headers, and its contents."""
    folder = tmp_path_factory.mktemp("small")
    path = write_tar(folder / "a.tar", sample_members(2))
    with tarfile.open(path) as tar:
        headers = [info.offset for info in tar]
    return folder, path.read_bytes(), headers, contents(build_index(folder))


def accepted_contents(folder: Path, mutant: bytes) -> dict[str, dict[str, bytes]] | None:
    """What the index makes of a damaged tar; None when it refuses."""
    (folder / "a.tar").write_bytes(mutant)
    try:
        return contents(build_index(folder))
    except ShardError as error:
        assert str(folder / "a.tar") in str(error) and "\n" not in str(error)
        return None


def test_every_damaged_header_byte_is_refused_or_harmless(small: tuple) -> None:
    """Three corruptions of each byte of each header: refused, or the very same samples."""
    folder, original, headers, expected = small
    refused = 0
    for at in (header + i for header in headers for i in range(512)):
        for value in {original[at] ^ 1, original[at] ^ 0x80, 0 if original[at] else 0xFF}:
            mutant = original[:at] + bytes([value]) + original[at + 1 :]
            found = accepted_contents(folder, mutant)
            assert found is None or found == expected, f"byte {at} -> {value}"
            refused += found is None
    assert refused > 0.99 * 3 * 512 * len(headers)


def test_every_zeroed_or_swapped_block_is_refused(small: tuple) -> None:
    """Zeroed headers end other readers' iteration quietly; here they are refused."""
    folder, original, headers, _ = small
    for header in headers:
        assert accepted_contents(folder, original[:header] + bytes(512) + original[header + 512 :]) is None
        assert accepted_contents(folder, original[:header] + b"\xa5" * 512 + original[header + 512 :]) is None


def test_every_truncation_is_refused_or_harmless(small: tuple) -> None:
    """Only padding behind a complete end mark may go missing."""
    folder, original, headers, expected = small
    needed = headers[-1] + 512 + 512 + 1024
    lengths = {
        *range(0, len(original), 97),
        *(h + d for h in headers for d in (-1, 0, 1, 511, 512, 513)),
        needed,
    }
    for length in sorted(lengths - {-1}):
        found = accepted_contents(folder, original[:length])
        assert found == (expected if length >= needed and length % 512 == 0 else None), length


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_random_rewrites_of_headers_never_escape(small: tuple, data: st.DataObject) -> None:
    """Header fields rewritten with a right checksum: a ShardError, or plain members in bounds."""
    folder, original, headers, _ = small
    header = data.draw(st.sampled_from(headers))
    start, length = data.draw(st.sampled_from([(0, 100), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)]))
    field = data.draw(st.binary(min_size=1, max_size=length)).ljust(length, b"\0")
    block = bytearray(original[header : header + 512])
    block[start : start + length] = field
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    found = accepted_contents(folder, original[:header] + bytes(block) + original[header + 512 :])
    for key in found or {}:
        assert ".." not in key.split("/") and not key.startswith("/") and "\0" not in key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For one tar after the other."""
    return tmp_path_factory.mktemp("odd")


PIECES = (
    "a",
    "b",
    "1",
    ".",
    "/",
    "_",
    "__",
    " ",
    "\u00e9",
    "\u200d",
    "\u3000",
    "jpg",
    "txt",
    "JSON",
    "caption",
    "..",
    "\n",
)
NAMES = st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(NAMES, st.binary(max_size=20)), min_size=1, max_size=5), st.sampled_from([0, 1, 2]))
def test_odd_tars_are_read_as_tarfile_and_webdataset_do_or_refused(
    folder: Path, members: list[tuple[str, bytes]], form: int
) -> None:
    """Names of any pieces, in any tar format. What systems leave beside files is no sample here, and is left out."""
    from webdataset.tariterators import tarfile_samples

    try:
        path = write_tar(folder / "a.tar", members, form)
    except (ValueError, UnicodeError):  # a name that this format has no room for
        return
    with tarfile.open(path) as tar:
        plain = {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}  # type: ignore[union-attr]
    ours = accepted_contents(folder, path.read_bytes())
    if ours is None:
        return
    kept = [(name, content) for name, content in members if not is_litter(name)]
    assert sorted(c for sample in ours.values() for c in sample.values()) == sorted(content for _, content in kept)
    assert all(plain[name] == content for name, content in kept)
    write_tar(folder / "b.tar", kept, form)
    theirs = {
        sample["__key__"]: {end: value for end, value in sample.items() if not end.startswith("__")}
        for sample in tarfile_samples([{"url": str(folder / "b.tar")}])
    }
    (folder / "b.tar").unlink()
    assert ours == theirs


def hostile(path: Path, change: Callable[[tarfile.TarInfo], None], form: int = tarfile.PAX_FORMAT) -> None:
    """A tar whose second member was changed."""
    with tarfile.open(path, "w", format=form) as tar:
        tar.addfile(tarfile.TarInfo("good.caption.txt"))
        info = tarfile.TarInfo("bad.caption.txt")
        change(info)
        tar.addfile(info)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "/abs/y.caption.txt", "absolute"),
        ("name", "../../etc/x.caption.txt", r"'\.\.'"),
        ("name", "a/../b.caption.txt", r"'\.\.'"),
        ("pax_headers", {"path": "nul\0name.caption.txt"}, "control character, a NUL"),
        ("name", "esc\x1b[2J.caption.txt", "control character, a NUL"),
        ("name", "bytes\udcff.caption.txt", "control character, a NUL"),
        ("name", "x" * 10_000 + ".caption.txt", "characters"),
        ("name", "noextension", "KEY.MODALITY.EXT"),
        ("name", "trailing.", "KEY.MODALITY.EXT"),
        ("name", "__meta__.json/__x__", "KEY.MODALITY.EXT"),
        ("type", tarfile.SYMTYPE, "link"),
        ("type", tarfile.LNKTYPE, "link"),
        ("type", tarfile.CHRTYPE, "device"),
        ("type", tarfile.FIFOTYPE, "device"),
        ("type", b"Z", "unknown type"),
        ("pax_headers", {"size": "-1024"}, "bad.caption.txt"),
        ("pax_headers", {"size": "99999999999999"}, "cut off inside member 'bad.caption.txt'"),
        ("name", "good.caption.txt", "twice"),
    ],
)
def test_hostile_members_are_named(tmp_path: Path, field: str, value: object, message: str) -> None:
    """Every member that readers skip, misread or follow elsewhere is refused by name."""
    hostile(tmp_path / "a.tar", lambda info: setattr(info, field, value))
    with pytest.raises(ShardError, match=message) as caught:
        build_index(tmp_path)
    assert str(tmp_path / "a.tar") in str(caught.value)
    assert not (tmp_path / "index.json").exists()


@pytest.mark.processes
@pytest.mark.parametrize("options", [["-S"], ["-S", "--format=pax", "--sparse-version=1.0"]])
def test_sparse_bomb_costs_no_memory(tmp_path: Path, options: list[str]) -> None:
    """A 10 kB tar that expands to 2 GiB is refused under a tight memory limit."""
    with open(tmp_path / "0.image.png", "wb") as file:
        file.truncate(2 << 30)
        file.write(b"end")
    subprocess.run(["tar", "cf", "a.tar", *options, "0.image.png"], cwd=tmp_path, check=True)
    assert (tmp_path / "a.tar").stat().st_size < 20_000
    probe = (
        f"import resource; from mmpretrain.data.index import build_index\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (1 << 30, {resource.RLIM_INFINITY}))\n"
        f"build_index({str(tmp_path)!r})"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, env=environment)
    assert "ShardError" in run.stderr and "is sparse" in run.stderr


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tar_is_refused(tmp_path: Path, mode: Literal["w:gz", "w:bz2", "w:xz"]) -> None:
    """Offsets into a compressed file mean nothing."""
    with tarfile.open(tmp_path / "a.tar", mode) as tar:
        tar.addfile(tarfile.TarInfo("a.caption.txt"))
    with pytest.raises(ShardError, match="compressed: unpack it"):
        build_index(tmp_path)


def test_tail_and_emptiness(tmp_path: Path) -> None:
    """Data behind the end mark, an empty file, something else than a tar, no tar at all."""
    path = write_tar(tmp_path / "a.tar", sample_members(1))
    original = path.read_bytes()
    for content, message in [
        (original + original, "data follows"),
        (original[: 4 * 512], "no end mark"),
        (b"", "0 bytes"),
        (b"plain text " * 200, "damaged header"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ShardError, match=message):
            build_index(tmp_path)
    path.unlink()
    with pytest.raises(ShardError, match=r"no \*\.tar"):
        build_index(tmp_path)


def test_unreadable_shard(tmp_path: Path) -> None:
    """A folder named like a shard is an error with its name, no traceback of the system."""
    (tmp_path / "a.tar").mkdir()
    with pytest.raises(ShardError, match=r"a\.tar: cannot be read"):
        scan_shard(tmp_path / "a.tar")
