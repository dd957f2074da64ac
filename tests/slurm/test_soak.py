"""A run of several hundred steps on a real Slurm that meets with one fault after another."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from mmpretrain.data.index import load_index
from mmpretrain.run_folder import RunFolder, read_lines
from tests.launcher.toy import ROOT
from tests.slurm.conftest import started
from tests.slurm.soak import FAULTS, Soak, run_out_of_time, small_disk
from tests.slurm.test_training import on_slurm
from tests.small_runs import command, launch, weights

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.timeout(5400)]

BATCH, ROUNDS, SEED = 96, 3, 18  # a batch that 1, 2, 3 and 4 ranks can share; 3 x 8 faults
SIZES = ((2, 1), (3, 3), (1, 2), (2, 0))  # nodes, ZeRO stage


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder on a small disk, and a cluster of three nodes that sees it."""
    with small_disk(tmp_path / "runs", size_mb=300) as runs:
        cluster = started(NODES="3", CPUS="4")
        environment = next(cluster)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        yield runs, environment["CLUSTER_DIR"]
        next(cluster, None)


def tokens(steps: int) -> list[str]:
    """What both runs of a comparison have in common."""
    # Groups of samples that mix: whatever the number of ranks, a rank has whole ones.
    often = [
        "method.mix_group=8",
        "checkpoint.every_steps=5",
        "engine.threads=1",
        "engine.hang_s=30",
        "evaluation.every_steps=50",
    ]
    return [f"data.global_batch={BATCH}", f"train.samples={steps * BATCH}", "data.record_keys=true", *often]


def undisturbed(digits: Path, folder: Path, steps: int) -> RunFolder:
    """The same run, to which nothing happens."""
    done = launch([*command(digits, folder, "calm", *tokens(steps)), "--gpus-per-node=2"], timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return RunFolder(folder / "calm")


def every_key_once_per_epoch(run: RunFolder, digits: Path) -> None:
    """What was learned from, over all attempts."""
    size = len(load_index(digits / "train"))
    lines = list(read_lines(run.consumed))
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    keys = [key for line in lines for key in line["keys"]]
    for start in range(0, len(keys), size):
        assert max(Counter(keys[start : start + size]).values()) == 1


def test_faults_change_nothing(nodes: tuple[Path, str], digits: Path, tmp_path: Path) -> None:
    """At least 20 faults of every kind in random order: the weights at the end are those of a calm run to the bit."""
    runs, folder = nodes
    draw = Random(SEED)
    faults = [fault for _ in range(ROUNDS) for fault in draw.sample(FAULTS, len(FAULTS))]
    steps = 24 * len(faults)  # where steps are fast, the wait for a new controller alone is 60 of them
    calm = undisturbed(digits, tmp_path / "calm", steps)
    soak = Soak(on_slurm(command(digits, runs, "soak", *tokens(steps))), RunFolder(runs / "soak"), folder)
    made: Counter[str] = Counter()
    for fault in faults:
        if not soak.advance(draw.randint(6, 14)):
            break
        print(f"step {soak.step()}: {fault.__name__}", flush=True)
        soak.log.append(fault.__name__)
        made[fault.__name__] += 1
        fault(soak)
    else:
        soak.finish()
    print(f"exit codes: {soak.codes}", flush=True)
    assert made.total() >= 20 and min(made[fault.__name__] for fault in FAULTS) >= 2, made
    assert weights(soak.run) == weights(calm)
    assert list(read_lines(soak.run.consumed)) == list(read_lines(calm.consumed))
    every_key_once_per_epoch(soak.run, digits)


def test_other_sizes_change_nothing_but_roundings(nodes: tuple[Path, str], digits: Path, tmp_path: Path) -> None:
    """Stopped and continued on other nodes and at other stages of ZeRO: the same samples, the same losses."""
    runs, folder = nodes
    steps = 20 * len(SIZES)
    calm = undisturbed(digits, tmp_path / "calm", steps)
    run = RunFolder(runs / "sized")
    for number, (count, stage) in enumerate(SIZES, start=1):
        words = on_slurm(command(digits, runs, "sized", *tokens(steps), f"engine.zero={stage}"))
        words[words.index("--nodes=2")] = f"--nodes={count}"
        soak = Soak(words, run, folder)
        if number == len(SIZES):
            soak.finish()
            break
        assert soak.advance(12)
        run_out_of_time(soak)  # goes on at the same size
        assert soak.advance(4)
        cancel(soak)
    losses = [[line["loss"] for line in read_lines(r.metrics) if "loss" in line] for r in (calm, run)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    assert list(read_lines(run.consumed)) == list(read_lines(calm.consumed))
    every_key_once_per_epoch(run, digits)


def cancel(soak: Soak) -> None:
    """End the job, which saves before it ends."""
    subprocess.run(["scancel", soak.job_id()], check=True)
    assert soak.end() == 75
