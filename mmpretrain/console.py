"""What all commands share: a result as rich text or as JSON, and errors as one message."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

WIDE = 1000  # columns
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


class AnswerForm(Enum):
    """How a command answers."""

    rich = "rich"
    json = "json"

    @classmethod
    def of(cls, json_flag: bool) -> AnswerForm:
        """The form that ``--json`` asks for."""
        return cls.json if json_flag else cls.rich


class CommandError(Exception):
    """Ends a command with exit code 1; ``problems`` holds one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(problems))


def answer(form: AnswerForm, result: dict[str, Any], view: RenderableType, *, wide: bool = False) -> None:
    """Print the result of a command on stdout: ``result`` as JSON, or ``view`` for people.

    wide: whether a file or a pipe gets lines as long as they are, to be searched, in place of 80 columns.
    """
    if form is AnswerForm.json:
        print(json.dumps(_finite(result), indent=2, ensure_ascii=False))
    else:
        console = Console(highlight=False)
        if wide and not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = WIDE
        console.print(view, markup=False, soft_wrap=isinstance(view, str))


def _finite(value: Any) -> Any:
    """``value`` with null for numbers that are nan or infinite, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def at_home(words: Sequence[str]) -> list[str]:
    """The words of a command line, ``~`` and ``~user`` expanded where a shell leaves them: ``--out=~/x``, ``"~/x"``.

    ``key=value`` of the config is left alone: there the key says whether it is a path.
    """
    found = []
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        found.append(option + equals + (os.path.expanduser(value) if value.startswith("~") else value))
    return found


class HomeCommand(TyperCommand):
    """A command whose options and arguments know ``~``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of every command."""
        return super().parse_args(ctx, at_home(args))


class HomeGroup(TyperGroup):
    """Commands whose options and arguments know ``~``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of every group."""
        return super().parse_args(ctx, at_home(args))


@contextmanager
def command_errors(form: AnswerForm) -> Iterator[None]:
    """Turn the errors of a command into messages on stderr (with ``--json``: an object on stdout), exit code 1."""
    try:
        yield
    except (CommandError, ValueError, OSError) as error:
        problems = getattr(error, "problems", None) or [str(error)]
        if form is AnswerForm.json:
            print(json.dumps({"errors": problems}, indent=2, ensure_ascii=False))
        else:
            console = Console(stderr=True, highlight=False)
            for problem in problems:
                console.print(f"error: {problem}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


@contextmanager
def working(form: AnswerForm, what: str) -> Iterator[Console]:
    """A spinner on stderr while something takes its time; silent where nobody watches."""
    console = Console(stderr=True, quiet=form is AnswerForm.json)
    with console.status(what):
        yield console


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A plain table of texts."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    return made


@contextmanager
def progress_bar(form: AnswerForm) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr while something long is done, with the time that is left; silent where nobody watches.

    What it yields is called with what is being done, how many are done, and of how many.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True, quiet=form is AnswerForm.json)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
