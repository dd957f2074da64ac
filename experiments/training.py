"""What the drivers of whole experiments share: train through the launcher, read results, write tables."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpretrain.config.choices import USER_CONFIGS, Choices
from mmpretrain.config.compose import compose, diff_configs, load_config
from mmpretrain.data.index import load_index
from mmpretrain.records import read_evaluation
from mmpretrain.run_folder import RunFolder, State

ROOT = Path(__file__).resolve().parent.parent
ALONE = ("engine.threads=1",)  # what runs side by side are told besides


@dataclass(frozen=True)
class TrainingJob:
    """One run: its name, tokens for the launcher, its seed."""

    name: str
    tokens: Sequence[str]
    seed: int


def train(name: str, tokens: Sequence[str], root: str | Path, seed: int) -> Path:
    """Train one run on two local processes; its folder. A complete run is left as it is, a stopped one continued.

    Raises CalledProcessError when the run fails, or has been made with other settings.
    """
    run, whole = RunFolder(Path(root) / name), everything(TrainingJob(name, tokens, seed), root)
    if not is_complete(run, whole):
        subprocess.run([*_launcher(2), *whole], check=True)
    return run.path


def train_side_by_side(jobs: Sequence[TrainingJob], root: Path, at_once: int = 2) -> list[Path]:
    """Train ``jobs`` on one process and one thread each, ``at_once`` at a time; their folders.

    Small models lose less this way than by sharing every batch. Each job's output goes to ``root/NAME.log``.
    Raises RuntimeError that names the log of the first job that fails; those under way are finished.
    """
    root.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda job: _train_alone(job, root), jobs))


def finished(job: TrainingJob, root: Path) -> Path | None:
    """The folder of a job of :func:`train_side_by_side`; None if it has not been run to the end with these settings."""
    run = RunFolder(root / job.name)
    return run.path if is_complete(run, everything(job, root, *ALONE)) else None


def _train_alone(job: TrainingJob, root: Path) -> Path:
    run, whole = RunFolder(root / job.name), everything(job, root, *ALONE)
    if is_complete(run, whole):
        return run.path
    log, started = root / f"{job.name}.log", time.monotonic()
    with log.open("w") as output:
        done = subprocess.run([*_launcher(1), *whole], stdout=output, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"{job.name} failed, see {log}")
    print(f"{job.name}: {time.monotonic() - started:.0f} s", flush=True)
    return run.path


def _launcher(ranks: int) -> list[str]:
    return [sys.executable, str(ROOT / "launcher" / "submit.py"), "--cluster=local", f"--gpus-per-node={ranks}"]


def everything(job: TrainingJob, root: str | Path, *more: str) -> list[str]:
    """The tokens of a job's config. more: those that its driver adds."""
    return [*job.tokens, *more, f"seed={job.seed}", f"run.name={job.name}", f"run.root={root}"]


def check_dataset(folder: Path, samples: Mapping[str, int]) -> bool:
    """Whether there is a dataset at ``folder``. Raises ValueError if it has other numbers of ``samples`` per split."""
    if not (folder / "dataset.json").exists():
        return False
    found = {split: len(load_index(folder / split)) for split in samples}
    if found != dict(samples):
        raise ValueError(f"{folder} holds {found}, the experiment wants {dict(samples)}: move it away or give --data")
    return True


def is_complete(run: RunFolder, tokens: Sequence[str]) -> bool:
    """Whether these very settings have been run to the end; the launcher knows too, but loads the model to say so."""
    if run.status().get("state") != State.completed.value:
        return False
    stored, asked = load_config(run.config), compose(tokens, choices=Choices(USER_CONFIGS))
    if stored.method.name == asked.method.name:
        asked.method.bind_as(stored.method)  # what a run fixes at its first start
    return not diff_configs(stored, asked)


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
