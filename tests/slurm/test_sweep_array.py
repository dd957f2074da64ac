"""A sweep under a real Slurm: one array, whose elements are preempted, requeued, cancelled and told each by itself."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from launcher.runs.choice import below
from launcher.runs.reading import Standing
from launcher.slurm import client as slurm_client
from launcher.sweeps.array import array_script, submit_array
from launcher.sweeps.plan import Element, SweepPlan
from launcher.sweeps.record import write_record
from mmpretrain.run_folder import RunFolder, read_lines
from tests.launcher.toy import slurm_plan, toy_job
from tests.slurm.test_run import in_background, wait_until

pytestmark = pytest.mark.usefixtures("cluster")
# Each element's first start ends as one does that a signal meets before Python can ignore it.
KILLED_AT_FIRST = 'if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then kill -USR2 $$; fi; exec "$@"'


def toy_sweep(folder: Path, names: list[str], at_once: int | None = None, **profile: object) -> SweepPlan:
    """A sweep of toy runs on one rank each."""
    plans = [slurm_plan(folder / name, steps=40, nodes=1, ranks=1, **profile) for name in names]
    elements = [Element(plan.run_folder.name, (), {}, plan.run_folder, plan=plan) for plan in plans]
    return SweepPlan(folder.name, folder, (), tuple(elements), plans[0].resources, "the command", at_once=at_once)


def submit(plan: SweepPlan, **settings: object) -> list[RunFolder]:
    """Queue the sweep; its run folders."""
    write_record(plan)
    out = io.StringIO()
    job = {run.run_folder: toy_job(run.run_folder, steps=40, **settings) for run in plan.starting}
    assert submit_array(plan, Console(file=out, width=200), job.__getitem__, follow=False) == 0, out.getvalue()
    return [RunFolder(run.run_folder) for run in plan.starting]


def starts(run: RunFolder) -> list[int]:
    """The step after which each start of a run went on."""
    return [line["first"] for line in read_lines(run.path / "rank-0.jsonl")]


def word(run: RunFolder) -> str:
    """Slurm's word for the run's element."""
    return slurm_client.job_state(run.status()["job_id"])


def test_each_element_is_requeued_alone_and_has_its_own_folder(tmp_path: Path) -> None:
    plan = toy_sweep(tmp_path / "sweep", ["a", "b"], 2, srun_args=["sh", "-c", KILLED_AT_FIRST, "sh"])
    runs = submit(plan, pause=0.1)
    script = next((tmp_path / "sweep" / ".arrays").glob("*/submission.sh")).read_text()
    assert "#SBATCH --array=0-1%2\n" in script
    shown = array_script(plan).replace("SUBMISSION", "1")
    assert shown.replace("/.code/COPY", "") == script.replace(f"/.code/{(runs[0].path / 'code').readlink().name}", "")
    ids = [run.status()["job_id"] for run in runs]
    assert ids == [f"{ids[0].partition('_')[0]}_{number}" for number in range(2)]
    wait_until(lambda: len(list(read_lines(runs[1].metrics))) > 3)
    subprocess.run(["scancel", "--signal=USR2", ids[1]], check=True)
    wait_until(lambda: all(run.status()["state"] == "completed" for run in runs))
    assert [len(starts(run)) for run in runs] == [1, 2], "the first start of each was ended before it began"
    assert starts(runs[1])[1] > 3
    assert [line["step"] for line in read_lines(runs[1].metrics)] == list(range(1, 41))
    wait_until(lambda: all(word(run) == "COMPLETED" for run in runs))
    for run, job_id in zip(runs, ids, strict=True):
        shown = subprocess.check_output(["scontrol", "show", "job", job_id], text=True)
        assert f"Restarts={2 if run is runs[1] else 1} " in shown
        assert run.status()["job_id"] == job_id
        assert (run.path / "logs" / f"{job_id}_0_log.out").exists()


@pytest.mark.slow
def test_the_states_of_elements_are_told_and_the_sweep_is_cancelled_as_a_whole(tmp_path: Path) -> None:
    plan = toy_sweep(tmp_path / "sweep", ["a", "b", "c"], 2)
    runs = submit(plan, pause=0.5)
    wait_until(lambda: all(run.status()["state"] == "running" for run in runs[:2]))
    found = {run.name: run for run in below(tmp_path / "sweep")}
    assert [found[name].standing for name in "abc"] == [Standing.running, Standing.running, Standing.queued]
    assert found["c"].job.words == f"Slurm job {runs[2].status()['job_id']} (PENDING)"
    done = json.loads(mmpretrain("runs", "cancel", str(tmp_path / "sweep"), "--wait", "--json"))
    assert [row["state"] for row in done["runs"]] == ["preempted", "preempted", "preempted"]
    assert runs[2].status()["cause"] == "cancelled while it waited in the queue"
    assert not (runs[2].path / "rank-0.jsonl").exists()


def mmpretrain(*words: str) -> str:
    """What a command prints."""
    from typer.testing import CliRunner

    from launcher.runs.cli import app

    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_following_an_array_tells_the_runs_that_failed(tmp_path: Path) -> None:
    plan = toy_sweep(tmp_path / "sweep", ["a", "b"])
    write_record(plan)
    jobs = {
        run.run_folder: toy_job(run.run_folder, steps=5, raise_on=0 if run.run_folder.name == "b" else None)
        for run in plan.starting
    }
    out = io.StringIO()
    codes: list[int] = []
    console = Console(file=out, width=200)
    thread = in_background(lambda: codes.append(submit_array(plan, console, jobs.__getitem__, follow=True)))
    thread.join(120)
    assert codes == [1], out.getvalue()
    assert "2 runs: 1 completed, 1 failed" in out.getvalue()
    assert "b: failed: rank 0: FileNotFoundError: data/toy/shard-000001.tar is missing" in out.getvalue()
