"""``mmpretrain shards build folder|table|hf|audio-visual``: people's own samples become shards."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from mmpretrain.config.sources import LabelForm
from mmpretrain.console import AnswerForm, JsonFlag, answer, command_errors
from mmpretrain.data.writing import BuildError, Overwrite
from shards.audio_visual import Published, open_published
from shards.build_plan import parse_shares
from shards.build_samples import BuildOptions, SamplesBuild, build_samples, look_at_samples
from shards.build_shard import Incomplete
from shards.report import megabytes
from shards.sources.columns import ADDRESS, Wishes, parse_modalities
from shards.sources.findings import Findings
from shards.sources.folder import Classes, open_folder
from shards.sources.hub import open_hub
from shards.sources.sample import Source
from shards.sources.splits import named_files
from shards.sources.table import open_table
from shards.work_folder import free_bytes

Out = Annotated[Path, typer.Argument(help="Folder to make.")]
Split = Annotated[
    list[str], typer.Option(help="Held-out share by hash of the key, such as test=0.02; several are possible.")
]
Modality = Annotated[
    list[str], typer.Option(help="NAME=COLUMN[:image|audio|text], one for each modality (default: found by itself).")
]
Label = Annotated[str | None, typer.Option(help="Column of the labels (default: label, class, cls or category).")]
Key = Annotated[str | None, typer.Option(help="Column of unique keys (default: the path of a file, else a number).")]
PerShard = Annotated[
    int | None, typer.Option("--shard-size", min=1, help="Samples per shard (default: about 128 MiB, 128 to 8192).")
]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes (default: one per core).")]
IncompleteOption = Annotated[Incomplete, typer.Option(help="Samples that lack a modality or have a broken one.")]
ImageSize = Annotated[str | None, typer.Option(help="64 or 48x64 (height x width): size at which models see images.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Read and check everything, write nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Replace whatever OUT holds.")]
DONE = {"built": "built", "unchanged": "is up to date, nothing changed", "replaced": "replaced by a new build"}

Opener = Callable[[Path, Findings], Source]


def folder_command(
    source: Annotated[str, typer.Argument(help="Folder of images, sounds or texts.")],
    out: Out,
    split: Split = [],  # noqa: B006  # typer copies it
    modality: Modality = [],  # noqa: B006
    label: Label = None,
    key: Key = None,
    classes: Annotated[
        bool | None, typer.Option("--classes/--no-classes", help="Whether sub-folders are classes (default: found).")
    ] = None,
    shard_size: PerShard = None,
    workers: Workers = None,
    incomplete: IncompleteOption = Incomplete.drop,
    image_size: ImageSize = None,
    dry_run: DryRun = False,
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """A folder: with metadata.csv or .jsonl, with files of one name (a.jpg, a.txt), or with classes as sub-folders."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        path = _local(source)
        if out.resolve().is_relative_to(path.resolve()):
            raise BuildError(f"{out} lies in {source}: choose an OUT outside of what is read")
        wishes = Wishes(parse_modalities(modality), label, key)
        kind = {None: Classes.found, True: Classes.yes, False: Classes.no}[classes]
        options = _options(split, shard_size, workers, incomplete, image_size, force)
        _build(form, lambda work, notes: open_folder(path, wishes, kind, work, notes), path.name, out, options, dry_run)


def table_command(
    files: Annotated[
        list[str], typer.Argument(help="CSV, TSV, JSON lines, JSON or Parquet: one or several files, or SPLIT=FILE ...")
    ],
    out: Out,
    split: Split = [],  # noqa: B006
    split_column: Annotated[str | None, typer.Option(help="Column that says the split of a row.")] = None,
    modality: Modality = [],  # noqa: B006
    label: Label = None,
    label_form: Annotated[
        LabelForm, typer.Option(help="What a label is; several classes are a list, or have | between them.")
    ] = LabelForm.one_class,
    key: Key = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the paths in it (default: that of the table).")] = None,
    shard_size: PerShard = None,
    workers: Workers = None,
    incomplete: IncompleteOption = Incomplete.drop,
    image_size: ImageSize = None,
    dry_run: DryRun = False,
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """A table with paths or bytes of images or sounds, texts or lists of texts, labels."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        paths = {name: [_local(file) for file in part] for name, part in named_files(files).items()}
        wishes = Wishes(parse_modalities(modality), label, key, label_form, split_column)
        options = _options(split, shard_size, workers, incomplete, image_size, force)
        title = next(iter(paths.values()))[0].stem
        _build(form, lambda work, notes: open_table(paths, root, wishes, work, notes), title, out, options, dry_run)


def hf_command(
    path: Annotated[str, typer.Argument(help="What `datasets` saved, or a folder that it opens from disk.")],
    out: Out,
    split: Split = [],  # noqa: B006
    modality: Modality = [],  # noqa: B006
    label: Label = None,
    key: Key = None,
    config: Annotated[str | None, typer.Option(help="Which of several configurations of the dataset.")] = None,
    shard_size: PerShard = None,
    workers: Workers = None,
    incomplete: IncompleteOption = Incomplete.drop,
    image_size: ImageSize = None,
    dry_run: DryRun = False,
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """A Hugging Face dataset on this disk (nothing is fetched, no code of it is run)."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        source = _local(path)
        wishes = Wishes(parse_modalities(modality), label, key)
        options = _options(split, shard_size, workers, incomplete, image_size, force)
        _build(
            form, lambda work, notes: open_hub(source, config, wishes, work, notes), source.name, out, options, dry_run
        )


def audio_visual_command(
    kind: Annotated[Published, typer.Argument(help="Which set.")],
    source: Annotated[str, typer.Argument(help="Folder of its extracted sounds and pictures.")],
    out: Out,
    annotations: Annotated[
        Path | None, typer.Option(help="Of AVE its Annotations.txt or testSet.txt, of AudioCaps a csv.")
    ] = None,
    split: Split = [],  # noqa: B006
    shard_size: PerShard = None,
    workers: Workers = None,
    incomplete: IncompleteOption = Incomplete.drop,
    image_size: ImageSize = None,
    dry_run: DryRun = False,
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """AVE, Flickr-SoundNet or AudioCaps: sounds with pictures or captions, by the names of their files."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        folder = _local(source)
        options = _options(split, shard_size, workers, incomplete, image_size, force)
        _build(
            form,
            lambda work, notes: open_published(kind, folder, annotations, work, notes),
            kind.value,
            out,
            options,
            dry_run,
        )


def add_own_commands(app: typer.Typer) -> None:
    """Add the four commands."""
    app.command(
        "audio-visual",
        epilog="Example: mmpretrain shards build audio-visual ave AVE data/ave --annotations testSet.txt",
    )(audio_visual_command)
    app.command("folder", epilog="Example: mmpretrain shards build folder photos data/photos --split test=0.02")(
        folder_command
    )
    app.command("table", epilog="Example: mmpretrain shards build table photos.csv data/photos --modality image=file")(
        table_command
    )
    app.command("hf", epilog="Example: mmpretrain shards build hf saved/flowers data/flowers --dry-run")(hf_command)


def _local(name: str) -> Path:
    if ADDRESS.match(name):
        raise BuildError(f"{name} is a remote address: fetch it first, then name the local copy")
    return Path(name).expanduser()


def _options(
    split: list[str],
    shard_size: int | None,
    workers: int | None,
    incomplete: Incomplete,
    image_size: str | None,
    force: bool,
) -> BuildOptions:
    size = {} if image_size is None else {"image_size": _size(image_size)}
    return BuildOptions(
        shares=parse_shares(split),
        per_shard=shard_size,
        incomplete=incomplete,
        workers=workers or len(os.sched_getaffinity(0)),
        overwrite=Overwrite.anything if force else Overwrite.same_dataset,
        **size,
    )


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text)
    if match is None:
        raise BuildError(f"--image-size {text}: write one number (a square) or HEIGHTxWIDTH")
    return int(match[1]), int(match[2] or match[1])


def _build(form: AnswerForm, opener: Opener, title: str, out: Path, options: BuildOptions, dry_run: bool) -> None:
    notes = Findings()
    with tempfile.TemporaryDirectory(prefix="mmpretrain-build-") as work, _bar(form) as bar:
        source = opener(Path(work), notes)
        if dry_run:
            done = look_at_samples(source, out, options, notes, bar)
        else:
            with hint_if_stopped():
                done = build_samples(source, title, out, options, notes, bar)
    answer(form, _result(out, done), _view(out, done))


@contextmanager
def hint_if_stopped() -> Iterator[None]:
    """Say on Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        print("stopped; finished shards are kept, and the same command goes on from there", file=sys.stderr)
        raise


@contextmanager
def _bar(form: AnswerForm) -> Iterator[Callable[[int, int], None]]:
    """Progress in samples with the time that is left, on stderr; nothing where nobody watches."""
    console = Console(stderr=True, quiet=form is AnswerForm.json)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    left = (TextColumn("left:"), TimeRemainingColumn())
    with Progress(*columns, *left, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("looking for samples", total=None)
        yield lambda done, total: progress.update(task, description="samples", completed=done, total=total)


def _result(out: Path, done: SamplesBuild) -> dict[str, Any]:
    build = {"path": str(out), "outcome": "dry run", "kept_shards": done.kept, "asides": done.asides.to_json()}
    if done.build is not None:
        build |= {**asdict(done.build), "path": str(out)}
    return {**build, "report": asdict(done.report)}


def _view(out: Path, done: SamplesBuild) -> RenderableType:
    counts = ", ".join(f"{count} {split}" for split, count in done.report.samples.items())
    if done.build is None:
        size = megabytes(sum(done.report.bytes.values()))
        free = megabytes(free_bytes(out))
        heading = f"{out} would hold {counts} samples, about {size} ({free} are free); nothing is written"
    else:
        kept = f"; {done.kept} finished shards of the build before were kept" if done.kept else ""
        heading = f"{out} {DONE[done.build.outcome]}: {counts} samples{kept}"
    kinds = ", ".join(f"{name} ({entry['kind']})" for name, entry in done.report.modalities.items())
    classes = f"; {done.report.classes} classes" if done.report.classes is not None else ""
    asides = [Text(reason) for reason, _, _ in done.asides]
    return Group(Text(heading), Text(f"modalities: {kinds}{classes}"), *asides, done.report.view())
