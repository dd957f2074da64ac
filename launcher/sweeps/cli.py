"""``--sweep`` and ``--sweep-file``: plan many runs, then show or start them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from launcher.finetuning.asked import Asked
from launcher.finetuning.start import Form
from launcher.launching.launch import LaunchError
from launcher.launching.render import show_problems
from launcher.planning.plan import PlanError
from launcher.planning.resources import Cluster, Purpose, Request, choose
from launcher.sweeps.array import array_problems, submit_array
from launcher.sweeps.local import run_locally, slots
from launcher.sweeps.making import make_sweep
from launcher.sweeps.plan import Composed, Composer, SweepPlan
from launcher.sweeps.record import write_record
from launcher.sweeps.render import show_sweep, sweep_as_json
from launcher.sweeps.values import SweepError, wanted
from mmpretrain.config.choices import Choices
from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.root import Config
from mmpretrain.data.discovery import Discovery
from mmpretrain.endings import Ending
from mmpretrain.run_folder import DamagedFileError
from mmpretrain.words import command


@dataclass(frozen=True)
class SweepOptions:
    """What the command line says of a sweep. words: all of it. several: ``--sweep``. at_once, follow: None: as it is
    usual."""

    words: Sequence[str]
    several: bool = True
    file: Path | None = None
    at_once: int | None = None
    follow: bool | None = None
    dry_run: bool = False
    as_json: bool = False


def swept_training(tokens: Sequence[str], request: Request, base: Path | None, options: SweepOptions) -> int:
    """A sweep of ``train``; the exit code. base: a config to start from."""

    def composed(of_run: Sequence[str], _: Path | None) -> Composed:
        choices, look = Choices(request.config_dir), Discovery()
        try:
            config = compose(of_run, base, choices, look)
        except ConfigError as error:
            raise PlanError(error.problems) from error
        return Composed(config, (*choices.notes(), *look.notes))

    return swept(tokens, request, composed, options)


def swept_finetuning(
    asked_of: Callable[[], Asked],
    composed: Callable[[Asked, int, Request], tuple[Config, tuple[str, ...]]],
    request: Request,
    options: SweepOptions,
) -> int:
    """A sweep of ``finetune``; the exit code. asked_of: what the command line asks for, with the tokens of all runs.
    composed: from that, for so many ranks, to a config and notes. Both raise PlanError."""

    def looked() -> Asked:
        asked = asked_of()
        if asked.start.form is not Form.published:
            return asked
        convert = command("mmpretrain", "convert", asked.start.source, "--out", f"releases/{asked.start.name}")
        said = (
            f"{asked.start.source} would be converted for each run of the sweep: convert it once, `{convert}`, and name"
            f" releases/{asked.start.name} as the model"
        )
        raise PlanError([said])

    try:
        asked = looked()
        resources, _, problems = choose(request)
        if resources is None:
            raise PlanError(problems)
    except PlanError as error:
        show_problems(error.problems, Console(stderr=True))
        return Ending.failed.code
    world_size = resources.world_size

    def of_run(tokens: Sequence[str], there: Path | None) -> Composed:
        # A fine-tuning looks into its run's folder; until that has its name, into none.
        root = next((token for token in reversed(tokens) if token.startswith("run.root=")), "run.root=runs")
        place = [f"{root}/.none"] if there is None else [f"run.root={there.parent}", f"run.name={there.name}"]
        run = replace(asked, tokens=(*tokens, *place))
        config, notes = composed(run, world_size, request)
        config.run.root = os.path.expanduser(root.partition("=")[2])
        return Composed(config, notes)

    return swept(asked.tokens, request, of_run, options)


def swept(tokens: Sequence[str], request: Request, composed: Composer, options: SweepOptions) -> int:
    """Plan a sweep, then show it or start it; the exit code."""
    out, err = Console(), Console(stderr=True)
    try:
        if not options.several and options.file is None:
            raise PlanError(["--at-once is for sweeps: add --sweep or --sweep-file"])
        asked = wanted(tokens, options.file, several=options.several)
        plan = replace(make_sweep(asked, request, composed, options.words), at_once=options.at_once)
        _refuse(plan, options)
        if options.as_json:
            print(sweep_as_json(plan))
        else:
            show_sweep(plan, out, whole=request.purpose is Purpose.show)
        if request.purpose is Purpose.show or not plan.starting:
            return Ending.completed.code
        write_record(plan)
        return _started(plan, options, out)
    except (SweepError, PlanError, LaunchError) as error:
        show_problems(error.problems, err)
    except DamagedFileError as error:
        show_problems([str(error)], err)
    except OSError as error:
        show_problems([f"{error.filename or 'the folder of the sweep'}: {error.strerror or error}"], err)
    return Ending.failed.code


def _refuse(plan: SweepPlan, options: SweepOptions) -> None:
    if options.as_json and not options.dry_run:
        raise PlanError(["--json is for --dry-run: `mmpretrain runs list --json` tells how the runs of a sweep stand"])
    if plan.resources.cluster is not Cluster.local:
        if problems := array_problems(plan):
            raise PlanError(problems)
        return
    slots(plan)
    if options.follow is False:
        raise PlanError(
            [
                "--no-follow: on this machine somebody has to start one run after another; leave it out, and put"
                " `nohup` before the command and `&` behind it if the terminal is to be closed"
            ]
        )


def _started(plan: SweepPlan, options: SweepOptions, console: Console) -> int:
    if plan.resources.cluster is Cluster.local:
        return run_locally(plan, console)
    return submit_array(plan, console, follow=bool(options.follow))
