"""Resharding and shuffling change where samples lie and nothing else, and go on after a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import shards.rewrite.rewrite
from mmpretrain.data.index import build_index, load_index
from mmpretrain.data.writing import RawSample, write_split
from shards.rewrite.order import Shuffled
from shards.rewrite.pieces import tar_bytes
from tests.shards.rewrite.small_sets import data_set, held, made, refused, sample, snapshot


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set that no test changes."""
    return data_set(tmp_path_factory.mktemp("source") / "small")


def test_resharding_keeps_samples_and_order(source: Path, tmp_path: Path) -> None:
    """Of every split, with dataset.json and a tokenizer; other files are named."""
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    (copy / "tokenizer").mkdir()
    (copy / "tokenizer/vocab.json").write_text("{}")
    (copy / "notes.md").write_text("mine")
    answer = made("reshard", copy, tmp_path / "out", "--samples-per-shard", 20)
    assert answer["samples"] == {"train": 50, "test": 12} and answer["shards"] == {"train": 3, "test": 1}
    for split in ("train", "test"):
        assert held(tmp_path / "out" / split) == held(source / split)
        assert load_index(tmp_path / "out" / split).fingerprint == answer["fingerprints"][split]
    assert (tmp_path / "out/dataset.json").read_bytes() == (source / "dataset.json").read_bytes()
    assert (tmp_path / "out/tokenizer/vocab.json").exists()
    assert list(answer["asides"]) == ["files beside the shards that are not taken along"]
    assert answer["asides"]["files beside the shards that are not taken along"]["examples"] == [f"{copy}/notes.md"]
    assert not list(tmp_path.glob(".*"))


def test_shards_by_size_are_as_full_as_can_be(tmp_path: Path) -> None:
    """No shard is above the size unless one sample is, and none could take the next one's first sample."""
    sizes_in = [n % 5 * 200_000 + (n == 7) * 2_000_000 for n in range(30)]
    samples: list[RawSample] = [{"__key__": f"{n:03d}", "x.bin": bytes(size)} for n, size in enumerate(sizes_in)]
    write_split(tmp_path / "in", samples, 4)
    made("reshard", tmp_path / "in", tmp_path / "out", "--mb-per-shard", 1.5)
    sizes = [tar_bytes(shard) for shard in load_index(tmp_path / "out").shards]
    assert held(tmp_path / "out") == held(tmp_path / "in") and len(sizes) > 5
    assert all(size.sum() <= 1_500_000 or len(size) == 1 for size in sizes)
    assert all(size.sum() + after[0] > 1_500_000 for size, after in pairwise(sizes))


def test_a_shuffle_is_the_order_of_its_seed(source: Path, tmp_path: Path) -> None:
    """Place p holds the sample that Shuffled names, in every split; another seed is another order."""
    made("shuffle", source, tmp_path / "out", "--seed", 3, "--samples-per-shard", 9)
    for split, count in (("train", 50), ("test", 12)):
        before = held(source / split)
        order = Shuffled(count, 3)(np.arange(count)).tolist()
        assert held(tmp_path / "out" / split) == [before[number] for number in order]
    made("shuffle", source, tmp_path / "other", "--seed", 4)
    assert held(tmp_path / "other/train") != held(tmp_path / "out/train")


@pytest.mark.processes
def test_any_number_of_workers_writes_the_same_bytes(source: Path, tmp_path: Path) -> None:
    """Shards, indexes and dataset.json."""
    options = ("--seed", 1, "--samples-per-shard", 5)
    made("shuffle", source, tmp_path / "1", *options)
    made("shuffle", source, tmp_path / "3", *options, "--workers", 3)
    assert snapshot(tmp_path / "1") == snapshot(tmp_path / "3")


@pytest.mark.processes
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """The real command, killed with SIGKILL: finished shards are kept untouched, the result is as without the kill."""
    source = data_set(tmp_path / "in", train=400)
    options = ("--seed", "2", "--samples-per-shard", "2")
    arguments = ["shards", "shuffle", str(source), str(tmp_path / "out"), *options, "--workers", "2"]
    command = [sys.executable, "-m", "launcher.mmpretrain_command", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob(".out.*/records/*-shard-*.json"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
    time.sleep(0.5)  # a worker is told by its parent's pipe, at once
    assert not (tmp_path / "out").exists()
    (hidden,) = tmp_path.glob(".out.*.partial")
    records = len(list(hidden.glob("records/*-shard-*.json")))
    inodes = {path.name: path.stat().st_ino for path in hidden.glob("train/shard-*.tar")}
    answer = made("shuffle", source, tmp_path / "out", *options)
    assert answer["kept_shards"] == records >= 3 and answer["asides"] == {}
    kept = sum((tmp_path / "out/train" / name).stat().st_ino == inode for name, inode in inodes.items())
    assert kept >= min(3, len(inodes))
    made("shuffle", source, tmp_path / "whole", *options)
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole")
    assert not list(tmp_path.glob(".*"))


def test_a_run_that_failed_hashes_only_what_was_not_hashed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of the sources outlives an error in the middle, and so do finished shards."""
    write, count = shards.rewrite.rewrite.write_shard, iter(range(100))

    def failing(path: Path, samples: object) -> None:
        if next(count) == 4:
            raise OSError(28, "No space left on device")
        write(path, samples)  # type: ignore[arg-type]

    arguments = ("reshard", source, tmp_path / "out", "--samples-per-shard", 10)
    with monkeypatch.context() as patch:
        patch.setattr(shards.rewrite.rewrite, "write_shard", failing)
        assert "No space left" in refused(*arguments)
    monkeypatch.setattr("hashlib.file_digest", _no_hashing_of(source))
    assert made(*arguments)["kept_shards"] == 4
    assert held(tmp_path / "out/train") == held(source / "train")


def _no_hashing_of(folder: Path):  # noqa: ANN202
    import hashlib

    digest = hashlib.file_digest

    def checked(file, name):  # noqa: ANN001, ANN202
        assert not str(getattr(file, "name", "")).startswith(str(folder / "train")), "hashed again"
        return digest(file, name)

    return checked


@pytest.mark.parametrize("how", ["another size", "same size", "while it is read", "missing"])
def test_a_source_that_is_not_what_was_indexed_is_refused(
    source: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By size, by sha256, and when it changes after it was hashed."""
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    tar = copy / "train/shard-000003.tar"
    content = bytearray(tar.read_bytes())
    content[600] ^= 1
    if how == "while it is read":
        write = shards.rewrite.rewrite.write_shard

        def changing(path: Path, samples: object) -> None:
            tar.write_bytes(content)
            write(path, samples)  # type: ignore[arg-type]

        monkeypatch.setattr(shards.rewrite.rewrite, "write_shard", changing)
    elif how == "missing":
        tar.unlink()
    else:
        tar.write_bytes(content if how == "same size" else content + bytes(1024))
    assert "shard-000003.tar" in refused("shuffle", copy, tmp_path / "out", "--seed", 0)
    assert not (tmp_path / "out").exists()


def test_keys_that_come_twice_are_refused_or_told_apart(tmp_path: Path) -> None:
    """Keys may start again in the next shard of a folder, but not where shards are joined."""
    for number in range(3):
        write_split(tmp_path / f"in{number}", [sample(row) for row in range(4)])
        (tmp_path / "in").mkdir(exist_ok=True)
        os.replace(tmp_path / f"in{number}/shard-000000.tar", tmp_path / f"in/part.{number}.tar")
    build_index(tmp_path / "in")
    arguments = ("reshard", tmp_path / "in", tmp_path / "out", "--samples-per-shard", 6)
    assert refused(*arguments) == (
        "the key 's00000' comes more than once: --prefix-keys puts the name of each shard before its keys"
    )
    assert made(*arguments, "--prefix-keys")["samples"] == {".": 12}
    before, after = held(tmp_path / "in"), held(tmp_path / "out")
    assert [members for _, members in after] == [members for _, members in before]
    assert [key for key, _ in after] == [f"part_{n // 4}/{key}" for n, (key, _) in enumerate(before)]


def test_targets_and_sizes_that_cannot_be_are_refused(source: Path, tmp_path: Path) -> None:
    """A target that is there, one inside of the source, no or two sizes, no room."""
    size = ("--samples-per-shard", 5)
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    assert "is there already" in refused("reshard", source, tmp_path / "there", *size)
    assert "lies in" in refused("reshard", source, source / "out", *size)
    assert "--samples-per-shard N or --mb" in refused("reshard", source, tmp_path / "out")
    assert "give one of them" in refused("reshard", source, tmp_path / "out", *size, "--mb-per-shard", 3)
    assert "holds no tars" in refused("reshard", tmp_path / "there", tmp_path / "out", *size)


def test_a_disk_without_room_is_known_before(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written."""
    monkeypatch.setattr("shards.rewrite.rewrite.free_bytes", lambda target: 5000)
    sentence = refused("reshard", source, tmp_path / "out", "--samples-per-shard", 5)
    assert "has 0.0 MB left, and the new shards need about 0." in sentence


def test_a_url_is_read_through_the_cache(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One folder of tars at a URL can be resharded; a shuffle would read it all over again for each shard."""
    import fsspec

    monkeypatch.setenv("MMPRETRAIN_CACHE", str(tmp_path / "cache"))
    fsspec.filesystem("memory").put(f"{source}/train/", "/reshard-train/", recursive=True)
    made("reshard", "memory://reshard-train", tmp_path / "out", "--samples-per-shard", 20)
    assert held(tmp_path / "out") == held(source / "train")
    assert "brings it here" in refused("shuffle", "memory://reshard-train", tmp_path / "other", "--seed", 0)
