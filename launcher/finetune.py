"""``mmpretrain finetune``: a model and data become the launcher's plan, which is shown or started as any other."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from launcher.cli import (
    AsJson,
    AtOnce,
    ClusterName,
    ConfigDir,
    DryRun,
    Follow,
    Nodes,
    Ranks,
    Sweep,
    SweepFile,
    WholeConfig,
    carried_out,
    hinted_at_sweeps,
    shower,
    typed,
)
from launcher.completion import complete
from launcher.finetuning.asked import Asked, reduced, run_name
from launcher.finetuning.convert import convert, converted
from launcher.finetuning.look import FinetuneLook
from launcher.finetuning.plan import Tokens, run_tokens
from launcher.finetuning.start import Form, Start, StartError, find_start, of_encoders
from launcher.planning.plan import PlanError, RunPlan, make_plan
from launcher.planning.resources import Purpose, Request, choose
from mmpretrain.config.choices import USER_CONFIGS, Choices
from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.root import Config
from mmpretrain.console import HomeCommand
from mmpretrain.data.discovery import no_shards
from mmpretrain.data.index import ShardError, is_remote
from mmpretrain.release_folder import START

HELP = """Fine-tune a model on data of your own, and compare it with what it was: the same command continues.

MODEL is a release of mmpretrain, a run folder, or a CLIP, SigLIP or CLAP of transformers: a folder, or a name on the
Hub. The data are what `mmpretrain train` takes: tars as img2dataset writes them, or what `mmpretrain shards build`
made.

\b
Examples:
  PROGRAM openai/clip-vit-base-patch32 --data data/photos
  PROGRAM runs/demo --data data/photos recipe=lora --epochs 10
  PROGRAM releases/clip --data data/photos recipe=head --general data/general
  PROGRAM google/siglip-base-patch16-224 --data data/photos recipe=lit --lock image
  PROGRAM --encoder image=google/vit-base-patch16-224 --encoder caption=bert-base-uncased --data data/photos
  PROGRAM releases/clip --data data/photos --nodes 2 --cluster slurm --dry-run

\b
Recipes: full (everything learns), lora (small matrices beside frozen weights), head (projections and heads alone),
lit (one encoder is locked). The run ends with a table of scores before and after, in RUN/changes.json too.
"""

T = TypeVar("T")
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[MODEL] [GROUP=CHOICE | KEY=VALUE]...",
        help="The model, then choices and single keys.",
        autocompletion=complete,
    ),
]
Data = Annotated[str | None, typer.Option(help="Folder (or URL) of shards to learn from.", metavar="FOLDER")]
General = Annotated[
    str | None, typer.Option(help="Shards that are kept out and measured before and after.", metavar="FOLDER")
]
Encoders = Annotated[
    list[str] | None, typer.Option("--encoder", help="NAME=MODEL, in place of MODEL: one per modality.")
]
Lock = Annotated[list[str] | None, typer.Option(help="recipe=lit: the modality whose encoder stays as it is.")]
Epochs = Annotated[float | None, typer.Option(help="How often each sample is seen. Default: 5, or train.samples.")]
Revision = Annotated[str | None, typer.Option(help="Of MODEL on the Hub: branch, tag or commit.")]


def command_line(program: str) -> typer.Typer:
    """The one command. program: how it is started, for the examples in its help."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command("finetune", cls=HomeCommand, no_args_is_help=True, help=HELP.replace("PROGRAM", program))(finetune)
    return app


def finetune(
    words: Words = None,
    data: Data = None,
    general: General = None,
    encoder: Encoders = None,
    lock: Lock = None,
    epochs: Epochs = None,
    revision: Revision = None,
    nodes: Nodes = 1,
    gpus_per_node: Ranks = None,
    cluster: ClusterName = "auto",
    dry_run: DryRun = False,
    follow: Follow = None,
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

    model, tokens = split_words(words or [])

    def asked() -> Asked:
        start = _named(model, encoder or [], revision)
        if epochs is not None and epochs <= 0:
            raise StartError(f"--epochs is {epochs}: it must be above 0")
        return Asked(start, _home(data), _home(general), tuple(lock or ()), epochs, tuple(tokens))

    def planned() -> RunPlan:
        with hinted_at_sweeps(tokens):
            return plan_of(asked(), request)

    if sweep or sweep_file is not None or at_once is not None:
        from launcher.sweeps.cli import SweepOptions, swept_finetuning

        options = SweepOptions(typed(sys.argv), sweep, sweep_file, at_once, follow, dry_run=dry_run, as_json=as_json)
        found = swept_finetuning(
            lambda: as_plan_errors(lambda: with_data(asked())),
            lambda run, ranks, of: as_plan_errors(lambda: composed(run, ranks, of)),
            request,
            options,
        )
        raise typer.Exit(found)
    show = shower(whole_config, as_json) if dry_run else None
    raise typer.Exit(carried_out(lambda: as_plan_errors(planned), follow, show))


def _home(folder: str | None) -> str | None:
    """With ``~`` spelled out, which no shell does in ``--data=~/photos``."""
    return None if folder is None else os.path.expanduser(folder)


def split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """(model, tokens): the model is the first word, unless that is a token."""
    if not words or ("=" in words[0] and not Path(words[0]).exists()):
        return None, list(words)
    return words[0], list(words[1:])


def plan_of(asked: Asked, request: Request) -> RunPlan:
    """The plan of a fine-tuning. A dry run writes nothing: what has to be converted is so in a folder that goes away.

    Raises PlanError, ConfigError, ShardError and StartError.
    """
    with_data(asked)
    if asked.start.form is not Form.published:
        return _made(asked, request)
    folder = _run_folder(asked)
    if request.purpose is Purpose.run or (folder / START).is_dir():
        return _made(replace(asked, start=converted(asked.start, folder)), request)
    with tempfile.TemporaryDirectory() as place:
        start = convert(asked.start, Path(place) / START)
        plan = _made(replace(asked, start=start), request)
        return _moved(plan, start.source, str(folder / START))


def with_data(asked: Asked) -> Asked:
    """The same. Raises StartError and ShardError where nothing says what to learn from."""
    if asked.data and not is_remote(asked.data) and not Path(asked.data).is_dir():
        raise no_shards(asked.data)
    if not asked.data and not asked.says_data:
        raise StartError("there are no data: name a folder of shards by --data FOLDER")
    return asked


def composed(asked: Asked, world_size: int, request: Request) -> tuple[Config, tuple[str, ...]]:
    """The config of a fine-tuning that needs nothing converted, and what is worth a note.

    Raises ConfigError, ShardError and StartError.
    """
    asked = reduced(asked)
    choices, look = Choices(request.config_dir), FinetuneLook(asked.start)
    tokens = run_tokens(asked, world_size, choices)
    config = compose(tokens.tokens, None, choices, look)
    return config, (*_notes(asked, config, tokens), *choices.notes(), *look.notes)


def _made(asked: Asked, request: Request) -> RunPlan:
    asked = reduced(asked)
    resources, _, problems = choose(request)
    if resources is None:
        raise PlanError(problems)
    tokens = run_tokens(asked, resources.world_size, Choices(request.config_dir))
    command = shlex.join(typed(sys.argv))
    plan = make_plan(tokens.tokens, request, None, command, FinetuneLook(asked.start))
    return replace(plan, notes=(*_notes(asked, plan.config, tokens), *plan.notes))


def _notes(asked: Asked, config: Config, tokens: Tokens) -> list[str]:
    """What is fine-tuned, and how."""
    frozen = [name for name, encoder in config.model.encoders.items() if encoder.freeze]
    still = f"; frozen: {', '.join(frozen)}" if frozen else ""
    method, recipe = config.method.name, config.finetune.recipe
    return [f"fine-tuning {asked.start.called} by {method}, recipe {recipe}{still}", *tokens.notes]


def _named(model: str | None, encoders: Sequence[str], revision: str | None) -> Start:
    """The start that the command names. Raises StartError."""
    if encoders and model:
        raise StartError(f"{model} and --encoder both say what to fine-tune: give one")
    if not encoders and not model:
        raise StartError("there is no MODEL: name a release, a run, or a model of transformers before the keys")
    if model:
        return find_start(model, revision)
    pairs = [entry.partition("=") for entry in encoders]
    if wrong := [entry for entry, (name, _, source) in zip(encoders, pairs, strict=True) if not (name and source)]:
        raise StartError(f"--encoder {wrong[0]}: write NAME=MODEL, as image=google/vit-base-patch16-224")
    return of_encoders({name: source for name, _, source in pairs})


def _run_folder(asked: Asked) -> Path:
    """Where the run will lie, as its tokens say."""
    said = {key: value for key, _, value in (token.partition("=") for token in asked.tokens)}
    name = said.get("run.name") or run_name(asked.start, asked.data_name)
    return Path(os.path.expanduser(said.get("run.root", "runs"))) / name


def _moved(plan: RunPlan, place: str, folder: str) -> RunPlan:
    """The plan as it would be made, with ``folder`` in the place of the one that goes away."""
    plan = deepcopy(plan)
    for config in (plan.config, plan.composed):
        for encoder in config.model.encoders.values():
            encoder.pretrained = folder if encoder.pretrained == place else encoder.pretrained
        config.init_from = folder if config.init_from == place else config.init_from
    notes = tuple(note.replace(place, folder) for note in plan.notes)
    return replace(plan, notes=(*notes, f"{folder} is made of the model when the run starts"))


def as_plan_errors(planned: Callable[[], T]) -> T:
    """What ``planned`` returns; whatever it raises about the request becomes a PlanError."""
    try:
        return planned()
    except ConfigError as error:
        raise PlanError(error.problems) from error
    except (StartError, ShardError, OSError) as error:
        raise PlanError([str(error)]) from error
