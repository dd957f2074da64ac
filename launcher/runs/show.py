"""Everything that a run's folder says of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.planning.advice import how_to_go_on
from launcher.runs.reading import Reading, Standing
from launcher.runs.view import duration, final_scores, shown
from mmpretrain.endings import Ending
from mmpretrain.engine.checkpoint_files import steps
from mmpretrain.records import sizes_in_words
from mmpretrain.run_folder import RunFolder
from mmpretrain.words import command, listed, without_secrets

FILES = {
    "config": "config.yaml",
    "metrics": "metrics.jsonl",
    "logs": "logs",
    "checkpoints": "checkpoints",
    "evaluation": "evaluation.json",
    "release": "release",
    "picture": "summary.png",
    "tensorboard": "tensorboard",
    "report": "report.html",
}
_TERMS = ("loss/", "accuracy", "scale", "lr", "grad_norm", "data_wait", "memory_gib", "tflops_per_s", "mfu")


def facts(run: Reading) -> dict[str, Any]:
    """What ``runs show`` prints of a run, in this order; JSON can hold it."""
    folder, plan = RunFolder(run.path), run.plan
    return {
        "run": str(run.path),
        "state": run.standing.value,
        "cause": run.cause,
        "ending": run.ending and f"{run.ending.name} (exit code {run.ending.code})",
        "attempt": attempt if (attempt := run.status.get("attempt", 1)) > 1 else None,
        "job": run.job.words,
        "step": f"{run.step:,}" if run.total is None else f"{run.step:,} of {run.total:,}",
        "loss": run.loss,
        "loss smoothed": run.smoothed,
        "samples/s": run.speed,
        "ETA": duration(run.left_s) if run.left_s is not None else None,
        "last record": {name: value for name, value in run.last.items() if name.startswith(_TERMS)},
        "written": _when(run.changed),
        "method": run.method,
        "data": run.data,
        "ranks": _ranks(plan),
        "ranks so far": sizes_in_words(run.status.get("sizes") or []),
        "checkpoints": [f"{step}" for step in steps(folder.checkpoints)],
        "passed over": run.status.get("passed_over"),
        "best": run.status.get("best"),
        "released step": run.status.get("released_step"),
        "evaluated": run.status.get("evaluated"),
        "health": _health(run.status),
        "left out": [f"{entry['node']}: {entry['why']}" for entry in run.status.get("excluded_nodes") or []],
        "notes": [without_secrets(str(note)) for note in plan.get("notes") or []],
        "command": without_secrets(str(plan.get("command") or "")) or None,
        "directory": plan.get("directory"),
        "files": {name: str(run.path / file) for name, file in FILES.items() if (run.path / file).exists()},
        "how to go on": next_step(run),
    }


def as_json(run: Reading) -> dict[str, Any]:
    """The same, and the final scores as ``evaluation.json`` names them."""
    scores = [
        {
            "metric": score.metric,
            "of": score.subject,
            "score": score.name,
            "value": score.value,
            "low": score.low,
            "high": score.high,
            "chance": score.chance,
        }
        for score in shown(final_scores(RunFolder(run.path)))
    ]
    return {**facts(run), "scores": scores}


def next_step(run: Reading) -> str:
    """What to do with the run now."""
    path = run.path
    if run.standing is Standing.completed:
        return after_completion(path)
    if run.standing is Standing.damaged:
        return "restore the file that is damaged"
    if run.may_live:
        return f"it goes on: {command('mmpretrain', 'runs', 'cancel', path)} saves a checkpoint and ends it"
    typed = str(run.plan.get("command") or "") or command("mmpretrain", "runs", "resume", path)
    return without_secrets(how_to_go_on(RunFolder(path), run.ending or Ending.failed, typed))


def after_completion(run: Path) -> str:
    """Commands for a run that has a release."""
    release = run / "release"
    return "\n".join(
        [
            command("mmpretrain", "evaluate", release, "--data", "YOUR_DATA"),
            command("mmpretrain", "report", run),
            command("mmpretrain", "push", release, "YOUR_NAME/" + run.name, "--dry-run"),
        ]
    )


def _ranks(plan: Mapping[str, Any]) -> str | None:
    if "world_size" not in plan:
        return None
    device = f"{plan['gpus_per_node']} GPUs per node" if plan.get("gpus_per_node") else "CPUs"
    return f"{plan['world_size']} on {plan.get('nodes')} node(s), {device}, {plan.get('cluster')}"


def _health(status: Mapping[str, Any]) -> str | None:
    """What was seen before training at the last start."""
    seen = status.get("health")
    if not seen:
        return None
    rate = f", links of {seen['mb_per_s']['min']:g} MB/s at least" if seen.get("mb_per_s") else ""
    warnings = "".join(f"; {warning}" for warning in seen.get("warnings") or [])
    return f"{seen['ranks']} ranks on {listed(seen['nodes'])} ({listed(seen['devices'])}){rate}{warnings}"


def _when(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")


def words_of(text: str) -> list[str]:
    """The words of a stored command; empty if it cannot be read."""
    try:
        return shlex.split(text)
    except ValueError:
        return []
