"""What Slurm knows beforehand: jobs that could never start, and those that only wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.planning.resources import Request, choose
from launcher.slurm import client as slurm_client
from launcher.slurm.fit import Wanted, node_problems, partition_problems
from launcher.slurm.nodes import Node
from launcher.slurm.partition import PartitionError, find_place
from launcher.slurm.profiles import Profile

NODES = [Node.read(f"n{at}|{'down*' if at == 3 else 'idle'}|64|256000|gpu:a100:4|a100,ib") for at in range(4)]
FACTS = {"MaxTime": "1-00:00:00", "MaxNodes": "8", "AllowAccounts": "lab,other", "AllowQos": "ALL", "State": "UP"}


@pytest.mark.parametrize(
    ("wanted", "profile", "problem"),
    [
        (Wanted(5, 4), {}, "--nodes 5: p has 4 nodes; ask for less"),
        (Wanted(2, 4), {"cpus_per_task": 17}, "68 CPUs (4 ranks per node, each with 17): p has 0 of them (at most 64"),
        (Wanted(1, 65), {}, "65 CPUs (65 ranks per node, each with 1)"),
        (Wanted(2, 4), {"mem": "300G"}, "with 300G of memory: p has 0 of them (at most 256000M)"),
        (Wanted(2, 8, 8), {}, "with 8 x GPU: p has 0 of them (at most 4)"),
        (Wanted(2, 4, 4, "h100"), {}, "with 4 x h100: p has 0 of them (at most 0)"),
        (Wanted(3, 4, 4, "a100"), {"cpus_per_task": 16, "mem": "0"}, None),
    ],
)  # fmt: skip
def test_nodes_that_nobody_has_are_named_by_what_they_lack(
    wanted: Wanted, profile: dict[str, Any], problem: str | None
) -> None:
    problems, notes = node_problems(NODES, wanted, Profile(**profile), "p")
    assert (problems == [] and notes == []) if problem is None else problem in problems[0]


def test_nodes_that_are_down_are_waited_for() -> None:
    note = "only 3 of the 4 fitting nodes of p can be used now: the job waits"
    assert node_problems(NODES, Wanted(4, 4), Profile(), "p") == ([], [note])


@pytest.mark.parametrize(
    ("facts", "profile", "problem"),
    [
        ({}, {"time_limit_min": 1441}, "time_limit_min is 1441: partition p allows 1440"),
        ({"MaxTime": "00:30:00"}, {}, "time_limit_min is 1440: partition p allows 30"),
        ({"MaxNodes": "1"}, {}, "--nodes 2: partition p allows 1 for a job"),
        ({}, {"account": "ours"}, "account ours: partition p takes only lab,other"),
        ({"AllowQos": "long"}, {"qos": "short"}, "qos short: partition p takes only long"),
        ({"MaxTime": "UNLIMITED", "MaxNodes": "UNLIMITED"}, {"account": "Lab"}, None),
    ],
)
def test_limits_of_the_partition_are_said(facts: dict[str, str], profile: dict[str, Any], problem: str | None) -> None:
    problems, _ = partition_problems("p", {**FACTS, **facts}, Wanted(2, 4), Profile(**profile))
    assert problems == [] if problem is None else problem in problems[0]


def test_what_a_qos_may_lift_and_what_may_change_are_notes() -> None:
    problems, notes = partition_problems(
        "p", {**FACTS, "State": "DOWN"}, Wanted(9, 1), Profile(time_limit_min=2000, qos="long")
    )
    assert problems == [] and len(notes) == 3
    assert "unless the qos long allows more" in notes[0] and "is DOWN: Slurm starts no jobs there now" in notes[2]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Slurm with a default partition of CPUs and one of GPUs."""
    lines = {
        "cpu": [f"c{at}|idle|64|256000|(null)|(null)" for at in range(9)],
        "gpu": [f"g{at}|mixed|64|256000|gpu:a100:4(S:0-1),gpu:1g.5gb:7|a100" for at in range(2)],
    }
    monkeypatch.setattr(slurm_client, "responds", lambda: True)
    monkeypatch.setattr(slurm_client, "partitions", lambda: ["cpu*", "gpu"])
    monkeypatch.setattr(
        slurm_client, "node_lines", lambda name, among: [at for at in lines[name] if not among or at[:2] in among]
    )
    monkeypatch.setattr(slurm_client, "partition_facts", lambda _: {**FACTS, "MaxTime": "UNLIMITED"})


@pytest.mark.usefixtures("answers")
def test_the_partition_in_use_decides_about_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes, problems = choose(Request(nodes=2))
    assert found is not None and (found.ranks_per_node, found.devices, notes, problems) == (1, None, [], [])
    monkeypatch.setenv("SBATCH_PARTITION", "gpu")
    found, notes, problems = choose(Request(nodes=2))
    assert found is not None and (found.ranks_per_node, found.devices, problems) == (4, "a100:4", [])
    said = "4 x a100 per node, as partition gpu says (2 nodes); not used there: 7 x 1g.5gb on 2 nodes"
    assert notes == ["from the SBATCH_* variables of this shell: partition gpu", said]
    monkeypatch.setenv("SBATCH_CONSTRAINT", "h100")
    assert "--nodes 2: partition gpu, constraint h100, has 0 nodes" in choose(Request(nodes=2))[2][0]


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize(
    ("options", "nodes", "names"),
    [
        ({"exclude": "c3,c5"}, 2, "c0 c1 c2 c4 c6 c7 c8"),
        ({"nodelist": "c3,c5"}, 2, "c3 c5"),
        ({"nodelist": "c3,c5", "exclude": "c5"}, 1, "c3"),
        ({"nodelist": "c3,c5"}, 3, "c0 c1 c2 c3 c4 c5 c6 c7 c8"),
        ({"--node_list": None, "nodelist": "/a/file"}, 1, "c0 c1 c2 c3 c4 c5 c6 c7 c8"),
    ],
)
def test_nodes_are_those_that_the_profile_names_or_does_not_leave_out(
    options: dict[str, str | bool | None], nodes: int, names: str
) -> None:
    found = find_place(Profile(partition="cpu", sbatch=options), "ours", nodes)
    assert [node.name for node in found.nodes] == names.split()


@pytest.mark.usefixtures("answers")
def test_fewer_ranks_than_the_gpus_of_the_profile_need_fewer(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "big.yaml").write_text("partition: gpu\ngpus_per_node: 8\n")
    found, _, problems = choose(Request(gpus_per_node=4, cluster="big", config_dir=tmp_path))
    assert found is not None and (found.devices, problems) == ("a100:4", [])
    assert "8 x a100" in choose(Request(cluster="big", config_dir=tmp_path))[2][0]


@pytest.mark.usefixtures("answers")
def test_a_partition_that_is_not_there_is_said_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PartitionError, match=r"partition gpus: .*did you mean gpu\?\); there are cpu, gpu"):
        find_place(Profile(partition="gpus"), "ours")
    monkeypatch.setattr(slurm_client, "partitions", lambda: ["cpu", "gpu"])
    with pytest.raises(PartitionError, match=r"no default partition: set partition in the profile ours \(cpu, gpu\)"):
        find_place(Profile(), "ours")
