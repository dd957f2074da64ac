"""From a plan to submitit: the sbatch script, and the submission itself."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import environment_variables
from submitit.helpers import clean_env
from submitit.slurm.slurm import SlurmExecutor

from launcher.controller import LocalRanks
from launcher.job import Job
from launcher.plan import RunPlan
from launcher.ports import free_port
from launcher.resources import Cluster
from launcher.signals import ignored

# What tells a rank to stop may arrive before Python has a handler for it, and would then kill it and with it the run.
PYTHON, LOCAL_PYTHON = (
    shlex.join(["sh", "-c", f'trap "" {name}; exec "$@"', "sh", sys.executable]) for name in ("USR2", "TERM")
)
# Between Slurm's start of a rank and that trap lie milliseconds. Ranks that die there had nothing to save yet.
SRUN = (
    'srun() { command srun "$@" && return; local code=$?; '
    f'[ $code -ne {128 + signal.SIGUSR2} ] || scontrol requeue "$SLURM_JOB_ID"; return $code; }}'
)


class _Renderer(SlurmExecutor):
    """submitit's own executor for Slurm, which also renders scripts where Slurm's commands are not installed."""

    @classmethod
    def affinity(cls) -> int:
        """Stand in for the search for ``srun``."""
        return 1


def sbatch_script(plan: RunPlan) -> str:
    """The script that :func:`submit` would hand to sbatch, to the letter."""
    executor = _slurm_executor(_Renderer, plan)
    return executor._make_submission_file_text(executor._submitit_command_str, uid="")


def submit(plan: RunPlan, job: Job) -> submitit.Job[None]:
    """Start or queue the job, one task per rank, and return submitit's handle. The run folder must be prepared."""
    logs = log_folder(plan.run_folder)
    logs.mkdir(parents=True, exist_ok=True)
    with _own_environment():
        if plan.resources.cluster is Cluster.slurm:
            return _slurm_executor(SlurmExecutor, plan).submit(job)
        executor = LocalRanks(logs, python=LOCAL_PYTHON)
        executor.update_parameters(tasks_per_node=plan.resources.ranks_per_node)
        variables = {**_code_variables(plan.run_folder), "MASTER_PORT": str(free_port())}
        # Neither closing the terminal nor Ctrl-C in it may end the ranks: the launcher tells them to stop, by SIGTERM,
        # which their controller hands on as soon as it listens.
        with environment_variables(**variables), _output_to(logs / "controller.log"), ExitStack() as stack:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                stack.enter_context(ignored(number))
            return executor.submit(job)


def log_folder(run_folder: Path) -> Path:
    """Where submitit keeps the job's script, pickle, results and each rank's output."""
    return run_folder / "logs"


def _slurm_executor(kind: type[SlurmExecutor], plan: RunPlan) -> SlurmExecutor:
    executor = kind(log_folder(plan.run_folder), python=PYTHON)
    executor.update_parameters(**{key: value for key, value in _slurm_parameters(plan).items() if value is not None})
    return executor


def _slurm_parameters(plan: RunPlan) -> dict[str, Any]:
    resources, profile = plan.resources, plan.resources.profile
    assert profile is not None
    srun_args = ["--kill-on-bad-exit=1", *profile.srun_args]
    if profile.cpus_per_task:  # srun has not taken it over from sbatch since 22.05
        srun_args.append(f"--cpus-per-task={profile.cpus_per_task}")
    code = plan.run_folder / "code"
    return {
        "job_name": plan.run_folder.name,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks_per_node,
        "gpus_per_node": resources.gpus_per_node or None,
        "cpus_per_task": profile.cpus_per_task,
        "mem": profile.mem,
        "time": profile.time_limit_min,
        "signal_delay_s": profile.signal_lead_s,
        "setup": [
            *profile.setup,
            f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
            "export PYTHONSAFEPATH=1",
            # The script runs on the job's first node, where rank 0 will be.
            f"export MASTER_PORT=$({shlex.quote(sys.executable)} -m launcher.ports)",
            SRUN,
        ],
        "srun_args": srun_args,
        "additional_parameters": {"requeue": True, **profile.sbatch_options()},
    }


def _code_variables(run_folder: Path) -> dict[str, str]:
    """Python takes our packages from the snapshot, even in a directory that holds the originals."""
    paths = [str(run_folder / "code"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


@contextmanager
def _own_environment() -> Iterator[None]:
    """Hide what an enclosing job left behind, but keep how to reach Slurm and the user's defaults for sbatch."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("SBATCH_", "SLURM_CONF"))}
    with clean_env(), environment_variables(**kept):
        yield


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Processes started inside write to a file: they may outlive the terminal and must not hold its pipe open."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with path.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        for target, source in enumerate(kept, start=1):
            os.dup2(source, target)
            os.close(source)
