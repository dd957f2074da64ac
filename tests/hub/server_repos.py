"""The repositories of the small Hub: commits, branches and tags."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

ATTRIBUTES = b"*.safetensors filter=lfs\n"
Tree = dict[str, dict[str, Any]]  # path -> oid (of git), sha256, size, and lfs where content is large


class Failure(Exception):
    """An answer that is an error. code: X-Error-Code."""

    def __init__(self, status: int, message: str, code: str = "", **more: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.more = status, message, code, more


@dataclass
class Commit:
    """One commit."""

    tree: Tree
    parent: str | None
    summary: str


@dataclass
class Repo:
    """A repository, which begins with a commit of .gitattributes, as on the Hub."""

    name: str
    private: bool
    history: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.branches["main"] = ""
        self.commit("main", {".gitattributes": blob_of(ATTRIBUTES)}, "initial commit")

    def resolve(self, revision: str) -> str:
        """The commit of a branch, tag or commit."""
        found = self.branches.get(revision) or self.tags.get(revision) or revision
        if found not in self.history:
            raise Failure(404, "Revision not found", "RevisionNotFound")
        return found

    def tree(self, revision: str, *, branch: bool = False) -> Tree:
        """The files there. branch: it must be one."""
        if branch and revision not in self.branches:
            raise Failure(404, "Revision not found", "RevisionNotFound")
        return self.history[self.resolve(revision)].tree

    def commit(self, branch: str, tree: Tree, summary: str) -> str:
        """Put a commit on top of a branch; its name."""
        parent = self.branches[branch] or None
        oid = hashlib.sha1(f"{len(self.history)}{parent}{sorted(tree)}{summary}".encode()).hexdigest()
        self.history[oid] = Commit(tree, parent, summary)
        self.branches[branch] = oid
        return oid

    def depth(self, revision: str) -> int:
        """How many commits lead there."""
        count, oid = 0, self.branches.get(revision)
        while oid:
            count, oid = count + 1, self.history[oid].parent
        return count


def blob_of(content: bytes) -> dict[str, Any]:
    """What a tree says of a file."""
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return {"oid": git, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
