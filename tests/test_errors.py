"""Wrong data, as the launcher reports it: one clear message each, before any process group starts, and all together."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset

from mmpretrain.data.index import build_index
from tests.small_runs import command, launch

pytestmark = pytest.mark.processes


def refused(folder: Path, runs: Path, *tokens: str) -> str:
    """What the launcher says when it refuses a run on ``folder``."""
    done = launch(command(folder, runs, "refused", *tokens), timeout=60)
    output = done.stdout + done.stderr
    assert done.returncode not in (0, None)
    assert "Traceback" not in output
    assert not (runs / "refused").exists()
    return " ".join(output.split())


@pytest.fixture
def spoiled(digits: Path, tmp_path: Path) -> Path:
    """A copy of the digits to spoil."""
    return Path(shutil.copytree(digits, tmp_path / "digits"))


def remove_a_shard(folder: Path) -> None:
    """A shard is gone."""
    (folder / "train" / "shard-000001.tar").unlink()


def truncate_a_shard(folder: Path) -> None:
    """The end of a shard is gone."""
    shard = folder / "train" / "shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-512])


def content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of one file of ``tar``."""
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def leave_out_a_modality(folder: Path) -> None:
    """One sample of one shard has no right half."""
    shard = folder / "train" / "shard-000001.tar"
    with tarfile.open(shard) as tar:
        members = [(m.name, content_of(tar, m)) for m in tar.getmembers()]
    left_out = next(name for name, _ in members if ".right." in name)
    with webdataset.TarWriter(str(shard)) as writer:
        keys: dict[str, dict[str, bytes]] = {}
        for name, content in members:
            key, _, extension = name.partition(".")
            if name != left_out:
                keys.setdefault(key, {})[extension] = content
        for key, fields in keys.items():
            writer.write({"__key__": key, **fields})
    (folder / "train" / "index.json").unlink()
    build_index(folder / "train")


def empty_the_dataset(folder: Path) -> None:
    """Shards without samples."""
    for shard in (folder / "train").glob("*.tar"):
        shard.unlink()
    webdataset.TarWriter(str(folder / "train" / "shard-000000.tar")).close()
    (folder / "train" / "index.json").unlink()
    build_index(folder / "train")


def remove_the_index(folder: Path) -> None:
    """Shards nobody indexed."""
    (folder / "train" / "index.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove_a_shard, "shard-000001.tar"),
        (truncate_a_shard, "shard-000001.tar"),
        (leave_out_a_modality, "right"),
        (empty_the_dataset, "no samples"),
        (remove_the_index, "mmpretrain shards"),
    ],
)
def test_spoiled_data(spoiled: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(spoiled)
    assert message in refused(spoiled, tmp_path / "runs")


def test_problems_of_config_data_and_batch_come_together(spoiled: Path, tmp_path: Path) -> None:
    remove_a_shard(spoiled)
    text = refused(spoiled, tmp_path / "runs", "data.global_batch=33")
    assert "shard-000001.tar" in text and "data.global_batch=33" in text


def test_a_modality_that_the_shards_never_had(digits: Path, tmp_path: Path) -> None:
    tokens = ["data.modalities.sound.kind=vector", "data.modalities.sound.size=[4]"]
    tokens += ["model.encoders.sound.architecture=mlp", "model.encoders.sound.config={hidden_size: 4, output_size: 4}"]
    assert "sound" in refused(digits, tmp_path / "runs", *tokens)
