"""A release to the Hub in one commit: readers see the old release or the new one, and a rerun completes.

The content of large files goes first and is invisible; one commit then names everything, on top of the very commit that
was looked at. An answer that is lost is not guessed: the branch is looked at again before anything is repeated.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from mmpretrain.hub.hub_errors import PushError, told, transient, wait_asked
from mmpretrain.hub.push_plan import (
    Content,
    Plan,
    different,
    local_contents,
    plan_push,
    release_names,
    remote_files,
)
from mmpretrain.hub.pushable import pushable_files
from mmpretrain.release_folder import CHECKSUMS
from mmpretrain.words import listed

WAITS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further try
LONGEST = 300.0  # seconds that a server may ask us to wait

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """Where to: ORG/NAME, its branch, a tag for the commit (None: none), and whether a new repository is private."""

    repo: str
    branch: str = "main"
    tag: str | None = None
    private: bool = False
    message: str = "Release"
    delete_foreign: bool = False


@dataclass(frozen=True)
class Pushed:
    """What happened. commit: the branch's head with the release; None: of a dry run on what does not exist yet.
    created: whether the repository is new, or would be. committed: whether this call made a commit."""

    plan: Plan
    contents: Mapping[str, Content]
    commit: str | None
    created: bool
    committed: bool


class Pusher:
    """One release folder and one place on the Hub."""

    def __init__(self, folder: Path, target: Target, api: HfApi | None = None) -> None:
        """api: with the token of ``HF_TOKEN`` or of ``hf auth login`` unless given. Raises PushError for a folder that
        may not be pushed, before anything is sent."""
        self.files, problems = pushable_files(folder)
        if problems:
            raise PushError(problems)
        self.target, self.api = target, api or HfApi()
        self.contents = local_contents(self.files)

    def dry_run(self) -> Pushed:
        """What would change; reads only. Raises PushError."""
        with self._explained():
            head = self._head(self.target.branch) or self._head("main")
            plan = self._plan(head, {} if head is None else self._remote(head))
            return Pushed(plan, self.contents, head, created=not self._exists(), committed=False)

    def push(self) -> Pushed:
        """Bring the branch to hold exactly the release, and check that it does. Raises PushError."""
        with self._explained():
            created = self._make_repository()
            head = self._make_branch()
            tagged = self._has_tag()
            plan = self._plan(head, self._remote(head))
            if not plan.is_empty:
                head = self._commit(plan, head)
            if wrong := different(self.contents, self._remote(head)):
                raise PushError([f"{self.target.repo} does not hold {listed(wrong, 5)} as they are here: push again"])
            if self.target.tag is not None and not tagged:
                self._tag(self.target.tag, head)
            return Pushed(plan, self.contents, head, created, committed=not plan.is_empty)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise told(error, self.target.repo) from None

    def _plan(self, head: str | None, remote: Mapping[str, RepoFile]) -> Plan:
        old = set(remote) if self.target.delete_foreign else set()
        if head is not None and CHECKSUMS in remote:
            old |= release_names(self._checksums(head))
        plan = plan_push(self.contents, remote, old)
        if plan.foreign:
            raise PushError(
                [
                    f"{self.target.repo} holds {listed(plan.foreign, 5)}, which no release brought there: push to"
                    " another repository, or pass --delete-others to delete them in the same commit"
                ]
            )
        return plan

    def _commit(self, plan: Plan, head: str) -> str:
        """The branch's new head. Every try is on top of ``head``, so that the commit is made once or not at all."""
        for wait in (*WAITS, None):
            try:
                return self._commit_once(plan, head)
            except Exception as error:
                now = self._head(self.target.branch)
                if now is not None and now != head:
                    if not different(self.contents, self._remote(now)):
                        return now  # it was made, and only the answer was lost
                    raise PushError(
                        [
                            f"somebody pushed to {self.target.branch} of {self.target.repo} meanwhile: look at what is"
                            " there, and push again"
                        ]
                    ) from None
                if wait is None or not transient(error):
                    raise told(error, self.target.repo) from None
                time.sleep(wait_asked(error, wait, LONGEST))
        raise AssertionError("the last try returns or raises")

    def _commit_once(self, plan: Plan, head: str) -> str:
        # New ones for every try: the client marks them.
        added = [CommitOperationAdd(name, self.files[name]) for name in (*plan.added, *plan.changed)]
        deleted = [CommitOperationDelete(name) for name in plan.deleted]
        made = self.api.create_commit(
            self.target.repo,
            [*added, *deleted],
            commit_message=self.target.message,
            revision=self.target.branch,
            parent_commit=head,
        )
        return str(made.oid)

    def _make_repository(self) -> bool:
        """Whether there was none. One that exists keeps being public or private."""
        try:
            info = self._patiently(lambda: self.api.repo_info(self.target.repo))
        except RepositoryNotFoundError:
            self._patiently(
                lambda: self.api.create_repo(self.target.repo, private=self.target.private or None, exist_ok=True)
            )
            return True
        if self.target.private and not info.private:
            raise PushError([f"{self.target.repo} exists and is public: make it private there, or leave --private"])
        return False

    def _make_branch(self) -> str:
        branch = self.target.branch
        head = self._head(branch)
        if head is None:
            self._patiently(lambda: self.api.create_branch(self.target.repo, branch=branch, exist_ok=True))
            head = self._head(branch)
        if head is None:
            raise PushError([f"{self.target.repo} has no branch {branch}, and none could be made: check its name"])
        return head

    def _head(self, branch: str) -> str | None:
        """The commit that a branch names; None without repository or branch."""
        try:
            refs = self._patiently(lambda: self.api.list_repo_refs(self.target.repo))
        except RepositoryNotFoundError:
            return None
        return next((ref.target_commit for ref in refs.branches if ref.name == branch), None)

    def _exists(self) -> bool:
        try:
            self._patiently(lambda: self.api.repo_info(self.target.repo))
        except RepositoryNotFoundError:
            return False
        return True

    def _has_tag(self) -> bool:
        """Whether the tag is there, from an earlier push of the same release. Raises PushError for another release's,
        for whoever relies on a tag must not find something else behind it."""
        if self.target.tag is None:
            return False
        refs = self._patiently(lambda: self.api.list_repo_refs(self.target.repo))
        found = next((ref.target_commit for ref in refs.tags if ref.name == self.target.tag), None)
        if found is not None and different(self.contents, self._remote(found)):
            raise PushError(
                [f"{self.target.repo} has a tag {self.target.tag}, of another release: tags never move, name another"]
            )
        return found is not None

    def _tag(self, tag: str, commit: str) -> None:
        self._patiently(lambda: self.api.create_tag(self.target.repo, tag=tag, revision=commit, exist_ok=True))
        self._has_tag()  # somebody may have made it meanwhile

    def _remote(self, commit: str) -> dict[str, RepoFile]:
        return self._patiently(lambda: remote_files(self.api, self.target.repo, commit))

    def _checksums(self, commit: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            path = self._patiently(
                lambda: self.api.hf_hub_download(self.target.repo, CHECKSUMS, revision=commit, local_dir=folder)
            )
            return Path(path).read_text(encoding="utf-8", errors="replace")

    def _patiently(self, call: Callable[[], T]) -> T:
        """What may be repeated without harm, until it works. Raises PushError, or that something is not there."""
        for wait in (*WAITS, None):
            try:
                return call()
            except (RepositoryNotFoundError, RevisionNotFoundError):
                raise
            except Exception as error:
                if wait is None or not transient(error):
                    raise told(error, self.target.repo) from None
                time.sleep(wait_asked(error, wait, LONGEST))
        raise AssertionError("the last try returns or raises")
