"""From a plan to submitit: the sbatch script, and the submission itself."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import environment_variables
from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

from launcher.planning.plan import RunPlan
from launcher.planning.resources import Cluster
from launcher.ranks.controller import LocalRanks
from launcher.ranks.job import Job
from launcher.ranks.ports import free_port
from launcher.ranks.signals import ignored
from launcher.slurm.options import memory
from launcher.slurm.setup_lines import END, guarded
from launcher.slurm.srun_verdicts import ATTEMPT
from launcher.slurm.submitting_shell import KEPT_BACK, submitting

# What tells a rank to stop may arrive before Python has a handler for it, and would then kill it and with it the run.
PYTHON, LOCAL_PYTHON = (
    shlex.join(["sh", "-c", f'trap "" {name}; exec "$@"', "sh", sys.executable]) for name in ("USR2", "TERM")
)
# srun's own variables, and those that Slurm sets for a job whose environment is not ALL of the shell's: as they would
# reach srun, ranks lose what the script exports, or fewer of them start, elsewhere.
FORGOTTEN = (
    *("EXPORT_ENV", "CPU_BIND", "CPU_BIND_TYPE", "CPU_BIND_LIST", "CPU_BIND_VERBOSE", "KILL_BAD_EXIT", "WAIT", "EXACT"),
    *("OVERLAP", "OPEN_MODE", "STDINMODE", "STDOUTMODE", "STDERRMODE", "LABELIO", "TEST_EXEC", "BCAST", "REMOTE_CWD"),
    *("WORKING_DIR", "PROLOG", "EPILOG", "TASK_PROLOG", "TASK_EPILOG", "STEP_GRES", "DISABLE_STATUS", "IMMEDIATE"),
)
# Between Slurm's start of a rank and that trap lie milliseconds. Ranks that die there had nothing to save yet.
SRUN = """\
srun() {{
  command srun "$@" && return
  local code=$?
  # Of an array, one element has the job id of them all.
  local job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
  [ $code -eq {killed} ] && scontrol requeue "${{job:-$SLURM_JOB_ID}}" && return $code
  {python} -m launcher.ranks.job_end "$_run" || code=$?
  return $code
}}"""


class Executor(SlurmExecutor):
    """submitit's executor for Slurm, for folders with any signs in their names."""

    def _make_submission_file_text(self, command: str, uid: str) -> str:
        """As submitit's, but Slurm takes a % in the paths of logs for itself unless it is doubled."""
        return rendered(command, str(self.folder).replace("%", "%%"), self.parameters)


def rendered(command: str, folder: str, parameters: Mapping[str, Any]) -> str:
    """submitit's script without the wckey that it adds by itself: clusters that know none of that name refuse it."""
    return _make_sbatch_string(command=command, folder=folder, **{"wckey": None, **parameters})


class Renderer(Executor):
    """The same, which also renders scripts where Slurm's commands are not installed."""

    @classmethod
    def affinity(cls) -> int:
        """Stand in for the search for ``srun``."""
        return 1


def sbatch_script(plan: RunPlan) -> str:
    """The script that :func:`submit` would hand to sbatch, to the letter."""
    executor = _slurm_executor(Renderer, plan)
    return executor._make_submission_file_text(executor._submitit_command_str, uid="")


def submit(plan: RunPlan, job: Job) -> submitit.Job[None]:
    """Start or queue the job, one task per rank, and return submitit's handle. The run folder must be prepared."""
    logs = log_folder(plan.run_folder)
    logs.mkdir(parents=True, exist_ok=True)
    if plan.resources.cluster is Cluster.slurm:
        with submitting(kept_back=KEPT_BACK):
            return _slurm_executor(Executor, plan).submit(job)
    with submitting():
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
    executor.update_parameters(**{key: value for key, value in slurm_parameters(plan).items() if value is not None})
    return executor


def slurm_parameters(plan: RunPlan, run: str | None = None, code: Path | None = None) -> dict[str, Any]:
    """What submitit writes the script of; None asks for nothing. run: the run's folder as a word of the shell, code:
    where the job's copy of the code is, if that is not as of one run alone."""
    resources, profile = plan.resources, plan.resources.profile
    assert profile is not None
    return {
        "job_name": plan.run_folder.name,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks_per_node,
        "gpus_per_node": resources.devices,
        "cpus_per_task": profile.cpus_per_task,
        "mem": profile.mem and memory(profile.mem)[0],
        "time": profile.time_limit_min,
        "signal_delay_s": profile.signal_lead_s,
        "setup": _script_lines(plan, run or shlex.quote(str(plan.run_folder)), code or plan.run_folder / "code"),
        "srun_args": _srun_arguments(plan),
        "additional_parameters": {"requeue": True, "export": profile.export or "ALL", **profile.sbatch_options()},
    }


def _srun_arguments(plan: RunPlan) -> list[str]:
    """Said on the command line, which comes before srun's variables."""
    resources, profile = plan.resources, plan.resources.profile
    assert profile is not None
    fixed = ["--kill-on-bad-exit=1", "--export=ALL", f"--nodes={resources.nodes}", f"--ntasks={resources.world_size}"]
    if profile.cpus_per_task:  # srun has not taken it over from sbatch since 22.05
        fixed.append(f"--cpus-per-task={profile.cpus_per_task}")
    return [*fixed, *profile.srun_args]  # these last: they may name a program that starts the ranks


def _script_lines(plan: RunPlan, run: str, code: Path) -> list[str]:
    """From the script's start to srun; what Slurm and the shell left for srun is forgotten before setup may speak."""
    profile, python = plan.resources.profile, shlex.quote(sys.executable)
    assert profile is not None
    return [
        f'echo "{ATTEMPT} $((${{SLURM_RESTART_COUNT:-0}} + 1)) of job $SLURM_JOB_ID on $SLURM_JOB_NODELIST" >&2',
        f'unset "${{!SRUN_@}}" {" ".join(f"SLURM_{name}" for name in FORGOTTEN)}',
        *guarded(profile.setup, run),
        f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export PYTHONSAFEPATH=1",
        # The script runs on the job's first node, where rank 0 will be.
        f"MASTER_PORT=$({python} -m launcher.ranks.ports)",
        "export MASTER_PORT",
        END,
        SRUN.format(killed=128 + signal.SIGUSR2, python=python),
    ]


def _code_variables(run_folder: Path) -> dict[str, str]:
    """Python takes our packages from the snapshot, even in a directory that holds the originals."""
    paths = [str(run_folder / "code"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


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
