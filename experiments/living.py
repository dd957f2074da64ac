"""Many small runs in children of one process that has loaded torch and DeepSpeed once, instead of a launcher each.

Each child composes the config of its run as the launcher does and hands the run folder to the project's own training;
what the launcher adds beside it (checks of the plan, a watchdog, a copy of the code) is left out.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from experiments.training import ALONE, TrainingJob, everything, is_complete
from mmpretrain.config.choices import USER_CONFIGS, Choices
from mmpretrain.config.compose import compose, diff_configs, load_config, save_config
from mmpretrain.run_folder import RunFolder, State

# Of the drivers' own imports only what is slow to load: the drivers themselves are imported by each child.
LOADED = ["mmpretrain.training.train", "deepspeed.ops", "accelerate", "sklearn.linear_model", "sklearn.model_selection"]
HEAVY = ("checkpoints", "release")  # of a complete run, folders that no table reads


def train_living(jobs: Sequence[TrainingJob], root: Path, at_once: int = 2, *, keep: bool = False) -> list[Path]:
    """Train ``jobs`` on one thread each, ``at_once`` at a time; their folders. Complete runs stay, others go on.

    Each job's output goes to ``root/NAME.log``. keep: whether checkpoints and releases of complete runs stay as well.
    Raises RuntimeError that names the log of the first job that fails, ValueError for a folder of another config.
    """
    root.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs if not is_complete(RunFolder(root / job.name), _tokens(job, root))]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    with ProcessPoolExecutor(at_once, mp_context=context, max_tasks_per_child=1) as pool:
        list(pool.map(partial(_train, root, keep), missing))
    return [root / job.name for job in jobs]


def _tokens(job: TrainingJob, root: Path) -> list[str]:
    return everything(job, root, *ALONE, "tracking.tensorboard=off")


def _train(root: Path, keep: bool, job: TrainingJob) -> None:
    run = RunFolder(root / job.name)
    started, log = (time.monotonic(), time.process_time()), root / f"{job.name}.log"
    before = os.dup(1)
    try:
        _prepare(run, _tokens(job, root))
        _write_to(log)
        _fit(run.path)
    except Exception as error:
        raise RuntimeError(f"{job.name} failed ({type(error).__name__}: {error}), see {log}") from error
    finally:
        os.dup2(before, 1)
    for name in () if keep else HEAVY:
        shutil.rmtree(run.path / name, ignore_errors=True)
    spent = time.monotonic() - started[0], time.process_time() - started[1]
    print(f"{job.name}: {spent[0]:.0f} s, {spent[1]:.0f} s of the processor", flush=True)


def _prepare(run: RunFolder, tokens: Sequence[str]) -> None:
    """The config in the run's folder, as the launcher leaves it for one rank."""
    config = compose(tokens, choices=Choices(USER_CONFIGS))
    config.method.bind(config.data.global_batch)
    if problems := config.problems():
        raise ValueError("; ".join(problems))
    if run.config.exists() and (other := diff_configs(load_config(run.config), config)):
        raise ValueError(f"{run.path} was made by another config ({other}): move it away")
    run.path.mkdir(parents=True, exist_ok=True)
    save_config(config, run.config)
    run.update_status(state=State.queued, job_id=None, cause=None, total_steps=config.total_steps)


def _write_to(log: Path) -> None:
    """Have all output of this process go to ``log``, whoever writes it."""
    with log.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)


def _fit(folder: Path) -> None:
    """Train as the only rank."""
    from mmpretrain.training.train import main

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= alone | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    main(folder)
