"""``mmpretrain explain`` and ``mmpretrain information`` (no torch here: what computes is imported when it is asked
for)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpretrain.console import AnswerForm, CommandError, JsonFlag, answer, command_errors, working
from mmpretrain.explain.cli_views import explain_view, information_view
from mmpretrain.explain.settings import Attribution, AttributionForm, CommonScore, IndividualScore, Settings, Wanted

Release = Annotated[str, typer.Argument(help="Release folder, or a transformers model like CLIP or CLAP.")]
Data = Annotated[str, typer.Option(help="Dataset: a folder with a folder of tars per split, or a URL.")]
Out = Annotated[Path | None, typer.Option(help="Folder to write to (default: beside the release).")]
Pair = Annotated[
    str | None, typer.Option(help="Two modalities of the data, FIRST,SECOND; needed where more than two fit.")
]
Split = Annotated[str, typer.Option(help="Split that is scored.")]
FitSplit = Annotated[str, typer.Option(help="Split that means, codes and correlations are from.")]
Common = Annotated[int | None, typer.Option(help="Common dimensions (default: those that chance does not explain).")]
Individual = Annotated[int | None, typer.Option(help="Leading individual dimensions (default: all that is left).")]
Dimensions = Annotated[int | None, typer.Option(help="Principal components that embeddings are reduced to.")]
Limit = Annotated[int, typer.Option(help="Samples of each split that are used, evenly spaced.")]


def explain_command(
    release: Release,
    data: Data,
    out: Out = None,
    pair: Pair = None,
    samples: Annotated[int, typer.Option(help="Samples to draw, spread over the labels.")] = 6,
    keys: Annotated[str | None, typer.Option(help="Keys of samples to draw instead: KEY,KEY,...")] = None,
    common_score: Annotated[CommonScore, typer.Option(help="What is drawn of what is shared.")] = CommonScore.product,
    individual_score: Annotated[
        IndividualScore, typer.Option(help="What is drawn of what is a modality's own.")
    ] = IndividualScore.norm,
    attribution: Annotated[Attribution, typer.Option(help="How scores are traced to inputs.")] = Attribution.gradient,
    weight_by_rho: Annotated[bool, typer.Option("--weight-by-rho", help="Weak common directions count less.")] = False,
    split: Split = "test",
    fit_split: FitSplit = "train",
    common: Common = None,
    individual: Individual = None,
    dimensions: Dimensions = None,
    limit: Limit = 10_000,
    sanity: Annotated[
        bool | None,
        typer.Option(
            "--sanity/--no-sanity", help="Check the maps: shuffled weights, deletion (default: if few samples)."
        ),
    ] = None,
    json_flag: JsonFlag = False,
) -> None:
    """Score what two modalities share and what is their own, and draw where in the inputs it lies."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        settings = _settings(common, individual, dimensions)
        drawn = AttributionForm(common_score, individual_score, attribution, weight_by_rho)
        chosen = tuple(_names(keys))
        _check_counts(samples=samples, limit=limit)
        wanted = Wanted(settings, drawn, samples, chosen, fit_split, split, limit, sanity)
        from mmpretrain.explain.explain import explain
        from mmpretrain.explain.files import summary, write_explanation
        from mmpretrain.explain.opened import open_release, usual_device

        with working(form, f"explaining {release}"):
            opened = open_release(release, data, _names(pair) or None, usual_device())
            explanation = explain(opened, wanted)
            folder = out or _beside(release, "explain")
            files = write_explanation(explanation, opened, wanted, folder)
        result = {**summary(explanation), "files": [str(path) for path in files]}
        answer(form, result, explain_view(result))


def information_command(
    release: Release,
    data: Data,
    out: Out = None,
    pair: Pair = None,
    split: Split = "test",
    fit_split: FitSplit = "train",
    common: Common = None,
    individual: Individual = None,
    dimensions: Dimensions = None,
    limit: Limit = 10_000,
    json_flag: JsonFlag = False,
) -> None:
    """Say what two modalities of a release share, what is each one's own, and which dimensions carry it."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        settings = _settings(common, individual, dimensions)
        _check_counts(limit=limit)
        from mmpretrain.explain.files import write_report
        from mmpretrain.explain.information import information_report
        from mmpretrain.explain.opened import open_release, usual_device

        with working(form, f"what the modalities of {release} share"):
            opened = open_release(release, data, _names(pair) or None, usual_device())
            splits = opened.embed(fit_split, limit), opened.embed(split, limit)
            factors = opened.info.factors if opened.info else {}
            report = information_report(
                *splits, opened.pair, settings, opened.origin, factors, split, towers=opened.towers
            )
            files = write_report(report, release, out or _beside(release, "information"))
        result = {**report.to_json(), "files": [str(path) for path in files]}
        answer(form, result, information_view(result))


def _settings(common: int | None, individual: int | None, dimensions: int | None) -> Settings:
    settings = Settings(common, individual, dimensions)
    if problems := settings.problems():
        raise CommandError(problems)
    return settings


def _check_counts(**counts: int) -> None:
    if problems := [f"--{key} is {value}: at least 1 is needed" for key, value in counts.items() if value < 1]:
        raise CommandError(problems)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",")] if text else []


def _beside(release: str, name: str) -> Path:
    """``runs/NAME/explain`` for ``runs/NAME/release``; in the current folder for what has no folder here."""
    return Path(release).resolve().parent / name if Path(release).is_dir() else Path(name)
