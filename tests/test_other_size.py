"""The same command with other resources: real processes that are killed, and go on at another size."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mmpretrain.run_folder import RunFolder, read_lines
from tests.small_runs import command, kill_a_rank, launch

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(1200)]

STEPS, BATCH = 16, 24
LENGTH = [f"data.global_batch={BATCH}", f"train.samples={STEPS * BATCH}", "method.mix_group=2"]
LENGTH += ["checkpoint.every_steps=2", "evaluation.final=[knn]"]
# (ranks, ZeRO, the step after which a rank is killed)
SIZES = [(2, 1, 4), (3, 3, 8), (1, 2, 12), (4, 0, None)]


def losses(run: RunFolder) -> list[float]:
    """Of each step, in order."""
    lines = [line for line in read_lines(run.metrics) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line["loss"] for line in lines]


def test_a_run_goes_on_by_the_same_command_at_every_size(digits: Path, tmp_path: Path) -> None:
    run, straight = RunFolder(tmp_path / "sizes"), RunFolder(tmp_path / "straight")
    for ranks, zero, after_step in SIZES:
        size = [f"--gpus-per-node={ranks}", f"engine.zero={zero}"]
        arguments = [*command(digits, tmp_path, "sizes", *LENGTH), *size]
        if after_step is None:
            done = launch(arguments)
            assert done.returncode == 0, done.stdout + done.stderr
            assert "with 4 ranks at ZeRO 0 in float32: the samples of every step are the same" in done.stdout
            break
        with subprocess.Popen(arguments, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
            kill_a_rank(run, after_step, lambda found: found[0], patience_s=300)
            process.wait(timeout=120)
        assert process.returncode != 0
    done = launch(command(digits, tmp_path, "straight", *LENGTH))
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(run) == pytest.approx(losses(straight), abs=1e-4, rel=0)
    keys = [[line["keys"] for line in read_lines(one.consumed)] for one in (run, straight)]
    assert keys[0] == keys[1]
    sizes = [(size["ranks"], size["zero"]) for size in run.status()["sizes"]]
    assert sizes == [(ranks, zero) for ranks, zero, _ in SIZES]
    assert "- Ranks: 2 ranks (ZeRO 1, float32) until step " in (run.release / "README.md").read_text()
