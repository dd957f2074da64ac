"""What the shell that submits may say, and what is said about it."""

from __future__ import annotations

import os

import pytest

from launcher.slurm.profiles import Profile
from launcher.slurm.submitting_shell import KEPT_BACK, passed_on, submitting, with_shell


def test_variables_of_sbatch_fill_what_the_profile_leaves_open_and_nothing_else() -> None:
    shell = {
        "SBATCH_ACCOUNT": "lab", "SBATCH_PARTITION": "gpu", "SBATCH_RESERVATION": "deadline", "SBATCH_EXCLUSIVE": "1",
        "SBATCH_MEM_PER_NODE": "4096", "SBATCH_EXPORT": "NONE", "SBATCH_TIMELIMIT": "1", "SBATCH_NO_REQUEUE": "1",
        "SBATCH_ARRAY_INX": "0-9", "SLURM_NTASKS": "3",
    }  # fmt: skip
    profile, notes = with_shell(Profile(account="ours", sbatch={"reservation": "own"}), shell)
    assert (profile.account, profile.partition, profile.mem, profile.export) == ("ours", "gpu", "4096M", "NONE")
    assert profile.sbatch == {"reservation": "own", "exclusive": True}
    assert notes == [
        "from the SBATCH_* variables of this shell: export NONE, mem 4096M, partition gpu, exclusive",
        "SBATCH_ACCOUNT, SBATCH_ARRAY_INX, SBATCH_NO_REQUEUE, SBATCH_RESERVATION, SBATCH_TIMELIMIT of this shell do not"
        " act: the plan says what Slurm gets",
    ]
    assert with_shell(Profile(), {"SLURM_CONF": "/x"}) == (Profile(), [])


def test_what_reaches_the_ranks_and_matters_is_shown_without_secrets() -> None:
    shell = {
        "NCCL_DEBUG": "INFO", "TORCH_HOME": "/cache\n", "CUDA_VISIBLE_DEVICES": "3", "NCCL_AUTH_TOKEN": "abc",
        "WANDB_API_KEY": "abc", "HOME": "/root", "PYTHONPATH": "/x" * 40,
    }  # fmt: skip
    shown, kept = passed_on(Profile(), shell)
    path = ("/x" * 40)[:60]
    assert shown == f"from this shell, the ranks get NCCL_DEBUG=INFO, PYTHONPATH={path}..., TORCH_HOME=/cache"
    assert kept == "CUDA_VISIBLE_DEVICES of this shell does not reach the ranks: Slurm names their devices"
    assert passed_on(Profile(export="NONE"), {"NCCL_DEBUG": "INFO"}) == []
    assert passed_on(Profile(export="NCCL_DEBUG"), {"NCCL_DEBUG": "INFO", "NCCL_P2P": "0"})[0].endswith(
        "NCCL_DEBUG=INFO"
    )


def test_sbatch_sees_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = (
        "SBATCH_TIMELIMIT",
        "SLURM_NTASKS",
        "SRUN_EXPORT_ENV",
        "SLURM_EXPORT_ENV",
        "CUDA_VISIBLE_DEVICES",
        "RANK",
    )
    for name in (*hostile, "SLURM_CONF", "SLURM_JWT", "NCCL_DEBUG"):
        monkeypatch.setenv(name, "1")
    with submitting(kept_back=KEPT_BACK):
        assert not set(hostile) & set(os.environ)
        assert all(name in os.environ for name in ("SLURM_CONF", "SLURM_JWT", "NCCL_DEBUG"))
    assert set(hostile) <= set(os.environ)
