"""The ``mmpretrain`` command line; each group of commands lives beside the code that it calls.

``mmpretrain train`` is the launcher's, which lies above this package and adds it (launcher/mmpretrain_command.py).
"""

from __future__ import annotations

from typing import Annotated

import typer

from mmpretrain import __version__
from mmpretrain.comparison.cli import EXAMPLES as EVALUATE_EXAMPLES
from mmpretrain.comparison.cli import evaluate_command
from mmpretrain.console import HomeGroup
from mmpretrain.embedding.cli import embed_command, pair_command
from mmpretrain.explain.cli import explain_command, information_command
from mmpretrain.gradients.cli import gradients_command
from mmpretrain.hub.cli import connect_command, convert_command, join_command
from mmpretrain.hub.onnx_cli import onnx_command
from mmpretrain.hub.push_cli import push_command
from mmpretrain.preview.cli import preview_command
from mmpretrain.report.cli import EXAMPLES as REPORT_EXAMPLES
from mmpretrain.report.cli import report_command
from mmpretrain.tokenizer.cli import app as tokenizer_app
from shards.cli import app as shards_app

app = typer.Typer(
    name="mmpretrain",
    cls=HomeGroup,
    help="Large-scale multimodal contrastive pretraining. In a clone, `train` is `python launcher/submit.py`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(shards_app, name="shards")
app.add_typer(tokenizer_app, name="tokenizer")
# It looks at shards through processors and augmentations, which lie on floors above the room shards.
shards_app.command(
    "preview",
    epilog="Examples: mmpretrain shards preview data/digits; mmpretrain shards preview data/photos data=photos"
    " method=comm --samples 32 --out photos.html",
)(preview_command)
app.command("embed", epilog="Example: mmpretrain embed runs/demo/release --data data/digits --out data/digits-in-demo")(
    embed_command
)
app.command(
    "pair",
    epilog="Example: mmpretrain pair --first b-in-1 --second b-in-2 --shared caption --first-memory a-in-1"
    " --second-memory c-in-2 --out pairs",
)(pair_command)
app.command("explain", epilog="Example: mmpretrain explain runs/demo/release --data data/digits --pair left,caption")(
    explain_command
)
app.command("convert", epilog="Example: mmpretrain convert openai/clip-vit-large-patch14 --out releases/clip")(
    convert_command
)
app.command(
    "connect", epilog="Example: mmpretrain connect --first clip --second clap --projectors clap_clip.pt --out clip-clap"
)(connect_command)
app.command("join", epilog="Example: mmpretrain join runs/clip-clap/release runs/clip-points/release --out joined")(
    join_command
)
app.command("push", epilog="Example: mmpretrain push runs/demo/release my-org/demo --private --dry-run")(push_command)
app.command("evaluate", epilog=EVALUATE_EXAMPLES)(evaluate_command)
app.command(
    "information",
    epilog="Example: mmpretrain information runs/demo/release --data data/digits --pair left,caption",
)(information_command)
app.command("report", epilog=REPORT_EXAMPLES)(report_command)
app.command(
    "gradients",
    epilog="Examples: mmpretrain gradients mmpretrain.losses:InfoNCE; mmpretrain gradients my_loss.py:loss --learned"
    " scale=10",
)(gradients_command)
app.command("onnx", epilog="Example: mmpretrain onnx runs/demo/release --to demo-onnx")(onnx_command)


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
