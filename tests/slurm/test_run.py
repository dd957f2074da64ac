"""Runs under a real Slurm: submission, follow, preemption and requeue, failure, cancellation, snapshot."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from submitit.core.utils import DelayedSubmission

from launcher.launching.executors import sbatch_script
from launcher.launching.launch import LaunchError, launch
from launcher.planning.plan import RunPlan
from launcher.planning.previous_run import read_history
from launcher.planning.resources import Cluster, Request, choose
from launcher.slurm import client as slurm_client
from mmpretrain.endings import Ending
from mmpretrain.run_folder import RunFolder, read_lines
from tests.launcher.toy import ROOT, slurm_plan, toy_job
from tests.slurm.conftest import dev_cluster

pytestmark = pytest.mark.usefixtures("cluster")


def run(plan: RunPlan, **settings: Any) -> tuple[Ending, str]:
    """Launch and follow a toy job; its exit code and what was printed."""
    out = io.StringIO()
    code = launch(plan, Console(file=out), toy_job(plan.run_folder, **settings), follow_it=True)
    return code, out.getvalue()


def in_background(act: Callable[[], None]) -> threading.Thread:
    """Call ``act`` from another thread."""
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def wait_until(condition: Callable[[], object], seconds: float = 90) -> None:
    """Poll; an AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)


def starts(plan: RunPlan) -> list[dict[str, Any]]:
    """What rank 1 found at each of its starts."""
    return list(read_lines(plan.run_folder / "rank-1.jsonl"))


def step_of(plan: RunPlan) -> int:
    """The newest logged step."""
    return max((line["step"] for line in read_lines(RunFolder(plan.run_folder).metrics)), default=0)


def job_id(plan: RunPlan) -> str:
    """The Slurm job of a run that was submitted."""
    return str(RunFolder(plan.run_folder).status()["job_id"])


def test_two_nodes_complete_and_the_script_is_the_one_that_was_shown(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", cpus_per_task=1, setup=["export GREETING=hello"])
    shown = sbatch_script(plan)
    code, out = run(plan)
    assert code == Ending.completed, out
    number = job_id(plan)
    assert (plan.run_folder / "logs" / f"{number}_submission.sh").read_text() == shown
    facts = [json.loads((plan.run_folder / f"rank-{rank}.jsonl").read_text()) for rank in range(4)]
    assert len({fact["host"] for fact in facts}) == 2
    assert [fact["LOCAL_RANK"] for fact in facts] == ["0", "1", "0", "1"]
    for fact in facts:
        assert fact["launcher"] == str(plan.run_folder / "code" / "launcher" / "ranks" / "job.py")
        assert (fact["WORLD_SIZE"], fact["CUDA_VISIBLE_DEVICES"], fact["DS_ACCELERATOR"]) == ("4", "", "cpu")
        assert fact["threads"] == 1
    assert f"job {number} is queued" in out and f"scancel {number}" in out
    assert slurm_client.job_state(number) == "COMPLETED"


def test_a_signalled_job_is_requeued_more_than_once_and_finishes(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", steps=60, ranks=1)

    def is_past(step: int) -> bool:
        return step_of(plan) > step

    def signal_twice() -> None:
        for _ in range(2):
            wait_until(partial(is_past, step_of(plan) + 3))
            subprocess.run(["scancel", "--signal=USR2", job_id(plan)], check=True)
            wait_until(lambda: RunFolder(plan.run_folder).status()["state"] == "preempted")

    thread = in_background(signal_twice)
    code, out = run(plan, steps=60, pause=0.1)
    thread.join()
    assert code == Ending.completed, out
    firsts = [start["first"] for start in starts(plan)]
    assert len(firsts) == 3 and 0 == firsts[0] < firsts[1] < firsts[2] < 60
    steps = [line["step"] for line in read_lines(RunFolder(plan.run_folder).metrics)]
    assert steps == list(range(1, 61)), "no step is lost or done twice"


def test_a_signal_while_python_starts_does_no_harm(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", nodes=1, ranks=1)

    def signal_at_once() -> None:
        wait_until(lambda: RunFolder(plan.run_folder).status().get("job_id"))
        wait_until(lambda: slurm_client.job_state(job_id(plan)) == "RUNNING")
        for _ in range(5):
            # The job may be over, or back in the queue, when a late one is sent: Slurm then refuses it.
            subprocess.run(["scancel", "--signal=USR2", job_id(plan)], check=False)
            time.sleep(0.1)

    thread = in_background(signal_at_once)
    code, out = run(plan)
    thread.join()
    assert code == Ending.completed, out


def test_a_signal_that_kills_a_rank_before_it_can_ignore_it_brings_the_job_back(tmp_path: Path) -> None:
    """The window is milliseconds wide, so the first start is made to fall into it."""
    at_first_start = 'if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then kill -USR2 $$; fi; exec "$@"'
    plan = slurm_plan(tmp_path / "toy", nodes=1, ranks=1, srun_args=["sh", "-c", at_first_start, "sh"])
    code, out = run(plan)
    assert code == Ending.completed, out
    assert slurm_client.job_state(job_id(plan)) == "COMPLETED"
    assert "Restarts=1" in subprocess.check_output(["scontrol", "show", "job", job_id(plan)], text=True)


@pytest.mark.slow
def test_a_lost_node_brings_the_job_back(cluster: dict[str, str], tmp_path: Path) -> None:
    """Power loss gives no signal: Slurm requeues the job, and the follower stays with it."""
    if "CLUSTER_DIR" not in cluster:
        pytest.skip("only a cluster of our own may lose a node")
    plan = slurm_plan(tmp_path / "toy", steps=100, ranks=1)

    def lose_a_node() -> None:
        wait_until(lambda: step_of(plan) > 3)
        dev_cluster("kill-node", "node2", folder=cluster["CLUSTER_DIR"])
        wait_until(lambda: slurm_client.job_state(job_id(plan)) == "PENDING")
        dev_cluster("start-node", "node2", folder=cluster["CLUSTER_DIR"])

    thread = in_background(lose_a_node)
    code, out = run(plan, steps=100, pause=0.1)
    thread.join()
    assert code == Ending.completed, out
    assert len(starts(plan)) == 2


def test_a_job_that_another_partition_preempts_comes_back(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", steps=60, ranks=1, partition="low")

    def take_the_nodes() -> None:
        wait_until(lambda: step_of(plan) > 3)
        subprocess.run(
            ["sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true"], check=True
        )

    thread = in_background(take_the_nodes)
    code, out = run(plan, steps=60, pause=0.1)
    thread.join()
    assert code == Ending.completed, out
    firsts = [start["first"] for start in starts(plan)]
    assert len(firsts) == 2 and firsts[1] > 3


def test_a_cancelled_job_saves_and_stays_cancelled(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", steps=1000, ranks=1)

    def cancel() -> None:
        wait_until(lambda: step_of(plan) > 3)
        subprocess.run(["scancel", job_id(plan)], check=True)

    thread = in_background(cancel)
    code, out = run(plan, steps=1000, pause=0.1)
    thread.join()
    assert code == Ending.preempted, out
    assert "preempted: stopped after step" in out
    assert slurm_client.job_state(job_id(plan)) == "CANCELLED"


def test_a_cancelled_job_that_never_started_is_a_failure(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", sbatch={"hold": True})

    def cancel() -> None:
        wait_until(lambda: RunFolder(plan.run_folder).status().get("job_id"))
        subprocess.run(["scancel", job_id(plan)], check=True)

    thread = in_background(cancel)
    code, out = run(plan)
    thread.join()
    assert code == Ending.interrupted and "Slurm ended the job: CANCELLED" in out


def test_one_failing_rank_ends_the_job_with_its_reason(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy")
    code, out = run(plan, raise_on=3, hang=0)
    assert code == Ending.failed
    cause = "rank 3: FileNotFoundError: data/toy/shard-000001.tar is missing"
    assert f"failed: {cause}\n" in out
    assert RunFolder(plan.run_folder).status()["cause"] == cause
    assert slurm_client.job_state(job_id(plan)) == "FAILED"


def test_a_killed_rank_is_named(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", ranks=1)
    code, out = run(plan, kill=1, hang=0)
    assert code == Ending.lost
    assert slurm_client.job_facts(job_id(plan))["ExitCode"] == f"{Ending.lost.code}:0", "and not srun's 137"
    assert "task 1 ended by Slurm: Killed" in out


def test_a_refused_job_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"not accepted: .*invalid partition"):
        run(slurm_plan(tmp_path / "toy", partition="nowhere"))


def test_edits_after_submission_do_not_reach_the_job(tmp_path: Path) -> None:
    """Submit from a copy of the project, edit the copy while the job waits, then let it start."""
    copy = tmp_path / "project"
    for part in ("launcher", "mmpretrain", "configs", "slurm"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    program = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from launcher.launching.launch import launch; from tests.launcher.toy import slurm_plan, toy_job\n"
        "plan = slurm_plan(Path(sys.argv[1]), ranks=1, sbatch={'hold': True})\n"
        "launch(plan, Console(), toy_job(plan.run_folder), follow_it=False)\n"
    )
    run_folder = tmp_path / "toy"
    environment = {"PYTHONPATH": f"{copy}:{ROOT}"}
    subprocess.run(
        [sys.executable, "-P", "-c", program, str(run_folder)], env={**os.environ, **environment}, check=True
    )
    for name in ("mmpretrain/__init__.py", "launcher/ranks/job.py"):
        (copy / name).write_text("raise RuntimeError('the edited code was used')\n")
    folder = RunFolder(run_folder)
    subprocess.run(["scontrol", "release", str(folder.status()["job_id"])], check=True)
    wait_until(lambda: folder.status()["state"] in ("completed", "failed"))
    assert folder.status()["state"] == "completed", folder.status()


def test_the_pickled_job_holds_only_the_run_folder(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", sbatch={"hold": True})
    launch(plan, Console(file=io.StringIO()), toy_job(plan.run_folder), follow_it=False)
    pickled = DelayedSubmission.load(plan.run_folder / "logs" / f"{job_id(plan)}_submitted.pkl")
    assert vars(pickled.function) == {"run_folder": plan.run_folder}
    assert (pickled.args, pickled.kwargs) == ((), {})


def test_a_run_whose_job_waits_is_left_alone(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", sbatch={"hold": True})
    launch(plan, Console(file=io.StringIO()), toy_job(plan.run_folder), follow_it=False)
    folder, number = RunFolder(plan.run_folder), job_id(plan)
    assert f"is in use by Slurm job {number} (PENDING)" in read_history(folder, plan.config, 4).problems[0]
    subprocess.run(["scancel", number], check=True)
    wait_until(lambda: read_history(folder, plan.config, 4).problems == ())


def test_auto_finds_the_cluster() -> None:
    resources, _, problems = choose(Request(nodes=2))
    assert not problems and resources is not None
    assert (resources.cluster, resources.nodes, resources.ranks_per_node, resources.gpus_per_node) == (
        Cluster.slurm,
        2,
        1,
        0,
    )
