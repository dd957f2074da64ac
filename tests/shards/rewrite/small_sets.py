"""Small data sets to rewrite, what they hold, and calls of the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result
from webdataset.tariterators import tarfile_samples

from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import RawSample, write_split
from shards.cli import app

INFO = DatasetInfo("small", "Small", "made up", "CC0", {"caption": {"kind": "text"}})


def sample(number: int, name: str = "s") -> RawSample:
    """Members of different sizes; every third sample lacks one, and one ending begins with '_'."""
    members: RawSample = {
        "caption.txt": f"{name} {number}".encode(),
        "_x": bytes([number % 256]) * (number * 37 % 1200),
    }
    return {"__key__": f"{name}{number:05d}", **members, **({"cls": b"1"} if number % 3 else {})}


def data_set(folder: Path, name: str = "s", train: int = 50, test: int = 12, info: DatasetInfo = INFO) -> Path:
    """train/ and test/ in shards of 7 samples, and dataset.json."""
    write_split(folder / "train", [sample(number, name) for number in range(train)], 7)
    write_split(folder / "test", [sample(number, name) for number in range(1000, 1000 + test)], 7)
    (folder / "dataset.json").write_text(info.to_json())
    return folder


def held(folder: Path) -> list[tuple[str, dict[str, bytes]]]:
    """Key and members of every sample, in order, as webdataset reads them."""
    found = []
    for tar in sorted(folder.glob("*.tar")):
        for read in tarfile_samples([{"url": str(tar)}]):
            found.append((read["__key__"], {k: v for k, v in read.items() if k not in ("__key__", "__url__")}))
    return found


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def call(*arguments: object) -> Result:
    """One call of ``mmpretrain shards``, in this process unless ``--workers`` says otherwise."""
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(app, words if "--workers" in words else [*words, "--workers", "1"])


def made(*arguments: object) -> dict[str, Any]:
    """What a call answers that must do its work."""
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments: object) -> str:
    """The one sentence of a call that must refuse."""
    result = call(*arguments, "--json")
    assert result.exit_code == 1, result.output
    (sentence,) = json.loads(result.stdout)["errors"]
    return sentence
