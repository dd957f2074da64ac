"""Entry point of the ``mmpretrain`` command, which the installed package has and a clone need not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

# Relative: a wheel installs this folder as mmpretrain_contrastive/launcher, and `launcher` may be a stranger's.
from .guard import require_own_package

HOME = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run the command line, once it is certain that ``mmpretrain`` is ours."""
    require_own_package()
    sys.path.insert(0, str(HOME))  # where `launcher` and `shards` lie, before anybody else's of these names
    whole_command()(prog_name="mmpretrain")


def whole_command() -> Any:
    """The group of all commands. ``mmpretrain`` must be ours by now."""
    import typer
    from typer.core import TyperGroup

    from launcher.cli import command_line
    from launcher.finetune import command_line as finetune_line
    from launcher.runs.cli import app as runs_app
    from mmpretrain.cli import app
    from mmpretrain.training.cli import export_command

    app.command("export", epilog="Example: mmpretrain export runs/demo --step 400 --to releases/demo-400")(
        export_command
    )
    app.add_typer(runs_app, name="runs")
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    train = typer.main.get_command(command_line("mmpretrain train"))
    tune = typer.main.get_command(finetune_line("mmpretrain finetune"))
    group.commands = {str(train.name): train, str(tune.name): tune, **group.commands}
    return group


if __name__ == "__main__":
    main()
