"""What folder, table and hf share: the same bytes by any number of workers and after any kill; dry runs; reports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

import shards.build_shard
from shards.build_plan import SHARD_SAMPLES
from shards.build_samples import BuildOptions, build_samples
from shards.sources.columns import Wishes
from shards.sources.findings import Findings
from shards.sources.folder import Classes, open_folder
from tests.shards.drawn import build, call, captioned, contents, csv_text, files, picture, refusal

OPTIONS = ("--shard-size", "4", "--split", "test=0.2")


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.processes
def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    """Shards, indexes, dataset.json and report."""
    source = captioned(tmp_path / "s", 30)
    build("folder", source, tmp_path / "1/out", *OPTIONS)
    (source / "images/7.png").touch()  # no difference in content is none in the result
    build("folder", source, tmp_path / "2/out", *OPTIONS, "--workers", "2")
    assert snapshot(tmp_path / "1/out") == snapshot(tmp_path / "2/out")
    assert build("folder", source, tmp_path / "2/out", *OPTIONS)["outcome"] == "unchanged"
    assert not list((tmp_path / "2").glob(".*"))


def build_and_die(source: Path, out: Path, members: int) -> None:
    """In a process of its own: build, and be killed in the middle of a shard."""
    made = shards.build_shard.make_member
    left = iter(range(members))

    def make(content: object) -> object:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return made(content)  # type: ignore[arg-type]

    shards.build_shard.make_member = make  # type: ignore[assignment]
    work = out.parent / "work"
    work.mkdir(exist_ok=True)
    found = open_folder(source, Wishes(), Classes.found, work, Findings())
    options = BuildOptions(shares={"test": 0.2}, per_shard=4)
    build_samples(found, source.name, out, options, Findings(), lambda done, total: None)


def killed(source: Path, out: Path, members: int) -> Path:
    """The hidden folder that a killed build leaves."""
    child = get_context("fork").Process(target=build_and_die, args=(source, out, members))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL and not out.exists()
    (hidden,) = out.parent.glob(f".{out.name}.*.partial")
    return hidden


@pytest.mark.processes
def test_a_killed_build_goes_on_where_it_was(tmp_path: Path) -> None:
    """Finished shards are kept untouched, the torn one is written again, the result is as without the kill."""
    source = captioned(tmp_path / "s", 30)
    build("folder", source, tmp_path / "whole/out", *OPTIONS)
    hidden = killed(source, tmp_path / "out", 28)
    finished = sorted(hidden.glob("*/shard-*.tar"))
    inodes = [path.stat().st_ino for path in finished]
    assert len(finished) == 3 and list(hidden.glob("*/.shard-*.partial"))
    answer = build("folder", source, tmp_path / "out", *OPTIONS)
    assert answer["kept_shards"] == 3 and answer["asides"] == {}
    assert [(tmp_path / "out" / p.relative_to(hidden)).stat().st_ino for p in finished] == inodes
    assert snapshot(tmp_path / "out") == snapshot(tmp_path / "whole/out")


@pytest.mark.processes
def test_after_a_kill_changed_input_is_never_mixed_with_old_shards(tmp_path: Path) -> None:
    """A file that changed writes its shard again; other options start over and say so."""
    source = captioned(tmp_path / "s", 30)
    killed(source, tmp_path / "out", 28)
    files(source, {"images/0.png": picture(99)})
    answer = build("folder", source, tmp_path / "out", *OPTIONS)
    assert answer["kept_shards"] == 2
    assert contents(tmp_path / "out/train")["images/0"]["image.png"] == picture(99)
    killed(source, tmp_path / "other", 28)
    answer = build("folder", source, tmp_path / "other", "--shard-size", "5")
    assert answer["kept_shards"] == 0
    assert list(answer["asides"]) == ["an unfinished build of other input or other options was there and is removed"]
    assert not list(tmp_path.glob(".other*"))


@pytest.mark.processes
def test_workers_end_with_a_killed_build(tmp_path: Path) -> None:
    """The real command with two workers: the same command goes on, and nobody writes into its folder beside it."""
    source = captioned(tmp_path / "s", 600)
    arguments = ("folder", str(source), str(tmp_path / "out"), "--shard-size", "2")
    command = [sys.executable, "-m", "launcher.mmpretrain_command", "shards", "build", *arguments, "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob(".out.*/records/*.json"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    time.sleep(0.5)  # a worker is told by its parent's pipe, at once
    assert not (tmp_path / "out").exists()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob(".out.*/records/*.json")}
    answer = build(*arguments)
    assert answer["kept_shards"] == len(before) >= 3 and answer["samples"] == {"train": 600}


def test_a_build_that_runs_is_left_alone(tmp_path: Path) -> None:
    """Two of them would write the same files."""
    source = captioned(tmp_path / "s", 5)
    found = open_folder(source, Wishes(), Classes.found, tmp_path, Findings())
    messages = []

    def progress(done: int, total: int) -> None:
        if done == total:
            messages.append(refusal("folder", source, tmp_path / "out"))

    build_samples(found, "s", tmp_path / "out", BuildOptions(), Findings(), progress)
    assert messages == [f"another process is building {tmp_path / 'out'} now: wait for it, or end it"]


def test_a_dry_run_says_what_a_build_does_and_writes_nothing(tmp_path: Path) -> None:
    """Samples, splits, shards, sizes, modalities and problems are those of the build."""
    source = captioned(tmp_path / "s", 30)
    (source / "images/3.png").write_bytes(b"junk")
    before = snapshot(tmp_path)
    looked = build("folder", source, tmp_path / "out", *OPTIONS, "--dry-run")
    assert looked["outcome"] == "dry run" and snapshot(tmp_path) == before
    shown = call("folder", source, tmp_path / "out", *OPTIONS, "--dry-run").stdout
    assert "would hold" in shown and "nothing is written" in shown and "images/3.png: not an image" in shown
    built = build("folder", source, tmp_path / "out", *OPTIONS)
    assert built["report"] == looked["report"] == json.loads((tmp_path / "out/report.json").read_text())
    tars = sum(path.stat().st_size for path in (tmp_path / "out/train").glob("*.tar"))
    assert 0 <= tars - built["report"]["bytes"]["train"] <= 10_240 * built["report"]["shards"]["train"]


def test_a_sample_keeps_its_side_when_data_is_added(tmp_path: Path) -> None:
    """Whatever the order, the number of shards and the other samples are; today as in a year."""
    few, many = captioned(tmp_path / "few", 40), captioned(tmp_path / "many", 120)
    build("folder", few, tmp_path / "a", "--split", "test=0.1", "--split", "validation=0.1")
    build("folder", many, tmp_path / "b", "--split", "test=0.1", "--split", "validation=0.1", "--shard-size", "7")
    for split in ("train", "test", "validation"):
        here, there = (set(contents(tmp_path / out / split)) for out in ("a", "b"))
        assert here == {key for key in there if int(key.removeprefix("images/")) < 40}
    assert set(contents(tmp_path / "a/test")) == {"images/7", "images/8"}


def test_rows_of_one_image_are_its_captions(tmp_path: Path) -> None:
    """Wherever they lie; with another label they are samples of their own, on the same side of the split."""
    rows = [(n, f"caption {c} of {n}", "xy"[c > 1]) for c in range(4) for n in range(20)]
    table = csv_text([["file", "caption", "label"], *((f"{n}.png", text, label) for n, text, label in rows)])
    files(tmp_path, {"t.csv": table} | {f"{n}.png": picture(n) for n in range(20)})
    build("table", tmp_path / "t.csv", tmp_path / "out", "--split", "test=0.2", "--shard-size", "3")
    train, test = contents(tmp_path / "out/train"), contents(tmp_path / "out/test")
    assert len(train) + len(test) == 40 and {"0", "0~2"} <= {**train, **test}.keys()
    assert not {key.split("~")[0] for key in train} & {key.split("~")[0] for key in test}
    for key, members in {**train, **test}.items():
        number, label = key.split("~")[0], len(key.split("~")) - 1
        texts = [f"caption {c} of {number}" for c in (2 * label, 2 * label + 1)]
        assert json.loads(members["caption.json"]) == texts and members["label.cls"] == str(label).encode()
        assert members["image.png"] == picture(int(number))


def test_the_same_bytes_under_two_names_are_reported(tmp_path: Path) -> None:
    """They are kept; that they lie on both sides of a split is said."""
    given = {
        "train/1.png": picture(1),
        "train/2.png": picture(2),
        "train/copy.png": picture(1),
        "test/3.png": picture(2),
    }
    report = build("folder", files(tmp_path / "s", given), tmp_path / "out")["report"]
    assert report["duplicates"]["image"] == {
        "samples": 2,
        "across_splits": 1,
        "examples": ["train/1 = train/copy", "train/2 = test/3"],
    }
    assert "1 lie in two splits" in call("folder", tmp_path / "s", tmp_path / "out").stdout


def test_shards_have_a_size_of_their_own_choice(tmp_path: Path) -> None:
    """Small samples make shards of many; what is asked for is kept to."""
    source = captioned(tmp_path / "s", 9)
    assert build("folder", source, tmp_path / "a", "--shard-size", "2")["report"]["shards"] == {"train": 5}
    assert build("folder", source, tmp_path / "b")["report"]["shards"] == {"train": 1}
    assert SHARD_SAMPLES[0] == 128 and SHARD_SAMPLES[-1] == 8192


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    """Another dataset's folder stays, unless --force says so."""
    source, out = captioned(tmp_path / "s", 3), files(tmp_path / "out", {"thesis.txt": "x"})
    assert "--force" in refusal("folder", source, out)
    assert build("folder", source, out, "--force")["outcome"] == "replaced"
