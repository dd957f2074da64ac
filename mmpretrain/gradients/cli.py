"""``mmpretrain gradients`` (no torch here: what computes is imported when it is asked for)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
import yaml
from rich.console import Group
from rich.text import Text

from mmpretrain.console import AnswerForm, CommandError, JsonFlag, answer, command_errors, table, working
from mmpretrain.gradients.question import Averaging, FloatType, Question


def gradients_command(
    loss: Annotated[str, typer.Argument(help="MODULE:NAME or FILE.py:NAME, a function or a class of nn.Module.")],
    processes: Annotated[str, typer.Option(help="Numbers of processes to compare with one.")] = "2,4",
    batch: Annotated[int, typer.Option(help="Samples of the whole batch, shared by the processes.")] = 16,
    width: Annotated[int, typer.Option(help="Width of the embeddings.")] = 8,
    inputs: Annotated[int, typer.Option(help="How many embeddings the loss takes.")] = 2,
    learned: Annotated[list[str] | None, typer.Option(help="A number with a gradient: NAME=VALUE.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another keyword argument: NAME=VALUE, of a class when it is made."),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Rows of any length, instead of length 1.")] = False,
    dtype: Annotated[FloatType, typer.Option(help="Type of the embeddings.")] = FloatType.float64,
    averaging: Annotated[
        Averaging, typer.Option(help="What your loop does with the ranks' gradients.")
    ] = Averaging.mean,
    seed: Annotated[int, typer.Option(help="Of the made-up embeddings.")] = 0,
    timeout: Annotated[float, typer.Option(help="Seconds that a collective may wait.")] = 60.0,
    json_flag: JsonFlag = False,
) -> None:
    """Run any loss on 1, 2 and 4 processes: are its value and its gradients those of the whole batch?

    It is called with this rank's rows of each embedding. Exit code 1 if anything is not right.
    """
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        question = Question(
            loss=loss,
            processes=_counts(processes),
            batch=batch,
            width=width,
            inputs=inputs,
            unit=not raw,
            dtype=dtype,
            averaging=averaging,
            learned={name: _number(name, value) for name, value in _values(learned, "--learned").items()},
            fixed=_values(set_, "--set"),
            seed=seed,
            timeout_s=timeout,
        )
        if problems := question.problems():
            raise CommandError(problems)
        from mmpretrain.gradients.measure import measure
        from mmpretrain.gradients.verdict import Verdict, rows

        with working(form, f"running {loss}"):
            found = rows(measure(question), question)
        right = all(row.verdict is Verdict.right for row in found)
        answer(form, {"loss": loss, "right": right, "rows": [asdict(row) for row in found]}, _view(found, right))
    if not right:
        raise typer.Exit(1)


def _counts(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise CommandError([f"--processes is {text!r}: write numbers with commas, such as 2,4"]) from None


def _values(given: list[str] | None, option: str) -> dict[str, Any]:
    found = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise CommandError([f"{option} is {text!r}: write NAME=VALUE"])
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise CommandError([f"{option} {name}: {value!r} is no value"]) from None
    return found


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CommandError([f"--learned {name}: {value!r} is no number"])
    return float(value)


def _view(found: list[Any], right: bool) -> Group:
    cells = [(row.processes, row.what, row.verdict, f"{row.factor:.6g}", f"{row.cosine:.6f}") for row in found]
    columns = ("processes", "what", "verdict", "factor", "cosine")
    said = "all of it is that of one process on the whole batch" if right else "not the loss of the whole batch"
    return Group(table("", columns, cells), Text(said))
