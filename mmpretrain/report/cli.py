"""``mmpretrain report`` (no torch; what writes the page is imported when it is asked for)."""

from __future__ import annotations

import time
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from mmpretrain.console import AnswerForm, CommandError, JsonFlag, answer, command_errors
from mmpretrain.files import replace_text
from mmpretrain.words import command

EXAMPLES = "Examples: mmpretrain report runs/demo; mmpretrain report runs/a runs/b --out compared.html"
PAGE = "report.html"
RUNS = Path("runs")  # where a run's name is looked for


def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Run folders, or names in ./runs.")],
    out: Annotated[
        Path | None, typer.Option(help="Page to write (default: RUN/report.html; of several runs ./report.html).")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page (default: the run's name).")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    json_flag: JsonFlag = False,
) -> None:
    """Write one HTML page about a run, or about several side by side; it needs no network and no other file."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        from mmpretrain.report.page import page
        from mmpretrain.report.record import read_record, unique_names

        folders = _folders(runs)
        began = time.perf_counter()
        records = [read_record(*pair) for pair in zip(folders, unique_names(folders), strict=True)]
        text = page(records, title)
        path = out or (folders[0] / PAGE if len(folders) == 1 else Path(PAGE))
        path = path / PAGE if path.is_dir() else path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, text)
        except OSError as error:  # the runs of others are not ours to write into
            raise CommandError([f"{path} cannot be written ({error.strerror}): --out names another place"]) from None
        notes = [f"{record.name}: {note}" for record in records for note in record.notes]
        size = len(text.encode())
        result = {"page": str(path), "bytes": size, "runs": [str(folder) for folder in folders], "notes": notes}
        seconds = time.perf_counter() - began
        said = f"{path}: {len(records)} run{'s' * (len(records) > 1)}, {size / 1e6:.2f} MB, in {seconds:.1f} s"
        answer(form, result, "\n".join([f"{said}; open it in a browser", *(f"note: {note}" for note in notes)]))
        if open_page:
            webbrowser.open(path.resolve().as_uri())


def _folders(runs: list[Path]) -> list[Path]:
    """The folders of runs, each once. Raises CommandError with what is wrong with every one."""
    from mmpretrain.report.record import is_run

    found, problems = dict[Path, None](), list[str]()
    for run in runs:
        folder = run if run.exists() or run.is_absolute() else RUNS / run
        if is_run(folder):
            found[folder] = None
        else:
            problems.append(_no_run(run, folder))
    if problems:
        raise CommandError(problems)
    return list(found)


def _no_run(run: Path, folder: Path) -> str:
    from mmpretrain.report.record import is_run

    if not folder.exists():
        return f"{run}: there is no such folder, and no run of that name in {RUNS}/"
    if is_run(folder.parent):
        fix = command("mmpretrain", "report", folder.parent)
        return f"{run} is no run but a part of one: {fix}; about a release, there is `mmpretrain information`"
    inside = sorted(path.name for path in folder.iterdir() if is_run(path)) if folder.is_dir() else []
    if inside:
        return f"{run} holds runs and is none: name them, as {folder / inside[0]}"
    return f"{run} is no run folder: it has no config.yaml, plan.json, status.json or metrics.jsonl"
