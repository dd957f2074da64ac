"""``mmpretrain runs``: what runs there are, how they stand, and what can be done with them (no torch here)."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from launcher import runs_compare, runs_show
from launcher.runs_choice import Order, below, chosen, named, ordered
from launcher.runs_clean import Leftover, Part, delete, leftovers
from launcher.runs_control import cancel, directory_of, restart_words, start_again, wait_for_end, wait_until_heard
from launcher.runs_reading import Reading, Standing
from launcher.runs_view import as_json, list_view, show_view
from launcher.slurm_client import SlurmError
from mmpretrain.console import AnswerForm, CommandError, HomeGroup, JsonFlag, answer, command_errors, table
from mmpretrain.words import command

app = typer.Typer(cls=HomeGroup, help="See, compare, continue, end and tidy up runs.", no_args_is_help=True)

Root = Annotated[Path, typer.Option(help="Folder that the runs lie in, some levels deep.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its name below --root.")]
Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs, or their names below --root.")]
RUNS = Path("runs")


@app.command(
    "list", epilog="Examples: mmpretrain runs list; mmpretrain runs list --state running --state lost --sort loss"
)
def list_command(
    root: Root = RUNS,
    state: Annotated[list[Standing] | None, typer.Option(help="Only those; several may be given.")] = None,
    name: Annotated[str | None, typer.Option(help="Only names like this one: clip-*.")] = None,
    method: Annotated[str | None, typer.Option(help="Only runs of this method.")] = None,
    sort: Annotated[Order, typer.Option(help="What comes first.")] = Order.age,
    json_flag: JsonFlag = False,
) -> None:
    """All runs: state, step, loss (its mean over the last lines), speed, time left, checkpoint, cause of the end.

    A run is lost when its job is gone although its files say that it runs.
    """
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        runs = ordered(chosen(below(root), state or [], name, method), sort)
        answer(form, {"runs": [as_json(run) for run in runs]}, list_view(runs), wide=True)


@app.command("show", epilog="Example: mmpretrain runs show demo")
def show_command(run: Run, root: Root = RUNS, json_flag: JsonFlag = False) -> None:
    """Everything about one run: how it stands, its last record, its scores, its files, and how to go on."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        (found,) = named([run], root)
        answer(form, runs_show.as_json(found), show_view(found, runs_show.facts(found)))


@app.command("compare", epilog="Example: mmpretrain runs compare base wider --picture losses.png")
def compare_command(
    runs: Runs,
    root: Root = RUNS,
    picture: Annotated[Path | None, typer.Option(help="Also draw the losses into this PNG.")] = None,
    json_flag: JsonFlag = False,
) -> None:
    """Runs side by side: the settings that differ, the final scores with their intervals, the losses."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        found = named(runs, root)
        if len(found) < 2:
            raise CommandError(["one run is no comparison: name two or more"])
        if picture is not None:
            runs_compare.draw(found, picture)
        answer(form, runs_compare.as_json(found), runs_compare.view(found))


@app.command(
    "resume",
    epilog="Example: mmpretrain runs resume demo",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def resume_command(
    context: typer.Context,
    run: Run,
    root: Root = RUNS,
    show: Annotated[bool, typer.Option("--show", help="Only print the command.")] = False,
) -> None:
    """Start a run again by its own command, in the directory where it was given; what follows RUN is added to it."""
    with command_errors(AnswerForm.rich):
        (found,) = named([run], root)
        words, directory = [*restart_words(found, context.args), *context.args], directory_of(found)
    said = f"{command('cd', directory)} && {command('mmpretrain', *words)}"
    Console(highlight=False).print(said, markup=False, soft_wrap=True)
    if not show:
        start_again(context.find_root().command, words, directory)


@app.command("cancel", epilog="Example: mmpretrain runs cancel demo --wait")
def cancel_command(
    runs: Runs,
    root: Root = RUNS,
    wait: Annotated[bool, typer.Option("--wait", help="Until all processes have ended.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 600.0,
    json_flag: JsonFlag = False,
) -> None:
    """End runs that go on: each saves a checkpoint first, and `mmpretrain runs resume` continues it."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        found, done = named(runs, root), []
        for run in found:
            done.append({"run": str(run.path), "done": _cancelled(run)})
            wait_until_heard(run)
        if wait:
            ended = [wait_for_end(run, timeout) for run in found]
            done = [_ended(row, run) for row, run in zip(done, ended, strict=True)]
        answer(form, {"runs": done}, "\n".join(_words(row) for row in done))


def _cancelled(run: Reading) -> str:
    try:
        return cancel(run)
    except SlurmError as error:
        raise CommandError([f"{run.path}: {error}"]) from None


def _ended(row: dict[str, Any], run: Reading) -> dict[str, Any]:
    return {**row, "state": run.standing.value, "cause": run.cause, "checkpoint": run.checkpoint}


def _words(row: dict[str, Any]) -> str:
    if "state" not in row:
        return f"{row['run']}: {row['done']}"
    return f"{row['run']}: {row['state']} ({row['cause']}); newest checkpoint: {row['checkpoint']}"


@app.command("clean", epilog="Example: mmpretrain runs clean old-run --what code --what checkpoints --yes")
def clean_command(
    runs: Runs,
    root: Root = RUNS,
    what: Annotated[list[Part] | None, typer.Option(help="Only this; several may be given.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also the newest checkpoint, the best one, and the release.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only show what would be.")] = False,
    json_flag: JsonFlag = False,
) -> None:
    """Show, and with --yes delete, what runs leave behind and no longer need: old checkpoints, logs, copies of code.

    The newest complete checkpoint, the best one and the release stay (but for --all), and so do config, metrics and
    scores in any case. Runs that may be alive are refused.
    """
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        found = [(run, leftovers(run, what or list(Part), everything=everything)) for run in named(runs, root)]
        if yes:
            for run, things in found:
                delete(run, things)
        things = [thing for _, of_run in found for thing in of_run]
        result = {
            "deleted": yes,
            "bytes": sum(thing.size for thing in things),
            "files": [{"part": thing.part, "path": str(thing.path), "bytes": thing.size} for thing in things],
        }
        answer(form, result, _clean_view(things, deleted=yes))


def _clean_view(things: list[Leftover], *, deleted: bool) -> Any:
    if not things:
        return "nothing to delete"
    total = _megabytes(sum(thing.size for thing in things))
    title = f"{'Deleted' if deleted else 'Would be deleted (--yes deletes)'}: {total}"
    return table(
        title, ["part", "size", "path"], [[t.part, _megabytes(t.size), shlex.quote(str(t.path))] for t in things]
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
