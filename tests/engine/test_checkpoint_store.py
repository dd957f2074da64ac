"""Copies of checkpoints in a store: only whole ones count, and what comes back is what was copied."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mmpretrain.data.stores import Patience
from mmpretrain.engine import checkpoint_files
from mmpretrain.engine.checkpoint_files import MANIFEST
from mmpretrain.engine.checkpoint_store import CheckpointStore, StoreError
from tests.data.object_store import BUCKET, object_store
from tests.engine.test_checkpoint_files import WEIGHTS, write

QUICK = Patience(connect_s=1, silence_s=1, wait_s=0.01)


@pytest.fixture
def memory() -> Iterator[CheckpointStore]:
    """A store in this process."""
    store = fsspec.filesystem("memory").store
    store.clear()
    yield CheckpointStore("memory://copies", "mine", QUICK)
    store.clear()


def stored_names() -> list[str]:
    return sorted(fsspec.filesystem("memory").store)


def there_and_back(store: CheckpointStore, tmp_path: Path) -> None:
    """Copied, fetched into another folder, and deleted."""
    folder = write(tmp_path / "here", 10)
    store.put(folder)
    assert store.steps() == store.names() == [10]
    again = store.fetch(10, tmp_path / "elsewhere")
    assert checkpoint_files.find_problem(again) is None and (again / WEIGHTS).read_bytes() == b"weights of step 10"
    assert (tmp_path / "elsewhere" / "latest").read_text() == folder.name
    record = tmp_path / "metrics.jsonl"
    record.write_text("{}\n")
    store.put_record(record)
    assert store.record("metrics.jsonl") == "{}\n" and store.record("plan.json") is None
    store.remove(10)
    assert store.names() == []


def test_a_copy_comes_back_from_memory(memory: CheckpointStore, tmp_path: Path) -> None:
    there_and_back(memory, tmp_path)


def test_a_copy_comes_back_from_a_folder(tmp_path: Path) -> None:
    there_and_back(CheckpointStore(str(tmp_path / "disk"), "mine"), tmp_path)


@pytest.mark.processes
def test_a_copy_comes_back_from_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs = pytest.importorskip("s3fs")
    with object_store({}) as url:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        there_and_back(CheckpointStore(f"s3://{BUCKET}/runs", "mine", Patience()), tmp_path)
        s3fs.S3FileSystem.clear_instance_cache()


def test_a_copy_that_was_interrupted_anywhere_is_none(
    memory: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, 10)
    files = len(checkpoint_files.read_manifest(folder)["files"])
    for whole in range(files + 1):
        left = [whole]

        def one_less(store: CheckpointStore, call: Any, left: list[int] = left) -> Any:
            if left[0] == 0:
                raise StoreError("gone")
            left[0] -= 1
            return call(fsspec.filesystem("memory"))

        with monkeypatch.context() as broken:
            broken.setattr(CheckpointStore, "_asked", one_less)
            with pytest.raises(StoreError):
                memory.put(folder)
        assert memory.steps() == []
    memory.put(folder)
    assert memory.steps() == [10]


def test_what_is_deleted_is_no_checkpoint_from_the_first_moment(
    memory: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.put(write(tmp_path, 10))
    files = type(fsspec.filesystem("memory"))
    monkeypatch.setattr(files, "rm", lambda *_, **__: (_ for _ in ()).throw(OSError("gone")))
    with pytest.raises(StoreError, match="gone"):
        memory.remove(10)
    assert memory.names() == [10] and memory.steps() == []


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "a\\b", ""])
def test_a_name_that_leads_out_of_the_folder_is_refused(memory: CheckpointStore, tmp_path: Path, name: str) -> None:
    memory.put(write(tmp_path / "here", 10))
    (path,) = (path for path in stored_names() if path.endswith(MANIFEST))
    files = fsspec.filesystem("memory")
    files.pipe_file(path, json.dumps({"files": {name: {"size": 1, "sha256": ""}}}).encode())
    with pytest.raises(StoreError, match="cannot be read"):
        memory.fetch(10, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("content", "told"), [(b"weights of step 1O", "has changed"), (b"longer than it was before", "not the size")]
)
def test_what_differs_from_the_manifest_is_no_checkpoint(
    memory: CheckpointStore, tmp_path: Path, content: bytes, told: str
) -> None:
    memory.put(write(tmp_path / "here", 10))
    (path,) = (path for path in stored_names() if path.endswith(WEIGHTS.name))
    fsspec.filesystem("memory").pipe_file(path, content)
    with pytest.raises(StoreError, match=told):
        memory.fetch(10, tmp_path / "elsewhere")
    assert checkpoint_files.steps(tmp_path / "elsewhere") == []


def test_a_copy_that_does_not_fit_on_the_disk_is_not_begun(memory: CheckpointStore, tmp_path: Path) -> None:
    memory.put(write(tmp_path / "here", 10))
    (path,) = (path for path in stored_names() if path.endswith(MANIFEST))
    files = fsspec.filesystem("memory")
    manifest = json.loads(files.cat_file(path))
    manifest["files"]["heads.pt"]["size"] = 10**18
    files.pipe_file(path, json.dumps(manifest).encode())
    with pytest.raises(StoreError, match="1,000,000,000,000,000,0"):
        memory.fetch(10, tmp_path / "elsewhere")


def test_a_store_that_does_not_answer_is_named_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(url: str, patience: Patience) -> Any:
        raise ConnectionError("https://me:secret@host/x?signature=abc refused")

    monkeypatch.setattr("mmpretrain.engine.checkpoint_store.opened", refused)
    with pytest.raises(StoreError, match=r"s3://bucket/mine: .*refused") as told:
        CheckpointStore("s3://bucket", "mine", QUICK).steps()
    assert "secret" not in str(told.value) and "abc" not in str(told.value)
