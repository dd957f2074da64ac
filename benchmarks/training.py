"""What the drivers of whole experiments share: train through the launcher, read results, write tables."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mmpretrain.config import compose, diff_configs, load_config
from mmpretrain.evaluation.records import read_evaluation
from mmpretrain.run_folder import RunFolder, State

ROOT = Path(__file__).resolve().parent.parent


def train(name: str, tokens: Sequence[str], root: str | Path, seed: int) -> Path:
    """Train one run on two local processes; its folder. A complete run is left as it is, a stopped one continued.

    Raises CalledProcessError when the run fails, or has been made with other settings.
    """
    run = RunFolder(Path(root) / name)
    everything = [*tokens, f"seed={seed}", f"run.name={name}", f"run.root={root}"]
    if not _complete(run, everything):
        launcher = [sys.executable, str(ROOT / "launcher" / "submit.py"), "--cluster=local", "--gpus-per-node=2"]
        subprocess.run([*launcher, *everything], check=True)
    return run.path


def _complete(run: RunFolder, tokens: Sequence[str]) -> bool:
    """Whether these very settings have been run to the end; the launcher knows too, but loads the model to say so."""
    if run.status().get("state") != State.completed.value:
        return False
    return not diff_configs(load_config(run.config), compose(tokens))


def evaluation(run_folder: Path) -> dict[str, float]:
    """The final scores of a complete run. Raises ValueError if there are none."""
    found = read_evaluation(RunFolder(run_folder))
    if not found:
        raise ValueError(f"{run_folder} has no evaluation.json: it is not complete")
    return found


def mean_of(scores: Iterable[Mapping[str, float]], keys: Sequence[str]) -> list[float]:
    """For each run's ``scores`` the mean of those under ``keys``."""
    return [float(np.mean([run[key] for key in keys])) for run in scores]


def cell(values: Sequence[float], scale: float = 100.0) -> str:
    """Mean and, of several values, their standard deviation (n - 1), for a table."""
    if not values:
        return ""
    deviation = f" ± {scale * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{scale * np.mean(values):.1f}{deviation}"


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
