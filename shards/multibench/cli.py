"""``mmpretrain shards build multibench``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmpretrain.console import AnswerForm, JsonFlag, answer, command_errors, working
from mmpretrain.data.writing import Build, BuildError, Overwrite
from shards.multibench.affect import AffectLabel, build_affect
from shards.multibench.mimic import TASK, build_mimic
from shards.multibench.vision_touch import build_vision_touch


class Benchmark(StrEnum):
    """Which of MultiBench's data sets."""

    mosi = "mosi"
    mosei = "mosei"
    urfunny = "urfunny"
    mustard = "mustard"
    mimic = "mimic"
    vision_touch = "vision_touch"

    @property
    def affect(self) -> bool:
        """Whether it is one of people who speak."""
        return self not in (Benchmark.mimic, Benchmark.vision_touch)


# What MultiBench's files are called, by how their names begin.
USUAL = {
    "mosei": Benchmark.mosei,
    "mosi": Benchmark.mosi,
    "humor": Benchmark.urfunny,
    "sarcasm": Benchmark.mustard,
    "im": Benchmark.mimic,
}


def multibench_command(
    file: Annotated[
        Path, typer.Option(help="MultiBench's pickle (mosi_raw.pkl, im.pk ...), or a folder of .h5 files.")
    ],
    name: Annotated[Benchmark | None, typer.Option(help="Which data set it is (default: by the file's name).")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make (default: data/NAME).")] = None,
    label: Annotated[
        AffectLabel | None, typer.Option(help="Of people who speak: classes (default: positive), or value.")
    ] = None,
    z_norm: Annotated[
        bool, typer.Option("--z-norm", help="Of people who speak: scale features within each sample.")
    ] = False,
    task: Annotated[
        int | None, typer.Option(help=f"Of mimic: ICD-9 group 0 to 19 (default: {TASK}), -1: mortality.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace whatever --out holds.")] = False,
    json_flag: JsonFlag = False,
) -> None:
    """MOSI, MOSEI, UR-FUNNY, MUStARD, MIMIC or Vision & Touch, from MultiBench's files; nothing in them is run."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        kind = name or guess(file)
        _refuse_options(kind, {"--label": label, "--z-norm": z_norm or None}, affect=True)
        _refuse_options(kind, {"--task": task}, affect=False)
        target, overwrite = out or Path("data") / kind.value, Overwrite.anything if force else Overwrite.same_dataset
        with working(form, f"building {kind.value}"):
            build = _builder(
                kind, file, target, overwrite, label or AffectLabel.positive, z_norm, TASK if task is None else task
            )()
        counts = ", ".join(f"{count} {split}" for split, count in build.samples.items())
        answer(form, {**asdict(build), "path": str(build.path)}, f"{build.path} {build.outcome}: {counts} samples")


def guess(file: Path) -> Benchmark:
    """Which data set a file holds, by MultiBench's names. Raises BuildError where these do not say it."""
    if file.is_dir():
        return Benchmark.vision_touch
    found = [kind for start, kind in USUAL.items() if file.stem.lower().startswith(start)]
    if not found:
        raise BuildError(f"{file}: say which data set it is by --name {' or '.join(Benchmark)}")
    return found[0]


def _refuse_options(kind: Benchmark, given: dict[str, object], affect: bool) -> None:
    """Raises BuildError for options of another data set."""
    wanted = kind.affect if affect else kind is Benchmark.mimic
    for option, value in given.items():
        if value is not None and not wanted:
            raise BuildError(f"{option} has no effect on {kind.value}: leave it out")


def _builder(
    kind: Benchmark, file: Path, out: Path, overwrite: Overwrite, label: AffectLabel, z_norm: bool, task: int
) -> Callable[[], Build]:
    if kind is Benchmark.vision_touch:
        if not file.is_dir():
            raise BuildError(f"{file} is no folder: {kind.value} is a folder of trajectories (.h5 or .npz)")
        return lambda: build_vision_touch(file, out, kind.value, overwrite)
    if not file.is_file():
        raise BuildError(f"{file} is no file: name MultiBench's file of {kind.value}")
    if kind is Benchmark.mimic:
        return lambda: build_mimic(file, out, kind.value, task, overwrite)
    return lambda: build_affect(file, out, kind.value, label, z_norm, overwrite)


def add_multibench_command(app: typer.Typer) -> None:
    """Add the command."""
    app.command("multibench", epilog="Example: mmpretrain shards build multibench --file mosi_raw.pkl")(
        multibench_command
    )
