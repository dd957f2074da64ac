"""What a push would change: the files here compared with those of a branch on the Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from mmpretrain.files import sha256_of
from mmpretrain.release_folder import CHECKSUMS

KEPT = ".gitattributes"  # the Hub's own: it says which files lie in large storage


@dataclass(frozen=True)
class Content:
    """A file's size in bytes and checksums: sha256, and git's name of it."""

    size: int
    sha256: str
    git: str

    def same_as(self, entry: RepoFile) -> bool:
        """Whether the Hub holds the same; it knows large files by their sha256, and others by git's name."""
        return entry.lfs.sha256 == self.sha256 if entry.lfs else entry.blob_id == self.git


@dataclass(frozen=True)
class Plan:
    """added, changed, deleted, unchanged: names of files. foreign: files there that no release brought."""

    added: list[str]
    changed: list[str]
    deleted: list[str]
    unchanged: list[str]
    foreign: list[str]

    @property
    def is_empty(self) -> bool:
        """Whether nothing would change."""
        return not (self.added or self.changed or self.deleted)


def local_contents(files: Mapping[str, Path]) -> dict[str, Content]:
    """Of every file; each is read twice."""
    return {name: Content(path.stat().st_size, sha256_of(path), _git_name(path)) for name, path in files.items()}


def remote_files(api: HfApi, repo: str, commit: str) -> dict[str, RepoFile]:
    """The files of a commit by name."""
    tree = api.list_repo_tree(repo, recursive=True, revision=commit)
    return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}


def plan_push(contents: Mapping[str, Content], remote: Mapping[str, RepoFile], old: set[str]) -> Plan:
    """old: what belongs to the release that is there now (the names in its SHA256SUMS)."""
    here, there = set(contents), set(remote) - {KEPT}
    same = {name for name in here & there if contents[name].same_as(remote[name])}
    return Plan(
        added=sorted(here - there),
        changed=sorted((here & there) - same),
        deleted=sorted((there - here) & old),
        unchanged=sorted(same),
        foreign=sorted(there - here - old),
    )


def different(contents: Mapping[str, Content], remote: Mapping[str, RepoFile]) -> list[str]:
    """Names of files that a commit does not hold as they are here."""
    return [name for name, content in contents.items() if name not in remote or not content.same_as(remote[name])]


def release_names(checksums: str) -> set[str]:
    """The files that a release's SHA256SUMS names, and that file itself; none if it is no such list."""
    names = {line.split("  ", 1)[1] for line in checksums.splitlines() if "  " in line}
    return names | {CHECKSUMS} if names else set()


def _git_name(path: Path) -> str:
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as stream:
        while part := stream.read(2**20):
            digest.update(part)
    return digest.hexdigest()
