"""Copies of a run's complete checkpoints in a store that fsspec reaches, or in another folder (no torch here).

    COPY_TO/RUN/
      config.yaml, plan.json, status.json, metrics.jsonl, ...     the run's records, as of the last copy
      start_weights/                                              of a run that needs them at its end
      checkpoints/step-00000042/                                  MANIFEST.json is written last and removed first

A copy without a manifest is none. What is fetched is compared with the manifest before it counts as a checkpoint.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from operator import methodcaller
from pathlib import Path, PurePosixPath
from typing import Any

from mmpretrain.config.root import Config
from mmpretrain.data.stores import Patience, opened, trouble
from mmpretrain.engine import checkpoint_files
from mmpretrain.engine.checkpoint_files import MANIFEST
from mmpretrain.files import replace_bytes, replace_text, sync
from mmpretrain.words import shortened, without_secrets

LARGEST_MANIFEST = 64 << 20  # bytes
ATTEMPTS = 3
LARGEST_RECORD = 1 << 30  # bytes; of a longer one (keys of a very long run) there is no copy


class StoreError(RuntimeError):
    """A store cannot be asked, or does not hold what it should; the message names it."""


class CheckpointStore:
    """The copies of one run. url: of all runs. name: of this one."""

    def __init__(self, url: str, name: str, patience: Patience | None = None) -> None:
        self.url = f"{url.rstrip('/')}/{name}"
        self._patience = patience or Patience()

    @classmethod
    def of(cls, config: Config, patience: Patience | None = None) -> CheckpointStore | None:
        """Where a run's copies are; None if it makes none."""
        to, name = config.checkpoint.copy_to, config.run.name
        return None if to is None or name is None else cls(to, name, patience)

    def __str__(self) -> str:
        return without_secrets(self.url)

    def steps(self) -> list[int]:
        """The steps of all complete copies, newest first. Raises StoreError."""
        return [step for step in self.names() if self._there(self._path(step, MANIFEST))]

    def names(self) -> list[int]:
        """The same, those that are not complete among them."""
        folder = self._at("checkpoints")

        def listed(files: Any) -> list[str]:
            files.invalidate_cache()  # others may have written since this process looked last
            return files.ls(folder, detail=False) if files.exists(folder) else []

        found = (PurePosixPath(path.rstrip("/")).name.removeprefix("step-") for path in self._asked(listed))
        return sorted((int(name) for name in found if name.isdigit()), reverse=True)

    def manifest(self, step: int) -> dict[str, Any]:
        """The manifest of a copy. Raises StoreError."""
        return self._manifest(self._path(step), f"step {step}")

    def record(self, name: str) -> str | None:
        """The text of a record; None if there is none. Raises StoreError."""
        content = self.content(name)
        return None if content is None else content.decode(errors="replace")

    def content(self, name: str) -> bytes | None:
        """The bytes of a record; None if there is none. Raises StoreError."""
        path = self._at(name)
        return self._read(path, LARGEST_RECORD) if self._there(path) else None

    def put_record(self, path: Path) -> None:
        """Copy a record as it is now, if there is one that is not too long. Raises StoreError."""
        if path.is_file() and path.stat().st_size <= LARGEST_RECORD:
            content = path.read_bytes()
            self._write(self._at(path.name), content)

    def put(self, folder: Path) -> None:
        """Copy a complete checkpoint. Raises StoreError; FileNotFoundError if it is deleted meanwhile."""
        step = int(folder.name.removeprefix("step-"))
        self._put(folder, (folder / MANIFEST).read_bytes(), self._path(step))

    def put_beside(self, folder: Path) -> None:
        """Copy a folder with a manifest that lies beside the checkpoints, unless there is that copy; errors as
        :meth:`put`."""
        manifest, place = (folder / MANIFEST).read_bytes(), self._at(folder.name)
        there = f"{place}/{MANIFEST}"
        if self._there(there):
            if self._read(there, LARGEST_MANIFEST) == manifest:
                return
            self._asked(methodcaller("rm_file", there))
        self._put(folder, manifest, place)

    def remove(self, step: int) -> None:
        """Delete a copy, its manifest first. Raises StoreError."""
        manifest = self._path(step, MANIFEST)
        if self._there(manifest):
            self._asked(methodcaller("rm_file", manifest))
        self._asked(methodcaller("rm", self._path(step), recursive=True))

    def fetch(self, step: int, checkpoints: Path) -> Path:
        """Make a copy a checkpoint of this folder again; one of the same step that stands there is replaced.

        Raises StoreError if it cannot be fetched, does not fit on the disk, or differs from its manifest.
        """
        manifest = self.manifest(step)
        writing = checkpoint_files.start_writing(checkpoints, step)
        final = self._fetch(self._path(step), f"step {step}", manifest, writing)
        checkpoint_files.name_latest(checkpoints, step)
        return final

    def fetch_beside(self, folder: Path) -> None:
        """Have ``folder`` as :meth:`put_beside` copied it. Raises StoreError as :meth:`fetch` does."""
        place, writing = self._at(folder.name), folder.with_suffix(".tmp")
        manifest = self._manifest(place, folder.name)
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir()
        self._fetch(place, folder.name, manifest, writing)

    def _manifest(self, place: str, what: str) -> dict[str, Any]:
        try:
            found = json.loads(self._read(f"{place}/{MANIFEST}", LARGEST_MANIFEST))
            _ = {_safe(name): entry["size"] + 0 for name, entry in found["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{self}, {what}: {MANIFEST} cannot be read ({error!r})") from error
        return found

    def _put(self, folder: Path, manifest: bytes, place: str) -> None:
        for name in json.loads(manifest)["files"]:
            self._upload(folder / name, f"{place}/{name}")
        self._write(f"{place}/{MANIFEST}", manifest)

    def _fetch(self, place: str, what: str, manifest: dict[str, Any], writing: Path) -> Path:
        """All files into ``writing``, a folder with the suffix ``.tmp``, which then loses it."""
        try:
            self._fetch_files(place, what, manifest, writing)
        except OSError as error:
            raise StoreError(f"the copy of {what} cannot be written to {writing} ({error})") from error
        replace_text(writing / MANIFEST, json.dumps(manifest, indent=1))
        for folder in (path for path in writing.rglob("*") if path.is_dir()):
            sync(folder)
        final = writing.with_suffix("")
        shutil.rmtree(final, ignore_errors=True)
        writing.rename(final)
        return final

    def _fetch_files(self, place: str, what: str, manifest: dict[str, Any], writing: Path) -> None:
        needed, free = sum(entry["size"] for entry in manifest["files"].values()), shutil.disk_usage(writing).free
        if needed > free:
            raise StoreError(f"the copy of {what} has {needed:,} bytes, and {free:,} are free on {writing.parent}")
        for name, entry in manifest["files"].items():
            source, to = f"{place}/{name}", writing / _safe(name)
            if self._asked(methodcaller("size", source)) != entry["size"]:
                raise StoreError(f"{self}, {what}: {name} has not the size that {MANIFEST} says")
            to.parent.mkdir(parents=True, exist_ok=True)
            self._asked(methodcaller("get_file", source, str(to)))
            if checkpoint_files.describe(to) != {"size": entry["size"], "sha256": entry["sha256"]}:
                raise StoreError(f"{self}, {what}: the content of {name} has changed since it was copied")

    def _upload(self, source: Path, to: str) -> None:
        source.stat()  # FileNotFoundError is of this disk, and no trouble of the store

        def put(files: Any) -> None:
            local = _local(files, to)
            if local is not None:
                local.parent.mkdir(parents=True, exist_ok=True)
            files.put_file(str(source), to)
            if local is not None:
                sync(local)

        self._asked(put)

    def _write(self, path: str, content: bytes) -> None:
        """All of a small file, or nothing."""

        def write(files: Any) -> None:
            local = _local(files, path)
            if local is None:
                files.pipe_file(path, content)
            else:
                local.parent.mkdir(parents=True, exist_ok=True)
                replace_bytes(local, content)

        self._asked(write)

    def _read(self, path: str, most: int) -> bytes:
        size = self._asked(methodcaller("size", path))
        if size is None or size > most:
            raise StoreError(f"{self}: {PurePosixPath(path).name} has {size} bytes, and {most} are read at most")
        return self._asked(methodcaller("cat_file", path))

    def _there(self, path: str) -> bool:
        return bool(self._asked(methodcaller("exists", path)))

    def _path(self, step: int, *names: str) -> str:
        return self._at("checkpoints", checkpoint_files.step_folder(Path(), step).name, *names)

    def _at(self, *names: str) -> str:
        return "/".join((self.url, *names))

    def _asked(self, call: Callable[[Any], Any]) -> Any:
        """What ``call(file system)`` gives, after a few attempts. Raises StoreError for all that a store may raise."""
        for attempt in range(ATTEMPTS):
            try:
                return call(opened(self.url, self._patience)[0])
            except Exception as error:
                if attempt == ATTEMPTS - 1 or trouble(error).final:
                    raise StoreError(f"{self}: {shortened(without_secrets(repr(error)))}") from error
                time.sleep(self._patience.wait_s * 2**attempt)
        raise AssertionError("unreachable")


def _local(files: Any, path: str) -> Path | None:
    """Of a file system that is this machine's own, where a path lies in it."""
    return Path(files._strip_protocol(path)) if "file" in files.protocol else None


def _safe(name: str) -> str:
    """A name of a manifest that somebody else may have written, as a path below a folder. Raises ValueError."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is no path below a checkpoint")
    return name
