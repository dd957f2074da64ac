"""The ``mmpretrain`` command line; each group of commands lives beside the code that it calls."""

from __future__ import annotations

from typing import Annotated

import typer

from mmpretrain import __version__
from shards.cli import app as shards_app

app = typer.Typer(
    name="mmpretrain",
    help="Large-scale multimodal contrastive pretraining. Training starts with: python launcher/submit.py",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(shards_app, name="shards")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mmpretrain {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the whole command line."""
