"""Bad nodes on a real Slurm: named, left out, and the job goes on elsewhere."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from launcher.launching.launch import launch
from launcher.planning.plan import RunPlan
from launcher.sweeps.array import submit_array
from launcher.sweeps.plan import Element, SweepPlan
from launcher.sweeps.record import write_record
from mmpretrain.endings import Ending
from mmpretrain.run_folder import RunFolder, read_lines
from tests.launcher.checked_toy import checked_job
from tests.launcher.toy import ROOT, slurm_plan
from tests.slurm.conftest import started


@pytest.fixture(scope="module")
def three() -> Iterator[dict[str, str]]:
    """A Slurm of three nodes."""
    yield from started(NODES="3", CPUS="2")


@pytest.fixture(autouse=True)
def clients(three: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process asks that one."""
    for name, value in three.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def run(plan: RunPlan, *bad: str) -> tuple[Ending, str]:
    """Launch and follow a run on nodes of which some compute wrongly."""
    out = io.StringIO()
    code = launch(plan, Console(file=out), checked_job(plan.run_folder, *bad), follow_it=True)
    return code, out.getvalue()


@pytest.mark.slow
def test_a_bad_node_is_left_out_and_the_job_completes_on_the_others(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", ranks=1)
    code, out = run(plan, "node2")
    assert code == Ending.completed, out
    assert [line["node"] for line in read_lines(plan.run_folder / "nodes.jsonl")] in (
        ["node1", "node3"],
        ["node3", "node1"],
    )
    status = RunFolder(plan.run_folder).status()
    assert [entry["node"] for entry in status["excluded_nodes"]] == ["node2"]
    assert "rank 1 on node2: its CPU multiplies wrongly" in status["excluded_nodes"][0]["why"]
    assert status["health"]["nodes"] == ["node1", "node3"]
    shown = subprocess.run(["scontrol", "show", "job", status["job_id"]], capture_output=True, text=True).stdout
    assert "ExcNodeList=node2" in shown and "Restarts=1" in shown


@pytest.mark.slow
def test_a_job_that_has_left_out_enough_nodes_ends_with_their_names(tmp_path: Path) -> None:
    plan = slurm_plan(tmp_path / "toy", ranks=1)
    plan.config.health.most_excluded = 1
    code, out = run(plan, "node2", "node3")
    assert code is Ending.unhealthy, out
    cause = RunFolder(plan.run_folder).status()["cause"]
    assert "node3: its CPU multiplies wrongly" in cause and "left out before: node2" in cause, out


@pytest.mark.slow
def test_an_element_of_an_array_leaves_out_its_bad_node_alone(tmp_path: Path) -> None:
    plans = [slurm_plan(tmp_path / "sweep" / name, ranks=1) for name in "ab"]
    elements = tuple(Element(plan.run_folder.name, (), {}, plan.run_folder, plan=plan) for plan in plans)
    sweep = SweepPlan("sweep", tmp_path / "sweep", (), elements, plans[0].resources, "the command", at_once=1)
    write_record(sweep)
    jobs = {plan.run_folder: checked_job(plan.run_folder, *["node2"] * (plan is plans[0])) for plan in plans}
    out = io.StringIO()
    code = submit_array(sweep, Console(file=out, width=200), jobs.__getitem__, follow=True)
    assert code == Ending.completed.code and "note: Slurm has" not in out.getvalue(), out.getvalue()
    first, second = (RunFolder(plan.run_folder).status() for plan in plans)
    assert [entry["node"] for entry in first["excluded_nodes"]] == ["node2"] and "excluded_nodes" not in second
    assert sorted(first["health"]["nodes"]) == ["node1", "node3"]
    for status, left_out in ((first, "node2"), (second, r"\(null\)")):
        shown = subprocess.run(["scontrol", "show", "job", status["job_id"]], capture_output=True, text=True).stdout
        assert re.search(rf"ExcNodeList={left_out}\s", shown), shown
