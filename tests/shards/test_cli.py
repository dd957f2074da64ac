"""`mmpretrain shards` answers in text or JSON, and fails with one message."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import RawSample, build_dataset
from shards.cli import app


def run(*arguments: object) -> Result:
    """One call of ``mmpretrain shards``."""
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A dataset with one member of every kind, and one that does not decode."""
    image, vector = io.BytesIO(), io.BytesIO()
    Image.new("L", (4, 8)).save(image, "PNG")
    np.save(vector, np.array([1, 2], np.float32))
    members: RawSample = {"left.png": image.getvalue(), "mrna.npy": vector.getvalue(), "caption.txt": b"a [bold] one"}
    bad: RawSample = {"left.png": b"junk", "x.bin": b"\xff\x00"}
    train: list[RawSample] = [{"__key__": "a", **members}, {"__key__": "b", **bad}]
    test: list[RawSample] = [{"__key__": "c", **members}]
    samples = {"train": train, "test": test}
    build_dataset(tmp_path / "toy", DatasetInfo("toy", "Toy [1]", "made up", "CC0", {}), samples)
    return tmp_path / "toy"


def test_build_digits_twice(tmp_path: Path) -> None:
    """The second build says that nothing changed; JSON carries the counts."""
    first = run("build", "digits", "--out", tmp_path / "digits")
    assert first.exit_code == 0 and "1437 train, 360 test samples" in first.stdout
    again = json.loads(run("build", "digits", "--out", tmp_path / "digits", "--json").stdout)
    assert again["outcome"] == "unchanged" and again["samples"] == {"train": 1437, "test": 360}


def test_build_errors_are_messages(tmp_path: Path) -> None:
    """Exit code 1, the message on stderr (or as JSON), no traceback."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").write_text("x")
    failed = run("build", "digits", "--out", tmp_path / "plain")
    assert failed.exit_code == 1 and failed.stdout == ""
    assert failed.stderr.startswith("error: ") and "--force" in failed.stderr and "Traceback" not in failed.stderr
    failed = run("build", "omics", "--source", tmp_path / "none", "--out", tmp_path / "o", "--json")
    assert failed.exit_code == 1 and "none is no folder" in json.loads(failed.stdout)["errors"][0]
    assert run("build", "omics").exit_code == 2


def test_inspect_dataset(toy: Path) -> None:
    """Counts by split and by member; brackets in texts are kept."""
    assert "Toy [1]" in run("inspect", toy).stdout
    described = json.loads(run("inspect", toy, "--json").stdout)
    assert described["dataset"]["name"] == "toy"
    splits = described["splits"]
    assert list(splits) == [str(toy / "train"), str(toy / "test")]
    assert splits[str(toy / "train")]["members"] == {"left.png": 2, "mrna.npy": 1, "caption.txt": 1, "x.bin": 1}


def test_inspect_sample(toy: Path) -> None:
    """Every kind of content in one line; junk is shown as unreadable instead of failing."""
    found = json.loads(run("inspect", toy, "--sample", "c", "--json").stdout)["members"]
    assert found["left.png"]["content"] == "L image, 8 x 4 pixels"
    assert found["mrna.npy"]["content"] == "float32 [2] from 1 to 2"
    assert found["caption.txt"]["content"] == "'a [bold] one'"
    assert "float32 [2] from 1 to 2" in run("inspect", toy, "--sample", "c").stdout
    junk = json.loads(run("inspect", toy / "train", "--sample", "b", "--json").stdout)["members"]
    assert junk["left.png"]["content"].startswith("unreadable")
    missing = run("inspect", toy, "--sample", "zzz")
    assert missing.exit_code == 1 and "no sample 'zzz'; the first is 'a'" in missing.stderr


def test_index_and_verify(toy: Path) -> None:
    """Indexing again gives the same fingerprint; damage is found and named, in all shards at once."""
    before = json.loads((toy / "train" / "index.json").read_text())["fingerprint"]
    indexed = json.loads(run("index", toy, "--json").stdout)["indexed"]
    assert indexed[str(toy / "train")]["fingerprint"] == before
    assert "all 2 shards" in run("verify", toy).stdout
    for split in ("train", "test"):
        with open(toy / split / "shard-000000.tar", "r+b") as file:
            file.seek(520)
            file.write(b"?")
    damaged = run("verify", toy)
    assert damaged.exit_code == 1 and damaged.stderr.count("has changed") == 2
    os.truncate(toy / "train" / "shard-000000.tar", 700)
    refused = run("index", toy)
    assert refused.exit_code == 1 and "shard-000000.tar" in refused.stderr
    for command in ("index", "verify", "inspect"):
        assert "no folder" in run(command, toy / "nowhere").stderr
    (toy / "empty").mkdir()
    assert "holds no tars" in run("index", toy / "empty").stderr


def test_help_has_examples() -> None:
    """Each command shows how it is called."""
    for command in (["build", "digits"], ["build", "omics"], ["index"], ["verify"], ["inspect"]):
        assert "Example: mmpretrain shards" in run(*command, "--help").stdout
