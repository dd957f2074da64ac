"""``mmpretrain push`` (no torch here)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmpretrain.console import AnswerForm, CommandError, JsonFlag, answer, command_errors, working
from mmpretrain.release_folder import renew_checksum

if TYPE_CHECKING:
    from mmpretrain.hub.push import Pushed


def push_command(
    release: Annotated[Path, typer.Argument(help="The release folder.")],
    to: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository on the Hub; made if it is not there.")],
    revision: Annotated[str, typer.Option(help="Branch to push to; made if it is not there.")] = "main",
    private: Annotated[bool, typer.Option("--private", help="A repository that is made is private.")] = False,
    tag: Annotated[str | None, typer.Option(help="Tag for the commit, such as v1.0; it never moves.")] = None,
    message: Annotated[str, typer.Option(help="Of the commit.")] = "Release",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    edited_card: Annotated[
        bool, typer.Option("--edited-card", help="README.md was edited by hand: write its new checksum down first.")
    ] = False,
    delete_others: Annotated[
        bool, typer.Option("--delete-others", help="Delete files that no release brought, in the same commit.")
    ] = False,
    json_flag: JsonFlag = False,
) -> None:
    """Push a release to the Hub in one commit: readers see the old release or the new one, never a mixture.

    The token comes from HF_TOKEN or from `hf auth login`. A push that was interrupted is completed by the same command
    again; one that changes nothing makes no commit.
    """
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        _check_place(to, revision)
        from mmpretrain.hub.push import Pusher, Target

        if edited_card and dry_run:
            raise CommandError(["--edited-card writes a checksum, and --dry-run writes nothing: leave one of them out"])
        if edited_card:
            renew_checksum(release, "README.md")
        with working(form, f"looking at {to}" if dry_run else f"pushing to {to}"):
            pusher = Pusher(release, Target(to, revision, tag, private, message, delete_others))
            found = pusher.dry_run() if dry_run else pusher.push()
        answer(form, _pushed(found, to, revision, dry_run), _view(found, to, revision, dry_run))


def _check_place(repo: str, revision: str) -> None:
    owner, slash, name = repo.partition("/")
    if not (slash and all(re.fullmatch(r"[\w][\w.-]{0,94}", part, re.ASCII) for part in (owner, name))):
        raise CommandError([f"{repo!r} is no name on the Hub: write ORG/NAME, or USER/NAME"])
    if re.fullmatch("[0-9a-f]{40}", revision) or revision.startswith("refs/"):
        raise CommandError([f"--revision {revision} is no branch: name one, such as main"])


def _pushed(found: Pushed, repo: str, branch: str, dry_run: bool) -> dict[str, Any]:
    plan = found.plan
    return {
        "repository": repo,
        "branch": branch,
        "dry_run": dry_run,
        "new_repository": found.created,
        "commit": found.commit,
        "committed": found.committed,
        "added": plan.added,
        "changed": plan.changed,
        "deleted": plan.deleted,
        "unchanged": len(plan.unchanged),
        "files": {name: content.size for name, content in found.contents.items()},
    }


def _view(found: Pushed, repo: str, branch: str, dry_run: bool) -> str:
    """The same for people: of a dry run every file, of a push what came of it."""
    plan, place = found.plan, f"{repo} ({branch})"
    counts = f"{len(plan.added)} new, {len(plan.changed)} changed, {len(plan.deleted)} deleted"
    if plan.is_empty:
        return f"{place} holds this release already: nothing {'would change' if dry_run else 'changed'}"
    if not dry_run:
        return (
            f"{place}: commit {found.commit}: {counts}, {len(plan.unchanged)} unchanged; checked against the files here"
        )
    marks = {"new": plan.added, "changed": plan.changed, "as it is": plan.unchanged}
    lines = [f"{mark:>9}  {found.contents[name].size:>14,}  {name}" for mark, names in marks.items() for name in names]
    lines += [f"{'deleted':>9}  {'':>14}  {name}" for name in plan.deleted]
    head = (
        f"{place}{', a new repository' if found.created else ''}: one commit would bring {counts}; bytes of each file:"
    )
    return "\n".join([head, *lines])
