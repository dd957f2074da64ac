"""The rendered sbatch script, which needs no Slurm."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from launcher.launching.executors import sbatch_script
from launcher.planning.resources import Cluster
from launcher.slurm.profiles import Profile
from tests.launcher.toy import slurm_plan, toy_plan


def test_the_whole_script_of_a_bare_profile(tmp_path: Path) -> None:
    """Golden: nothing is asked for that the profile does not name."""
    run = tmp_path / "toy"
    interpreter = shlex.quote(sys.executable)
    logs = f"--output {run}/logs/%j_%t_log.out --error {run}/logs/%j_%t_log.err"
    srun = f"srun --unbuffered {logs} --kill-on-bad-exit=1 --export=ALL --nodes=8 --ntasks=32"
    python = f'sh -c \'trap "" USR2; exec "$@"\' sh {interpreter}'
    start = f"""#!/bin/bash

# Parameters
#SBATCH --error={run}/logs/%j_0_log.err
#SBATCH --export=ALL
#SBATCH --job-name=toy
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=4
#SBATCH --open-mode=append
#SBATCH --output={run}/logs/%j_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@30
#SBATCH --time=5

# setup
echo "attempt $((${{SLURM_RESTART_COUNT:-0}} + 1)) of job $SLURM_JOB_ID on $SLURM_JOB_NODELIST" >&2
unset "${{!SRUN_@}}" SLURM_EXPORT_ENV SLURM_CPU_BIND"""
    end = f"""
_checked 0
export PYTHONPATH={run}/code${{PYTHONPATH:+:$PYTHONPATH}}
export PYTHONSAFEPATH=1
MASTER_PORT=$({interpreter} -m launcher.ranks.ports)
export MASTER_PORT
trap - DEBUG ERR EXIT TERM
srun() {{
  command srun "$@" && return
  local code=$?
  # Of an array, one element has the job id of them all.
  local job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
  [ $code -eq 140 ] && scontrol requeue "${{job:-$SLURM_JOB_ID}}" && return $code
  {interpreter} -m launcher.ranks.job_end "$_run" || code=$?
  return $code
}}

# command
export SUBMITIT_EXECUTOR=slurm
{srun} {python} -u -m submitit.core._submit {run}/logs
"""
    script = sbatch_script(slurm_plan(run, nodes=8, ranks=4))
    assert script.startswith(start) and script.endswith(end)
    assert not run.exists()


def test_every_key_of_a_profile_reaches_the_script(tmp_path: Path) -> None:
    profile = Profile(
        partition="a100", account="lab", qos="long", constraint="nvlink", cpus_per_task=12, mem="400GB",
        time_limit_min=600, signal_lead_s=300, setup=["module load cuda"], srun_args=["--cpu-bind=cores"],
        sbatch={"reservation": "deadline", "exclusive": True},
    )  # fmt: skip
    plan = toy_plan(tmp_path / "toy", 8, cluster=Cluster.slurm, nodes=2, gpus_per_node=8, profile=profile)
    lines = sbatch_script(plan).splitlines()
    for name, value in {
        "partition": "a100", "account": "lab", "qos": "long", "constraint": "nvlink", "cpus-per-task": 12,
        "mem": "400G", "time": 600, "signal": "USR2@300", "reservation": "deadline", "gpus-per-node": 8,
        "ntasks-per-node": 8,
    }.items():  # fmt: skip
        assert f"#SBATCH --{name}={value}" in lines
    assert "#SBATCH --exclusive" in lines
    # Ours come last: a module may set PYTHONPATH as well.
    assert lines.index("module load cuda") < next(i for i, line in enumerate(lines) if "PYTHONPATH" in line)
    assert "--nodes=2 --ntasks=16 --cpus-per-task=12 --cpu-bind=cores sh -c" in lines[-1]
