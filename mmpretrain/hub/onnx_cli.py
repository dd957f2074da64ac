"""``mmpretrain onnx`` (no torch here: what computes is imported when it is asked for)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmpretrain.console import AnswerForm, CommandError, JsonFlag, answer, command_errors, table, working


def onnx_command(
    release: Annotated[str, typer.Argument(help="Release folder, or id on the Hub.")],
    to: Annotated[Path, typer.Option(help="Folder to write: MODALITY.onnx each, and onnx.json.")],
    modality: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    json_flag: JsonFlag = False,
) -> None:
    """Write a release's encoders as ONNX files, one per modality, and compare their answers with PyTorch's."""
    form = AnswerForm.of(json_flag)
    with command_errors(form):
        if to.exists():
            raise CommandError([f"{to} exists: remove it, or name another folder"])
        from mmpretrain.hub.onnx import export_release_onnx

        with working(form, f"exporting {release}"):
            made = export_release_onnx(release, to, modality or ())
        answer(form, {"path": str(to), **made}, table(f"{to}", ("file", "inputs", "outputs", "off by"), _rows(made)))


def _rows(made: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    return [
        (
            row["file"],
            ", ".join(f"{key} {row['inputs'][key]['shape']}" for key in row["inputs"]),
            ", ".join(row["outputs"]),
            "not compared: pip install onnxruntime"
            if row["largest_difference"] is None
            else f"{row['largest_difference']:.1e}",
        )
        for row in made["modalities"].values()
    ]
