"""``mmpretrain convert``, ``connect`` and ``join`` (no torch here: what computes is imported when it is asked for)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmpretrain.config.data import RESERVED
from mmpretrain.config.model import ConnectedSpace
from mmpretrain.config.root import license_problem
from mmpretrain.console import AnswerForm, CommandError, JsonFlag, answer, command_errors, working


def convert_command(
    model: Annotated[str, typer.Argument(help="A CLIP, SigLIP or CLAP of transformers: folder, or name on the Hub.")],
    out: Annotated[Path, typer.Option(help="Release folder to write.")],
    names: Annotated[
        str | None,
        typer.Option(
            help="What its modalities are called here: IMAGE,TEXT, or SOUND,TEXT.", show_default="their kinds"
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a model on the Hub: branch, tag or commit.")] = None,
    license: Annotated[str | None, typer.Option(help="Of the weights, as the Hub spells it, for the card.")] = None,
    json_flag: JsonFlag = False,
) -> None:
    """Turn a published CLIP, SigLIP or CLAP into a release, with the same embeddings.

    Connections and frozen encoders take it. Example: mmpretrain convert openai/clip-vit-base-patch32 --out clip
    """
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        wanted = None if names is None else _names(names)
        if license is not None and (problem := license_problem(license)):
            raise CommandError([f"--license: {problem}"])
        if out.exists():
            raise CommandError([f"{out} exists: remove it, or name another folder"])
        from mmpretrain.hub.conversion import convert

        with working(form, f"converting {model}"):
            made = convert(model, out, wanted, license, revision)
        called, width = made.config.modalities, next(iter(made.embed_sizes.values()))
        result = {"path": str(out), "modalities": called, "embed_dim": width}
        answer(form, result, f"{out}: {' and '.join(called)}, embeddings of {width} numbers")


def connect_command(
    first: Annotated[Path, typer.Option(help="Folder of the first model, such as CLIP: a release, or transformers'.")],
    second: Annotated[Path, typer.Option(help="Folder of the second, such as CLAP.")],
    projectors: Annotated[Path, typer.Option(help="C-MCR's published heads: a .safetensors, or a .pt of tensors.")],
    out: Annotated[Path, typer.Option(help="Release folder to write.")],
    head_a: Annotated[
        ConnectedSpace | None,
        typer.Option(help="The model that Head_A projects (default: two layers: second; one layer: first)."),
    ] = None,
    json_flag: JsonFlag = False,
) -> None:
    """Put C-MCR's published projectors between two models: a release that embeds everything that either takes.

    Nothing is trained. Example: mmpretrain connect --first clip --second clap --projectors clap_clip.pt --out clip-clap
    """
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        if out.exists():
            raise CommandError([f"{out} exists: remove it, or name another folder"])
        from mmpretrain.hub.published_projectors import connect_published

        with working(form, "connecting"):
            made = connect_published(first, second, projectors, out, head_a)
        called, width = made.config.modalities, next(iter(made.embed_sizes.values()))
        result = {"path": str(out), "modalities": called, "embed_dim": width}
        answer(form, result, f"{out}: {', '.join(called)}, embeddings of {width} numbers")


def join_command(
    leaves: Annotated[list[Path], typer.Argument(help="Releases of connections that keep the same space unprojected.")],
    out: Annotated[Path, typer.Option(help="Release folder to write.")],
    weights: Annotated[
        str | None,
        typer.Option(help="One number per connection, by commas: what several bring is their weighted sum."),
    ] = None,
    json_flag: JsonFlag = False,
) -> None:
    """Join connections to one unprojected space, as in Ex-MCR: a release that embeds what any of them does.

    Nothing is trained. Example: mmpretrain join runs/clip-clap/release runs/clip-points/release --out joined
    """
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        if out.exists():
            raise CommandError([f"{out} exists: remove it, or name another folder"])
        from mmpretrain.hub.leaves import join_leaves

        with working(form, "joining"):
            made = join_leaves(leaves, out, None if weights is None else _numbers(weights))
        called, width = made.config.modalities, next(iter(made.embed_sizes.values()))
        result = {"path": str(out), "modalities": called, "embed_dim": width}
        answer(form, result, f"{out}: {', '.join(called)}, embeddings of {width} numbers")


def _numbers(given: str) -> list[float]:
    try:
        return [float(number) for number in given.split(",")]
    except ValueError as error:
        raise CommandError([f"--weights is {given!r}: numbers are needed, one per connection, as in 1,0.5"]) from error


def _names(given: str) -> tuple[str, str]:
    names = [name.strip() for name in given.split(",")]
    if len(set(names)) != 2 or not all(name.isidentifier() and name not in RESERVED for name in names):
        raise CommandError([f"--names is {given!r}: two plain identifiers are needed, none of {', '.join(RESERVED)}"])
    return names[0], names[1]
