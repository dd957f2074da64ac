"""``mmpretrain shards``: build datasets, index folders of tars, verify, look into and rewrite them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from mmpretrain.console import AnswerForm, CommandError, JsonFlag, answer, command_errors, progress_bar, table, working
from mmpretrain.data.index import build_index, load_index, verify_shards
from mmpretrain.data.writing import Build, Overwrite
from shards.inspection import describe_dataset, describe_sample, split_folders
from shards.multibench.cli import add_multibench_command
from shards.own_cli import add_own_commands
from shards.rewrite.cli import add_rewrite_commands

app = typer.Typer(help="Build, index, verify, inspect and rewrite WebDataset shards.", no_args_is_help=True)
build_app = typer.Typer(help="Build a dataset from its source.", no_args_is_help=True)
app.add_typer(build_app, name="build")
add_own_commands(build_app)
add_multibench_command(build_app)

Force = Annotated[bool, typer.Option("--force", help="Replace whatever --out holds.")]
Folder = Annotated[str, typer.Argument(help="A dataset (with train/, test/) or one folder of tars.")]
Workers = Annotated[int | None, typer.Option(min=1, help="How many at a time (default: the usable cores).")]
DONE = {"built": "built", "unchanged": "is up to date, nothing changed", "replaced": "replaced by a new build"}


@build_app.command("digits", epilog="Example: mmpretrain shards build digits --out data/digits")
def build_digits_command(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("data/digits"),
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """scikit-learn's scanned digits: left half, right half, caption (no download)."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        from shards.digits import build_digits

        with working(form, "building digits"):
            build = build_digits(out, _overwrite(force))
        _show_build(form, build)


@build_app.command(
    "omics", epilog="Example: mmpretrain shards build omics --source omics/rosmap --name rosmap --out data/rosmap"
)
def build_omics_command(
    source: Annotated[Path, typer.Option(help="Folder with {1,2,3}_{tr,te}.csv[.gz] and labels_{tr,te}.csv[.gz].")],
    name: Annotated[str, typer.Option(help="Name of the dataset.")] = "rosmap",
    out: Annotated[Path | None, typer.Option(help="Folder to make (default: data/NAME).")] = None,
    views: Annotated[str, typer.Option(help="Names of view 1, 2, ...")] = "mrna,methylation,mirna",
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """Multi-omics matrices in the layout of the MOGONET benchmark."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        from shards.omics import build_omics

        target = out or Path("data") / name
        names = [view.strip() for view in views.split(",")]
        with working(form, f"building {name}"):
            build = build_omics(source, target, name, names, _overwrite(force))
        _show_build(form, build)


@build_app.command("trifeatures", epilog="Example: mmpretrain shards build trifeatures --pairs biased")
def build_trifeatures_command(
    out: Annotated[Path | None, typer.Option(help="Folder to make (default: data/ and a name for the choice).")] = None,
    levels: Annotated[int, typer.Option(help="Shapes, textures and colors: 10 as published, or 5 for CPUs.")] = 5,
    pixels: Annotated[int | None, typer.Option(help="Side of the images (default: 40, 10 levels: 224).")] = None,
    pairs: Annotated[str, typer.Option(help="Pretraining pairs: unbiased, or biased (synergy).")] = "unbiased",
    count: Annotated[int | None, typer.Option(help="Pretraining pairs (default: 30000, 10 levels: 10000).")] = None,
    probe_count: Annotated[int | None, typer.Option(help="Pairs that probes learn from.")] = None,
    test_count: Annotated[int | None, typer.Option(help="Pairs that probes are tested on.")] = None,
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """Pairs of rendered images with known redundant, unique and synergistic factors (no download)."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        from shards.trifeatures import build_trifeatures, choose_size, default_folder

        size, kind = choose_size(levels, pairs, side=pixels, train=count, probe=probe_count, test=test_count)
        with working(form, "building trifeatures"):
            build = build_trifeatures(out or default_folder(size, kind), size, kind, _overwrite(force))
        _show_build(form, build)


@build_app.command("latents", epilog="Example: mmpretrain shards build latents --label ratio4")
def build_latents_command(
    out: Annotated[Path | None, typer.Option(help="Folder to make (default: data/latents[-LABEL]).")] = None,
    label: Annotated[str | None, typer.Option(help="Carry this label alone (default: all, for probes).")] = None,
    count: Annotated[int, typer.Option(help="Samples, a fifth of them for the test.")] = 30_000,
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """Vectors made of shared and unique latents, with labels of known origin (no download)."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        from shards.latents import build_latents

        target = out or Path("data") / ("latents" if label is None else f"latents-{label}")
        with working(form, "building latents"):
            build = build_latents(target, label, count, _overwrite(force))
        _show_build(form, build)


@build_app.command("linear", epilog="Example: mmpretrain shards build linear --out data/linear")
def build_linear_command(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("data/linear"),
    count: Annotated[int, typer.Option(help="Training samples.")] = 16_384,
    test_count: Annotated[int, typer.Option(help="Test samples.")] = 4_096,
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """Two vectors that share two directions, known in closed form (no download)."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        from shards.linear import build_linear

        with working(form, "building linear"):
            build = build_linear(out, {"train": count, "test": test_count}, _overwrite(force))
        _show_build(form, build)


@build_app.command("planted", epilog="Example: mmpretrain shards build planted --right shared")
def build_planted_command(
    out: Annotated[Path | None, typer.Option(help="Folder to make (default: data/planted[-pretrain]).")] = None,
    right: Annotated[str, typer.Option(help="Right digits: private, or shared (for pretraining).")] = "private",
    count: Annotated[int | None, typer.Option(help="Training pairs (default: 6000, right shared: 30000).")] = None,
    test_count: Annotated[int, typer.Option(help="Test pairs.")] = 1_500,
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """Pairs of images of two digits each, of which they share the left one (no download)."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        from shards.planted import build_planted, choose_right, default_folder

        kind = choose_right(right)
        with working(form, "building planted"):
            build = build_planted(out or default_folder(kind), kind, count, test_count, _overwrite(force))
        _show_build(form, build)


@build_app.command("world", epilog="Example: mmpretrain shards build world --seed 1 --out data/world1")
def build_world_command(
    out: Annotated[Path, typer.Option(help="Folder of datasets to make.")] = Path("data/world"),
    seed: Annotated[int, typer.Option(help="Of the world.")] = 0,
    count: Annotated[int, typer.Option(help="Samples of each dataset to learn from.")] = 20_000,
    test_count: Annotated[int, typer.Option(help="Triples to test on.")] = 1_000,
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """Three modalities that are never seen together: data to connect two spaces with (no download)."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        from shards.world import build_world

        with working(form, "building world"):
            builds = build_world(out, seed, count, test_count, _overwrite(force))
        counts = {name: build.samples for name, build in builds.items()}
        rows = [(str(build.path), build.outcome, str(build.samples)) for build in builds.values()]
        answer(form, {"path": str(out), "samples": counts}, table("", ("dataset", "outcome", "samples"), rows))


@build_app.command("digits-halves", epilog="Example: mmpretrain shards build digits-halves --out data/digits_halves")
def build_digits_halves_command(
    out: Annotated[Path, typer.Option(help="Folder of datasets to make.")] = Path("data/digits_halves"),
    seed: Annotated[int, typer.Option(help="Of the cut of the training scans.")] = 0,
    force: Force = False,
    json_flag: JsonFlag = False,
) -> None:
    """Left halves of some digits, right halves of others, captions: data to connect two spaces with (no download)."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        from shards.digits_halves import build_digits_halves, counts

        with working(form, "building digits"):
            builds = build_digits_halves(out, seed, _overwrite(force))
        rows = [(str(build.path), build.outcome, str(build.samples)) for build in builds.values()]
        view = table("", ("dataset", "outcome", "samples"), rows)
        answer(form, {"path": str(out), "samples": counts(builds)}, view)


@app.command("index", epilog="Example: mmpretrain shards index data/digits/train")
def index_command(
    folder: Folder,
    again: Annotated[bool, typer.Option("--again", help="Scan shards that have not changed, too.")] = False,
    workers: Workers = None,
    json_flag: JsonFlag = False,
) -> None:
    """Scan the new tars of a local folder and write index.json; damaged or hostile tars are refused."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        said: list[str] = []
        with progress_bar(form) as bar:
            indexes = [build_index(path, bar, said.append, workers, again) for path in split_folders(folder)]
        result = {i.folder: {"shards": len(i.shards), "samples": len(i), "fingerprint": i.fingerprint} for i in indexes}
        rows = [(path, *entry.values()) for path, entry in result.items()]
        view = table("", ("folder", "shards", "samples", "fingerprint"), rows)
        answer(form, {"indexed": result, "notes": said}, Group(*map(Text, said), view))


@app.command("verify", epilog="Example: mmpretrain shards verify data/digits --sample 0.1")
def verify_command(
    folder: Folder,
    sample: Annotated[float, typer.Option(min=0, max=1, help="Share of the shards to hash.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draw of --sample.")] = 0,
    workers: Workers = None,
    json_flag: JsonFlag = False,
) -> None:
    """Hash shards of a local folder and compare with its index; sizes and columns are compared in any case."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        indexes = [load_index(path) for path in split_folders(folder)]
        with progress_bar(form) as bar:
            problems = [p for index in indexes for p in verify_shards(index, bar, sample, seed, workers)]
        if problems:
            raise CommandError(problems)
        counts = {index.folder: len(index.shards) for index in indexes}
        hashed = "" if sample == 1 else f"; of {sample:.0%} of them every byte was compared, of the others the size"
        said = f"all {sum(counts.values())} shards of {folder} are as indexed{hashed}"
        answer(form, {"verified": counts, "share": sample}, said)


@app.command("inspect", epilog="Example: mmpretrain shards inspect data/digits --sample digit-0007")
def inspect_command(
    folder: Folder,
    sample: Annotated[str | None, typer.Option(help="Key of one sample to look into.")] = None,
    json_flag: JsonFlag = False,
) -> None:
    """Show what a dataset holds, or the members of one sample."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        if sample is None:
            described = describe_dataset(folder)
            answer(form, described, _dataset_view(folder, described))
        else:
            described = describe_sample(folder, sample)
            rows = [(name, m["bytes"], m["content"]) for name, m in described["members"].items()]
            title = f"{described['key']} in {described['shard']}"
            answer(form, described, table(title, ("member", "bytes", "content"), rows))


add_rewrite_commands(app)


def _overwrite(force: bool) -> Overwrite:
    return Overwrite.anything if force else Overwrite.same_dataset


def _show_build(form: AnswerForm, build: Build) -> None:
    result = {**asdict(build), "path": str(build.path)}
    counts = ", ".join(f"{count} {split}" for split, count in build.samples.items())
    answer(form, result, f"{build.path} {DONE[build.outcome]}: {counts} samples")


def _dataset_view(folder: str, described: dict[str, Any]) -> Group:
    info = described["dataset"] or {}
    heading = [Text(f"{key}: {info[key]}") for key in ("title", "source", "license") if key in info]
    rows = [
        (path, s["samples"], s["shards"], s["bytes"], ", ".join(f"{k} ({n})" for k, n in s["members"].items()))
        for path, s in described["splits"].items()
    ]
    return Group(*heading, table(folder, ("split", "samples", "shards", "bytes", "members (samples)"), rows))
