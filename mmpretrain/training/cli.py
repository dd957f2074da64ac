"""``mmpretrain export`` (no torch here: what computes is imported when it is asked for)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmpretrain.config.averaging import Weights as Averaged
from mmpretrain.console import AnswerForm, CommandError, JsonFlag, answer, command_errors, working
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.run_folder import RunFolder


class Weights(StrEnum):
    """The type of the released weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def export_command(
    run: Annotated[Path, typer.Argument(help="The run's folder, runs/NAME.")],
    to: Annotated[Path, typer.Option("--to", help="Release folder to write.")],
    step: Annotated[int | None, typer.Option(help="Of which checkpoint; the newest complete one by default.")] = None,
    dtype: Annotated[Weights, typer.Option(help="Of the weights.")] = Weights.float32,
    max_shard_size: Annotated[str, typer.Option(help="Of a file of weights.")] = "5GB",
    average: Annotated[
        bool | None,
        typer.Option(
            "--average/--raw", help="The moving average of the weights, or the weights; as the run released by default."
        ),
    ] = None,
    mixture: Annotated[
        float | None,
        typer.Option(
            help="Share of the training in a mixture with the start, 0 to 1; by default what the run chose, if it did."
        ),
    ] = None,
    native: Annotated[
        bool, typer.Option(help="Write an image and a text encoder of CLIP or SigLIP in their own format, too.")
    ] = True,
    json_flag: JsonFlag = False,
) -> None:
    """Make a release of any checkpoint of a run: of every ZeRO stage and number of ranks, by one process.

    A run with averaging.ema also has the average of its weights, and one with averaging.interpolate the weights that it
    started from. Neither GPUs nor the data are needed, but by methods that read the training split after their last
    step (mucmm). Needs memory for a tensor or two, and disk space for twice the release.
    """
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        if to.exists():
            raise CommandError([f"{to} exists: remove it, or name another folder"])
        from mmpretrain.training.export import export_run

        kind = None if average is None else Averaged.ema if average else Averaged.raw

        try:
            with working(form, f"exporting {run}"):
                made = export_run(
                    RunFolder(run), to, step, dtype.value, max_shard_size, native=native, kind=kind, mixture=mixture
                )
        except CheckpointError as error:
            raise CommandError([str(error)]) from None
        result = {
            "path": str(made.folder),
            "step": made.step,
            "steps": made.steps,
            "dtype": dtype.value,
            "weights": made.chosen.kind.value,
            "mixture": made.chosen.mixture,
            "scores": made.scores,
            "read_training_split": made.concluded,
            "notes": made.notes,
        }
        told = f"{made.scores} scores in its card" if made.scores else "no evaluation belongs to this step"
        answer(form, result, f"{made.folder}: the weights after {made.step} of {made.steps} steps ({told})")
