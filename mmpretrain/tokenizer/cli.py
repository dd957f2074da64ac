"""``mmpretrain tokenizer`` (no torch at the top: --help answers at once)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmpretrain.config.data import ModalityConfig
from mmpretrain.console import AnswerForm, CommandError, JsonFlag, answer, command_errors, progress_bar
from mmpretrain.data.discovery import TOKENIZER
from mmpretrain.data.index import is_remote
from mmpretrain.data.info import load_info
from mmpretrain.data.writing import Outcome, Overwrite
from mmpretrain.words import command

if TYPE_CHECKING:
    from mmpretrain.tokenizer.texts import Texts
    from mmpretrain.tokenizer.training import Lengths

app = typer.Typer(help="Make tokenizers from the texts of a data set.", no_args_is_help=True)
DONE = {
    Outcome.built: "written",
    Outcome.unchanged: "was there already, nothing changed",
    Outcome.replaced: "replaced by a new one",
}


@app.callback()
def _group() -> None:
    """A group, though it has one command so far."""


@app.command("train", epilog="Example: mmpretrain tokenizer train --data data/photos --modality caption --size 8000")
def train_command(
    data: Annotated[str, typer.Option(help="Data set: a folder with a folder of tars per split, or a URL.")],
    modality: Annotated[str | None, typer.Option(help="Text to learn from (default: the only one).")] = None,
    size: Annotated[int, typer.Option(help="Tokens, at most.")] = 8000,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to make (default: tokenizer/ beside the shards, where runs look for it)."),
    ] = None,
    split: Annotated[str, typer.Option(help="Split to read.")] = "train",
    sample: Annotated[int | None, typer.Option(min=1, help="Read these many samples only, evenly spaced.")] = None,
    member: Annotated[
        list[str] | None, typer.Option(help="As data.modalities.NAME.member, where names do not tell; repeatable.")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="As data.modalities.NAME.field: keys of JSON; repeatable.")
    ] = None,
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Make no difference between Dog and dog.")] = False,
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Count the texts above it (default: dataset.json's, else 77).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace whatever --out holds.")] = False,
    json_flag: JsonFlag = False,
) -> None:
    """Learn a byte-level BPE from all captions of a split, for model.encoders.NAME.tokenizer."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        from mmpretrain.tokenizer.texts import Texts
        from mmpretrain.tokenizer.training import (
            NoTextError,
            measure_lengths,
            refuse_folder,
            train_tokenizer,
            write_tokenizer,
        )

        target = out or _usual_place(data)
        overwrite = Overwrite.anything if force else Overwrite.same_dataset
        refuse_folder(target, overwrite)
        texts = Texts(data, split, modality, sample, member or (), field or ())
        try:
            tokenizer = train_tokenizer(_watched(texts, "reading", form), size, lowercase)
        except NoTextError as error:
            raise CommandError([f"{error}: {texts.cause}" if texts.cause else str(error)]) from None
        limit = max_length or _configured_length(data, texts.modality)
        lengths = measure_lengths(tokenizer, _watched(texts, "measuring", form), limit)
        outcome = write_tokenizer(tokenizer, target, overwrite)
        result: dict[str, Any] = {"path": str(target), "outcome": outcome.value, "modality": texts.modality}
        result |= {"size": len(tokenizer), "samples": texts.samples, "skipped": texts.skipped}
        result["lengths"] = asdict(lengths)
        answer(form, result, _view(result, outcome, lengths, _use(result, data, lengths)))


def _watched(texts: Texts, what: str, form: AnswerForm) -> Iterator[str]:
    """The texts, with a bar on stderr while they are read."""
    with progress_bar(form) as advance:
        yield from texts(lambda done: advance(what, done, texts.samples))


def _usual_place(data: str) -> Path:
    """Beside local shards, where a run of this data finds it by itself."""
    name = Path(data.rstrip("/")).name or "data"
    return Path("tokenizers") / name if is_remote(data) else Path(data) / TOKENIZER


def _configured_length(data: str, modality: str) -> int:
    """What the builder of the data set says, or else the default of a text."""
    try:
        entry = load_info(data).modalities.get(modality, {})
    except FileNotFoundError:
        entry = {}
    return int(entry.get("max_length", ModalityConfig.max_length))


def _use(result: dict[str, Any], data: str, lengths: Lengths) -> str:
    """How a run takes the tokenizer."""
    name, path = result["modality"], result["path"]
    shorter = f"data.modalities.{name}.max_length={lengths.suggested}"
    if not is_remote(data) and Path(path) == _usual_place(data):
        return f"data.path={data} finds it; {command(shorter)} is enough for 99 % of the texts, and shorter is faster"
    return f"use: {command(f'model.encoders.{name}.tokenizer={path}', shorter)}  # keeps 99 % of the texts whole"


def _view(result: dict[str, Any], outcome: Outcome, lengths: Lengths, use: str) -> str:
    name, path = result["modality"], result["path"]
    skipped = f", {result['skipped']:,} could not be read" if result["skipped"] else ""
    above = f"{lengths.cut:.1%} of them have more than max_length={lengths.limit} and would be cut"
    return "\n".join(
        [
            f"{path} {DONE[outcome]}: {result['size']:,} tokens, from {lengths.texts:,} texts"
            f" of {result['samples']:,} samples{skipped}",
            f"a {name} has {lengths.mean:.1f} tokens on average and {lengths.longest:,} at most,"
            f" start and end included; {above}",
            use,
        ]
    )
