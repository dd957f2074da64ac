"""What a real Slurm gets is what the plan says: whatever the submitting shell holds, and whatever fails first."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from launcher.launching.launch import launch
from launcher.planning.plan import RunPlan
from launcher.planning.resources import Purpose, Request, choose
from mmpretrain.endings import Ending
from mmpretrain.run_folder import RunFolder, read_lines
from tests.launcher.toy import ROOT, slurm_plan, toy_job
from tests.slurm.conftest import started
from tests.slurm.test_run import job_id, run, wait_until

HOSTILE = {
    "SBATCH_TIMELIMIT": "1", "SBATCH_PARTITION": "high", "SBATCH_NO_REQUEUE": "1", "SBATCH_ARRAY_INX": "0-3",
    "SBATCH_SIGNAL": "USR1@5", "SBATCH_OUTPUT": "/dev/null", "SBATCH_OPEN_MODE": "truncate", "SBATCH_EXPORT": "NONE",
    "SBATCH_GPUS": "3", "SBATCH_MEM_PER_NODE": "7000", "SBATCH_JOB_NAME": "other", "SBATCH_ACCOUNT": "theirs",
    "SBATCH_WAIT": "1", "SLURM_NTASKS": "1", "SLURM_EXPORT_ENV": "NONE", "SRUN_EXPORT_ENV": "NONE",
    "SRUN_CPUS_PER_TASK": "4", "SLURM_KILL_BAD_EXIT": "0", "SLURM_NNODES": "1", "CUDA_VISIBLE_DEVICES": "7",
}  # fmt: skip


def submitted(plan: RunPlan, **settings: Any) -> RunFolder:
    """Launch a toy job that nobody follows, and wait until its status says how it ended."""
    launch(plan, Console(file=io.StringIO()), toy_job(plan.run_folder, **settings), follow_it=False)
    folder = RunFolder(plan.run_folder)
    wait_until(lambda: folder.status()["state"] in ("completed", "failed", "preempted"))
    return folder


@pytest.mark.usefixtures("cluster")
def test_no_variable_of_the_shell_and_no_sign_in_a_path_changes_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    setup = [f"export PYTHONPATH={ROOT}", "export SLURM_EXPORT_ENV=NONE", "export SRUN_EXPORT_ENV=NONE"]
    plan = slurm_plan(tmp_path / "50% it's ü %x" / "toy", ranks=1, export="NONE", setup=setup, mem="1 gb")
    code, out = run(plan)
    assert code == Ending.completed, out
    for rank in (0, 1):  # setup may speak to srun, but what ranks get is ours to say
        (facts,) = read_lines(plan.run_folder / f"rank-{rank}.jsonl")
        assert facts["launcher"] == str(plan.run_folder / "code" / "launcher" / "ranks" / "job.py")
        assert (facts["WORLD_SIZE"], facts["CUDA_VISIBLE_DEVICES"]) == ("2", "")
    number = job_id(plan)
    assert {path.name for path in (plan.run_folder / "logs").glob("*.err")} == {f"{number}_{n}_log.err" for n in (0, 1)}
    shown = subprocess.check_output(["scontrol", "show", "job", number], text=True)
    for fact in ("Partition=low", "TimeLimit=00:05:00", "NumNodes=2", "NumTasks=2", "Requeue=1", "JobName=toy"):
        assert re.search(rf"\b{re.escape(fact)}(\s|$)", shown, re.MULTILINE), (fact, shown)
    assert "MinMemoryNode=1G" in shown and "ArrayJobId" not in shown


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_line_of_setup_that_fails_is_the_cause_though_nobody_follows(tmp_path: Path) -> None:
    folder = submitted(slurm_plan(tmp_path / "toy", setup=["echo first", "cd /nope && module load cuda"]))
    status = folder.status()
    assert (status["state"], status["ending"]) == ("failed", "setup")
    assert str(status["cause"]).startswith('the setup of the job failed at "cd /nope": exit code 1: line ')
    shown = subprocess.check_output(["scontrol", "show", "job", str(status["job_id"])], text=True)
    assert "ExitCode=78:0" in shown
    code, out = run(slurm_plan(tmp_path / "followed", setup=["false"]))
    assert code != Ending.completed and 'failed: the setup of the job failed at "false": exit code 1\n' in out


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_job_that_is_cancelled_during_its_setup_is_no_failure(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", setup=["touch reached; sleep 60"])
    launch(plan, Console(file=io.StringIO()), toy_job(plan.run_folder), follow_it=False)
    wait_until(lambda: "R" in subprocess.check_output(["squeue", "-h", "-o%t", "-j", job_id(plan)], text=True))
    wait_until((Path.cwd() / "reached").exists)
    (Path.cwd() / "reached").unlink()
    subprocess.run(["scancel", job_id(plan)], check=True)
    folder = RunFolder(plan.run_folder)
    wait_until(lambda: folder.status()["state"] == "preempted")
    assert folder.status()["cause"] == 'stopped during the setup of the job, at "sleep 60"'


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("profile", "settings", "cause"),
    [
        ({"srun_args": ["--threads-per-core=99"]}, {}, "srun could not start the ranks: "),
        ({"srun_args": ["/no/such/program"]}, {}, "execve(): /no/such/program: No such file or directory"),
        ({"srun_args": ["sh", "-c", "exec /no/python", "sh"]}, {}, "/no/python: not found"),
        ({}, {"kill": 1, "hang": 0}, "task 1 ended by Slurm: Killed"),
    ],
)
def test_what_srun_says_is_the_cause_though_nobody_follows(
    tmp_path: Path, profile: dict[str, Any], settings: dict[str, Any], cause: str
) -> None:
    status = submitted(slurm_plan(tmp_path / "toy", ranks=1, **profile), **settings).status()
    assert status["state"] == "failed" and cause in str(status["cause"]), status


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("request_", "profile", "problem"),
    [
        ({"nodes": 3}, "{}", "--nodes 3: partition low (the default) has 2 nodes"),
        (
            {},
            "partition: hihg",
            "partition hihg: Slurm has none of that name (did you mean high?)",
        ),
        ({}, "mem: 9GB", "--nodes 1 with 9GB of memory: partition low (the default) has 0 of them (at most 8000M)"),
        (
            {"gpus_per_node": 3},
            "cpus_per_task: 2",
            "--nodes 1 with 6 CPUs (3 ranks per node, each with 2)",
        ),
        ({}, "gpu_type: a100", "has no GPUs of type a100"),
    ],
)
def test_what_could_never_start_is_refused_before_it_waits(
    tmp_path: Path, request_: dict[str, Any], profile: str, problem: str
) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "ours.yaml").write_text(profile)
    found, _, problems = choose(Request(cluster="ours", purpose=Purpose.show, config_dir=tmp_path, **request_))
    assert found is None and problem in problems[0]


@pytest.mark.slow
def test_gpus_are_those_of_the_partition_and_each_rank_sees_its_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for environment in started(NODES="2", GPUS="2"):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
        found, notes, problems = choose(Request(nodes=2))
        assert found is not None and not problems
        assert (found.ranks_per_node, found.devices) == (2, 2)
        assert notes == ["2 GPUs per node, as partition low (the default) says (2 nodes)"]
        plan = slurm_plan(tmp_path / "toy", gpus_per_node=2)
        object.__setattr__(plan.resources, "gpus_per_node", 2)
        code, out = run(plan)
        assert code == Ending.completed, out
        for rank in range(4):
            (facts,) = read_lines(plan.run_folder / f"rank-{rank}.jsonl")
            assert facts["CUDA_VISIBLE_DEVICES"] == "0,1"
        refused = choose(Request(nodes=2, gpus_per_node=4))
        assert refused[2] == [
            "4 GPUs on each of 2 nodes: partition low (the default) has 2 GPUs on 2 nodes; ask for fewer"
        ]
