"""``mmpretrain runs``: what runs there are, how they stand, and what can be done with them (no torch here)."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from launcher.runs import compare as runs_compare
from launcher.runs import show as runs_show
from launcher.runs import sweep as runs_sweep
from launcher.runs.choice import Order, below, chosen, named, ordered, sweep_in
from launcher.runs.clean import Leftover, Part, delete, delete_of_sweep, leftovers, leftovers_of_sweep
from launcher.runs.control import cancel, directory_of, restart_words, start_again, wait_for_end, wait_until_heard
from launcher.runs.reading import Reading, Standing
from launcher.runs.view import as_json, list_view, show_view
from launcher.slurm.client import SlurmError
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
    sweep: Annotated[str | None, typer.Option(help="Only the runs of this sweep: its folder, or its name.")] = None,
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
        found = below(root) if sweep is None else named([sweep_of(sweep, root)], root)
        runs = ordered(chosen(found, state or [], name, method), sort)
        told = {} if sweep is None else {"sweep": runs_sweep.facts(Path(sweep_of(sweep, root)))}
        view: RenderableType = list_view(runs)
        if told:
            view = Group(runs_sweep.facts_view(told["sweep"]), Text(), view)
        answer(form, {**told, "runs": [as_json(run) for run in runs]}, view, wide=True)


@app.command("show", epilog="Example: mmpretrain runs show demo")
def show_command(run: Run, root: Root = RUNS, json_flag: JsonFlag = False) -> None:
    """Everything about one run: how it stands, its last record, its scores, its files, and how to go on."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        if (sweep := sweep_in(run, root)) is not None:
            told = runs_sweep.facts(sweep)
            answer(form, told, runs_sweep.facts_view(told))
            return
        (found,) = named([run], root)
        answer(form, runs_show.as_json(found), show_view(found, runs_show.facts(found)))


@app.command("compare", epilog="Example: mmpretrain runs compare base wider --picture losses.png")
def compare_command(
    runs: Runs,
    root: Root = RUNS,
    picture: Annotated[Path | None, typer.Option(help="Also draw the losses into this PNG.")] = None,
    by: Annotated[
        str | None, typer.Option(help="A line per run, the best by this score (part of its name), or by loss, first.")
    ] = None,
    json_flag: JsonFlag = False,
) -> None:
    """Runs side by side: the settings that differ, the final scores with their intervals, the losses.

    Of a sweep, and with --by, a line per run: the settings that differ and one score, the best run first.
    """
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        found = named(runs, root)
        if len(found) < 2:
            raise CommandError(["one run is no comparison: name two or more"])
        if picture is not None:
            runs_compare.draw(found, picture)
        if by is not None or any(sweep_in(run, root) for run in runs):
            score = runs_sweep.score_of(found, by)
            result = runs_sweep.ranking_json(found, score)
            answer(form, result, runs_sweep.ranking_view(found, score), wide=True)
            return
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
    """Start a run again by its own command, in the directory where it was given; what follows RUN is added to it.

    Of a sweep, those of its runs are started that are neither complete nor under way.
    """
    with command_errors(AnswerForm.rich):
        if (sweep := sweep_in(run, root)) is not None:
            words, directory = [*runs_sweep.restart_words(sweep), *context.args], runs_sweep.directory_of(sweep)
        else:
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
    """End runs that go on: each saves a checkpoint first, and `mmpretrain runs resume` continues it.

    Of a sweep, all runs that wait or run are ended, and no further ones start.
    """
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        found, stopped = _to_cancel(runs, root)
        done = []
        for run in found:
            done.append({"run": str(run.path), "done": _cancelled(run)})
            wait_until_heard(run)
        if wait:
            ended = [wait_for_end(run, timeout) for run in found]
            done = [_ended(row, run) for row, run in zip(done, ended, strict=True)]
        answer(form, {"runs": [*done, *stopped]}, "\n".join(_words(row) for row in [*done, *stopped]))


def _to_cancel(words: list[str], root: Path) -> tuple[list[Reading], list[dict[str, Any]]]:
    """The runs that are meant, of sweeps those that live; and what of sweeps has been stopped by now."""
    found, stopped = [], []
    for word in words:
        of_word, sweep = named([word], root), sweep_in(word, root)
        if sweep is None:
            found += of_word
            continue
        alive = runs_sweep.living(of_word)
        if (said := runs_sweep.stop_launcher(sweep)) is not None:
            stopped.append({"run": str(sweep), "done": said})
        elif not alive:
            raise CommandError([f"no run of {sweep} is in the queue or running"])
        found += alive
    return found, stopped


def sweep_of(word: str, root: Path) -> str:
    """The folder of a sweep. Raises CommandError if ``word`` means none."""
    if (found := sweep_in(word, root)) is None:
        raise CommandError([f"{word!r} is no folder of a sweep and no name of one in {root}"])
    return str(found)


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
        parts = what or list(Part)
        found = [(run, leftovers(run, parts, everything=everything)) for run in named(runs, root)]
        sweeps = {sweep: leftovers_of_sweep(sweep, parts) for word in runs if (sweep := sweep_in(word, root))}
        if yes:
            for run, things in found:
                delete(run, things)
            for sweep, things in sweeps.items():
                delete_of_sweep(sweep, things)
        things = [thing for of_one in (*(of_run for _, of_run in found), *sweeps.values()) for thing in of_one]
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
