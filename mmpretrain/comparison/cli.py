"""``mmpretrain evaluate`` (no torch here: what computes is imported when it is asked for)."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from mmpretrain.comparison.job import RESULT, EvaluateJob
from mmpretrain.comparison.sources import named_sources
from mmpretrain.comparison.view import result_view
from mmpretrain.config.data import LabelForm
from mmpretrain.console import AnswerForm, CommandError, JsonFlag, answer, command_errors
from mmpretrain.embedding.ranks import run_job

PICTURE = "evaluate.png"
EXAMPLES = (
    "Examples: mmpretrain evaluate runs/demo --data data/digits; mmpretrain evaluate runs/demo"
    " openai/clip-vit-base-patch32 --data data/photos --pair image,caption"
    ' --metric retrieval --metric zero_shot --template "a photo of a {}"'
)


Models = Annotated[
    list[str],
    typer.Argument(
        help="Releases, runs (RUN@STEP for a checkpoint), transformers models (CLIP, SigLIP, CLAP, or one encoder),"
        " models of sentence-transformers: folders or names on the Hub."
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(help="What to measure; several times for several (default: all that is possible)."),
]
Pair = Annotated[str | None, typer.Option(help="Two modalities, FIRST,SECOND, that all models are measured on.")]
Towers = Annotated[
    str | None, typer.Option(help="NAME or NAME=TOWER, ...: what is measured, and which tower of a model takes it.")
]
Label = Annotated[
    str | None, typer.Option(help="Member with the labels, or MEMBER:FIELD of JSON (default: label.cls, else cls).")
]
FormOfLabel = Annotated[
    LabelForm, typer.Option(help="What a label is: one class, several classes, or a measured value.")
]
Classes = Annotated[str | None, typer.Option(help="Names of the labels, NAME,NAME,... or a file with a line each.")]
Setting = Annotated[list[str] | None, typer.Option("--set", help="A key of the config's section evaluation: knn.k=5.")]
Pool = Annotated[str | None, typer.Option(help="Of a single transformers encoder: mean (default), cls, last, pooler.")]
Templates = Annotated[list[str] | None, typer.Option(help="Text with {} for a class's name; several times.")]


def evaluate_command(
    models: Models,
    data: Annotated[str, typer.Option(help="Data set: a folder with a folder of tars per split, or a URL.")],
    split: Annotated[str, typer.Option(help="Split that is measured on.")] = "test",
    probe_split: Annotated[str, typer.Option(help="Split that probes learn from.")] = "train",
    metric: Metrics = None,
    pair: Pair = None,
    modalities: Towers = None,
    label: Label = None,
    label_form: FormOfLabel = LabelForm.one_class,
    classes: Classes = None,
    template: Templates = None,
    setting: Setting = None,
    limit: Annotated[int, typer.Option(help="Samples of each split that are used, evenly spaced.")] = 50_000,
    ranks: Annotated[int | None, typer.Option(help="Local processes (default 1; under srun: its tasks).")] = None,
    batch: Annotated[int, typer.Option(help="Samples per rank and forward pass.")] = 256,
    workers: Annotated[int, typer.Option(help="Loader processes per rank.")] = 0,
    pool: Pool = None,
    max_bad_fraction: Annotated[float, typer.Option(help="Share of unreadable samples that may be left out.")] = 0.0,
    out: Annotated[Path | None, typer.Option(help="Folder for evaluate.json and evaluate.png.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Print every score, not the main ones alone.")] = False,
    json_flag: JsonFlag = False,
) -> None:
    """Measure models on held-out data, side by side: retrieval, probes, neighbors, zero-shot classification."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        sources, problems = named_sources(models)
        job = EvaluateJob(
            models=sources,
            data=data,
            out=str(out or _beside(list(sources.values()))),
            split=split,
            probe_split=probe_split,
            metrics=list(dict.fromkeys(metric or [])),
            towers=_towers(modalities),
            pair=_names(pair),
            settings=setting or [],
            label=label,
            label_form=label_form.value,
            classes=_classes(classes),
            templates=template or [],
            limit=limit,
            batch=batch,
            workers=workers,
            pool=pool,
            max_bad_fraction=max_bad_fraction,
        )
        if problems := [*problems, *job.problems()]:
            raise CommandError(problems)
        _measure(form, job, ranks, full=full)


def _measure(form: AnswerForm, job: EvaluateJob, ranks: int | None, *, full: bool) -> None:
    """Do the job and show what came out."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    written = Path(job.out) / RESULT
    if not run_job(job, ranks):
        answer(form, {"complete": False}, f"this rank's share is done; rank 0 writes {written}")
        return
    result = json.loads(written.read_text(encoding="utf-8"))
    from mmpretrain.comparison.picture import draw_comparison

    picture = draw_comparison(result, Path(job.out) / PICTURE)
    files = [str(written), *([str(picture)] if picture else [])]
    answer(form, {**result, "files": files}, result_view(result, files, full=full))


def _towers(text: str | None) -> dict[str, list[str]]:
    """Modality -> towers that may take it; of several models they have different names."""
    found: dict[str, list[str]] = {}
    for entry in text.split(",") if text is not None else ():
        name, equals, tower = (part.strip() for part in entry.partition("="))
        found.setdefault(name, [])
        found[name] += [tower] if equals else []
    return found


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",")] if text is not None else []


def _classes(text: str | None) -> list[str]:
    """Names from the command line, or of the lines of a file."""
    if text is None:
        return []
    if not Path(text).is_file():
        if "," not in text:
            raise CommandError([f"--classes {text}: there is no such file, and a list needs commas: NAME,NAME,..."])
        return _names(text)
    return [line.strip() for line in Path(text).read_text(encoding="utf-8").splitlines() if line.strip()]


def _beside(sources: list[str]) -> Path:
    """``runs/NAME/evaluate`` for the release of one run; in the current folder for several, and for the Hub's."""
    alone = sources[0] if len(sources) == 1 and Path(sources[0]).is_dir() else None
    return Path(alone).resolve().parent / "evaluate" if alone is not None else Path("evaluate")
