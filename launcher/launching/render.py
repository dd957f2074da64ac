"""Plans and problems, for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum

from rich.console import Console
from rich.table import Table

from launcher.launching.executors import sbatch_script
from launcher.planning.plan import RunPlan
from launcher.planning.predicted import prediction_lines
from launcher.planning.previous_run import Action
from launcher.planning.resources import Cluster
from mmpretrain.config.compose import config_text
from mmpretrain.config.folding import folded_text
from mmpretrain.data.source_checks import SourceUse


class Shown(Enum):
    """How much of the config a plan shows."""

    unusual = "what differs from the defaults"
    whole = "the whole config"


def show_plan(plan: RunPlan, console: Console, shown: Shown = Shown.unusual) -> None:
    """The summary, the config, and the sbatch script of a Slurm plan."""
    show_summary(plan, console)
    if shown is Shown.whole:
        _heading(console, "config")
        _verbatim(console, config_text(plan.config).rstrip())
    else:
        _heading(console, "config, where it differs from the defaults (--whole-config shows all of it)")
        _verbatim(console, folded_text(plan.config))
    if plan.resources.cluster is Cluster.slurm:
        _heading(console, "sbatch script")
        _verbatim(console, sbatch_script(plan))


def plan_as_json(plan: RunPlan) -> str:
    """What plan.json would hold, and the sbatch script of a Slurm plan (else null)."""
    script = sbatch_script(plan) if plan.resources.cluster is Cluster.slurm else None
    return json.dumps({**plan.to_json(), "sbatch": script}, indent=2, ensure_ascii=False)


def show_summary(plan: RunPlan, console: Console) -> None:
    """Resources, batch arithmetic and notes."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in summary(plan).items():
        table.add_row(f"[bold]{name}[/bold]", value)
    console.print(table)
    for note in plan.notes:
        _verbatim(console, f"note: {note}")


def summary(plan: RunPlan) -> dict[str, str]:
    """What a plan comes to, as words."""
    resources, batches = plan.resources, plan.batches
    where = "this machine" if resources.cluster is Cluster.local else f"Slurm, profile {resources.profile_name}"
    devices = (
        f"{resources.gpus_per_node} {resources.gpu_type or 'GPUs'} per node" if resources.gpus_per_node else "CPUs"
    )
    engine = plan.config.engine
    epochs = "the dataset is not built" if batches.epochs is None else f"{batches.epochs:.4g} epochs"
    return {
        "run": f"{plan.run_folder} ({_action(plan)})",
        "cluster": where,
        "ranks": f"world size {resources.world_size}: {resources.layout}, {devices}",
        "batch": f"global batch {batches.global_batch}, local batch {batches.local_batch}{_micro_batches(plan)}",
        "length": f"{batches.steps} steps, {batches.samples} samples ({epochs})",
        **{f"source {use.name}": _use(use) for use in batches.sources},
        "method": f"{plan.config.method.name}, ZeRO stage {engine.zero}, {engine.precision}",
        **prediction_lines(plan.prediction, resources),
    }


def _use(use: SourceUse) -> str:
    shares = ", then ".join(f"{share:.4g}" for share in use.shares)
    return f"share {shares}: {use.taken} samples, {use.epochs:.4g} epochs of its {use.samples}"


def _micro_batches(plan: RunPlan) -> str:
    count = plan.config.engine.micro_batches
    return "" if count == 1 else f" in {count} micro-batches"


def show_problems(problems: Sequence[str], console: Console) -> None:
    """Every problem on a line of its own."""
    for problem in problems:
        _verbatim(console, f"error: {problem}")


def _action(plan: RunPlan) -> str:
    if plan.action is Action.resume and plan.step is not None:
        return f"resume after step {plan.step}"
    return {Action.new: "new", Action.resume: "start over, no checkpoint yet", Action.complete: "complete"}[plan.action]


def _heading(console: Console, text: str) -> None:
    console.print(f"\n[bold]{text}[/bold]")


def _verbatim(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
