"""The command line of the launcher: plan, show or submit, follow."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from launcher.completion import complete
from launcher.launching.launch import LaunchError, launch
from launcher.launching.render import Shown, plan_as_json, show_plan, show_problems, show_summary
from launcher.planning.plan import PlanError, RunPlan, make_plan
from launcher.planning.previous_run import Action
from launcher.planning.resources import Cluster, Purpose, Request
from launcher.sweeps.values import several_values
from mmpretrain.config.choices import USER_CONFIGS
from mmpretrain.console import HomeCommand
from mmpretrain.endings import Ending
from mmpretrain.run_folder import DamagedFileError
from mmpretrain.words import listed

HELP = """Start a pretraining run, or continue it: the same run.name with the same config resumes.

\b
Examples:
  PROGRAM method=clip data.path=data/photos        # any folder of shards, with a small model
  PROGRAM method=m3col experiment=digits run.name=demo
  PROGRAM --nodes 8 --dry-run method=m3col
  PROGRAM --nodes 2 --gpus-per-node 8 --cluster slurm --follow method=clip engine=zero3
  PROGRAM --config runs/demo/config.yaml
  PROGRAM --config-dir mine data=photos     # takes mine/data/photos.yaml
  PROGRAM --sweep data.path=data/photos method=clip,m3col optim.lr=1e-3,3e-4 seed=0..2

Exit codes: 0 completed (or queued); 2 the command line could not be read; 75 stopped by a signal, the same
command continues; 1, 65 to 78 and 130 failed: docs/reliability.md says how each of them came and what helps.
"""

Tokens = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[GROUP=CHOICE | KEY=VALUE]...", help="Config choices and single keys.", autocompletion=complete
    ),
]
Nodes = Annotated[int, typer.Option(help="Machines.")]
Ranks = Annotated[
    int | None,
    typer.Option(help="Ranks per node. Default: the profile's, else the node's GPUs, else 1 on Slurm and 2 locally."),
]
ClusterName = Annotated[
    str, typer.Option(help="auto (Slurm if one answers), local, slurm, or a profile: CONFIG_DIR/slurm/NAME.yaml.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and the sbatch script; write nothing.")]
WholeConfig = Annotated[
    bool, typer.Option("--whole-config", help="With --dry-run: every key of the config, not only the unusual ones.")
]
AsJson = Annotated[bool, typer.Option("--json", help="With --dry-run: the plan as JSON.")]
Follow = Annotated[
    bool | None,
    typer.Option("--follow/--no-follow", help="Wait and exit with the job's status. Default: only for local runs."),
]
Sweep = Annotated[
    bool, typer.Option("--sweep", help="Several runs: of each KEY=A,B and KEY=0..4 one for every combination.")
]
SweepFile = Annotated[Path | None, typer.Option(help="Several runs: the tokens of one on each line of this file.")]
AtOnce = Annotated[
    int | None,
    typer.Option(
        min=1, help="Runs of a sweep at the same time. Default: on Slurm all, on this machine one.", metavar="N"
    ),
]
Base = Annotated[Path | None, typer.Option(help="Start from this config, e.g. runs/NAME/config.yaml.")]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        file_okay=False,
        help="Your own choices, GROUP/CHOICE.yaml, and profiles, slurm/NAME.yaml; they come before the shipped ones."
        f" Default: ./{USER_CONFIGS}, if it is there.",
    ),
]


def command_line(program: str) -> typer.Typer:
    """The launcher's one command. program: how it is started, for the examples in its help."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("train", cls=HomeCommand, no_args_is_help=False, help=HELP.replace("PROGRAM", program))(submit)
    return app


def submit(
    tokens: Tokens = None,
    nodes: Nodes = 1,
    gpus_per_node: Ranks = None,
    cluster: ClusterName = "auto",
    dry_run: DryRun = False,
    follow: Follow = None,
    config: Base = None,
    config_dir: ConfigDir = None,
    whole_config: WholeConfig = False,
    as_json: AsJson = False,
    sweep: Sweep = False,
    sweep_file: SweepFile = None,
    at_once: AtOnce = None,
) -> None:
    """Plan a run, then show it or start it (HELP says more); exits with the launcher's code."""
    purpose = Purpose.show if dry_run else Purpose.run
    request = Request(nodes, gpus_per_node, cluster, purpose, config_dir or USER_CONFIGS)
    if sweep or sweep_file is not None or at_once is not None:
        from launcher.sweeps.cli import SweepOptions, swept_training

        options = SweepOptions(typed(sys.argv), sweep, sweep_file, at_once, follow, dry_run=dry_run, as_json=as_json)
        raise typer.Exit(swept_training(tokens or [], request, config, options))

    def planned() -> RunPlan:
        with hinted_at_sweeps(tokens or []):
            return make_plan(tokens or [], request, config, shlex.join(typed(sys.argv)))

    raise typer.Exit(carried_out(planned, follow, shower(whole_config, as_json) if dry_run else None))


@contextmanager
def hinted_at_sweeps(tokens: Sequence[str]) -> Iterator[None]:
    """Add to what is wrong that a sweep would read several values here."""
    try:
        yield
    except PlanError as error:
        several = [token for token in tokens if several_values(token)]
        wrong = [token for token in several if any(token.partition("=")[0] in problem for problem in error.problems)]
        if not wrong:
            raise
        hint = f"{listed(wrong)}: several values make several runs only with --sweep"
        raise PlanError([*error.problems, hint]) from error


def shower(whole_config: bool, as_json: bool) -> Callable[[RunPlan], None]:
    """What shows the plan of a dry run."""
    if as_json:
        return lambda plan: print(plan_as_json(plan))
    return lambda plan: show_plan(plan, Console(), Shown.whole if whole_config else Shown.unusual)


def carried_out(planned: Callable[[], RunPlan], follow: bool | None, show: Callable[[RunPlan], None] | None) -> int:
    """Start what ``planned`` plans, or only ``show`` it; the launcher's exit code. follow: None: local runs alone."""
    out, err = Console(), Console(stderr=True)
    try:
        plan = planned()
        if show is not None:
            show(plan)
            return Ending.completed.code
        show_summary(plan, out)
        if plan.action is Action.complete:
            out.print(f"complete already: {plan.run_folder}", markup=False, highlight=False, soft_wrap=True)
            return Ending.completed.code
        local = plan.resources.cluster is Cluster.local
        return launch(plan, out, follow_it=local if follow is None else follow).code
    except (PlanError, LaunchError) as error:
        show_problems(error.problems, err)
    except DamagedFileError as error:
        show_problems([str(error)], err)
    return Ending.failed.code


def typed(arguments: Sequence[str]) -> list[str]:
    """The words of this process's command as a user would type them. arguments: ``sys.argv``."""
    program = Path(arguments[0])
    return ["python", *arguments] if program.suffix == ".py" else [program.name, *arguments[1:]]
