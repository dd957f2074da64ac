"""Options that the plan says itself are refused in a profile, however they are written."""

from __future__ import annotations

import pytest

from launcher.slurm.options import memory, sbatch_problems, srun_problems
from launcher.slurm.profiles import Profile


@pytest.mark.parametrize(
    ("key", "right"),
    [
        ("nodes", "--nodes and --gpus-per-node"),
        ("ntasks_per_node", "--nodes and --gpus-per-node"),
        ("Ntasks-Per-Node", "--nodes and --gpus-per-node"),
        ("--time", "time_limit_min"),
        ("tim", "time_limit_min"),
        ("part", "the key partition"),
        ("N", "--nodes and --gpus-per-node"),
        ("-t", "time_limit_min"),
        ("z", "the long name"),
        ("signal", "signal_lead_s"),
        ("no-requeue", "goes back into the queue by itself"),
        ("requeue", "goes back into the queue by itself"),
        ("job_name", "run.name"),
        ("output", "the run's folder"),
        ("open_mode", "the run's folder"),
        ("array", "a sweep"),
        ("mem", "the key mem"),
        ("gpus", "gpus_per_node"),
        ("gpus-per-task", "gpus_per_node"),
        ("gpu_bind", "gpus_per_node"),
        ("export", "the key export"),
        ("chdir", "submitted from"),
        ("wrap", "the launcher needs"),
        ("parsable", "the launcher needs"),
        ("a b", "no option of sbatch"),
    ],
)
def test_sbatch_may_not_contradict_the_plan(key: str, right: str) -> None:
    (problem,) = sbatch_problems({key: "4"})
    assert f"sbatch.{key}" in problem and right in problem


def test_what_the_plan_does_not_say_stays_the_profiles_own() -> None:
    free = ["reservation", "exclusive", "hold", "nodelist", "exclude", "gres-flags", "mem-per-cpu", "mail-type", "nice"]
    free += ["dependency", "begin", "switches", "gpu-freq", "comment", "wait-all-nodes", "licenses", "segment"]
    assert sbatch_problems({**dict.fromkeys(free, "x"), "gres": "nvme:1"}) == []
    assert "gpus_per_node" in sbatch_problems({"gres": "gpu:a100:4"})[0]
    assert "gpus_per_node" in sbatch_problems({"gres": "nvme:1,gres/gpu:2"})[0]


@pytest.mark.parametrize(
    ("argument", "right"),
    [
        ("--ntasks=4", "--nodes and --gpus-per-node"),
        ("-n4", "--nodes and --gpus-per-node"),
        ("-N", "--nodes and --gpus-per-node"),
        ("--export=NONE", "the key export"),
        ("--kill-on-bad-exit=0", "always ended"),
        ("-K0", "always ended"),
        ("--gpus-per-task=1", "gpus_per_node"),
        ("--gpu-bind=single:1", "gpus_per_node"),
        ("--gres=gpu:1", "gpus_per_node"),
        ("--out=/x", "the run's folder"),
        ("-w", "every node"),
        ("--cpus-per-task", "cpus_per_task"),
    ],
)
def test_neither_may_srun(argument: str, right: str) -> None:
    (problem,) = srun_problems(["--cpu-bind=cores", argument])
    assert problem.startswith(f"srun_args: {argument}") and right in problem


def test_what_srun_starts_has_options_of_its_own() -> None:
    assert srun_problems(["--cpu-bind=cores", "--mpi=none", "sh", "-c", "x", "--nodes=3"]) == []
    assert srun_problems(["--container-image", "x.sqsh", "--label", "--wait=30", "--overlap"]) == []


@pytest.mark.parametrize(
    ("text", "slurm", "megabytes"),
    [
        ("64GB", "64G", 65536), ("64 gb", "64G", 65536), ("64g", "64G", 65536), ("64GiB", "64G", 65536),
        ("1.5G", "1536M", 1536), ("2T", "2T", 2097152), ("2048K", "2048K", 2), ("0", "0", 0), ("500m", "500M", 500),
    ],
)  # fmt: skip
def test_memory_is_read_as_people_write_it(text: str, slurm: str, megabytes: int) -> None:
    assert memory(text) == (slurm, megabytes)


@pytest.mark.parametrize(
    ("text", "fix"), [("64", "such as 64G"), ("much", "such as 64G"), ("64GG", "such as 64G"), ("-1G", "such as 64G"),
                      ("1,5G", "such as 64G"), ("0.5K", "write 0"), ("", "such as 64G")],
)  # fmt: skip
def test_memory_that_slurm_would_take_for_something_else_is_refused(text: str, fix: str) -> None:
    assert any(fix in problem for problem in Profile(mem=text).problems())


def test_other_values_that_would_change_the_script_are_refused() -> None:
    assert "line break" in Profile(account="a\n#SBATCH --nodes=9").problems()[0]
    assert "line break" in Profile(sbatch={"comment": "a\nb"}).problems()[0]
    assert "both given" in Profile(mem="4G", sbatch={"mem_per_cpu": "1G"}).problems()[0]
    for export in ("NIL", "A=b", "ALL,A=b", "A B", ""):
        assert "export is neither" in Profile(export=export).problems()[0]
    for export in ("ALL", "NONE", "HF_HOME,WANDB_API_KEY", "ALL,HOME"):
        assert Profile(export=export).problems() == []
