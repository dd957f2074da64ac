"""The whole way on local processes: shards -> launcher -> ZeRO -> SIGKILL and resume -> release -> AutoModel."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from mmpretrain.comparison.compare import compare
from mmpretrain.comparison.job import EvaluateJob
from mmpretrain.config.compose import load_config
from mmpretrain.data.index import load_index
from mmpretrain.distributed.world import World
from mmpretrain.release_folder import release_files, verify_release
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.training.export import export_run
from tests.small_runs import (
    OTHERS,
    STEPS,
    TOKEN,
    command,
    command_of,
    keys_by_step,
    kill_a_rank,
    launch,
    open_release,
    weights,
)

pytestmark = pytest.mark.processes
DRAWN = ["tracking.pictures=true"]


@pytest.fixture(scope="module")
def uninterrupted(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that nobody disturbed."""
    runs = tmp_path_factory.mktemp("runs")
    done = launch(command(digits, runs, "straight", *DRAWN))
    assert done.returncode == 0, done.stdout + done.stderr
    return RunFolder(runs / "straight")


def test_run_folder_is_complete(uninterrupted: RunFolder) -> None:
    run = uninterrupted
    assert run.status()["state"] == "completed"
    assert run.status()["step"] == STEPS
    lines = [line for line in read_lines(run.metrics) if "loss" in line]
    assert len(lines) == STEPS
    wanted = {"step", "samples", "epoch", "loss", "lr", "grad_norm", "samples_per_s", "data_wait_s"}
    assert wanted <= set(lines[-1])
    assert "loss/m3co" in lines[0] and "loss/soft" in lines[-1]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert (run.path / "summary.png").stat().st_size > 10_000 and (run.path / "embeddings_map.json").exists()
    scores = json.loads(run.evaluation.read_text())
    assert scores["linear_probe/left/accuracy"] > scores["linear_probe/left/accuracy/chance"]
    assert not (run.checkpoints / "step-00000005").exists()  # keep_last=2
    assert (run.checkpoints / "latest").read_text() == f"step-{STEPS:08d}"


def test_the_release_measured_later_has_the_scores_of_the_run(uninterrupted: RunFolder, digits: Path) -> None:
    written = json.loads(uninterrupted.evaluation.read_text())
    config = load_config(uninterrupted.config).evaluation
    job = EvaluateJob(
        {"straight": str(uninterrupted.release)},
        data=str(digits),
        out="nowhere",
        metrics=list(config.final),
        limit=config.max_samples,
    )
    found = compare(job, World.single())["models"][0]["results"]
    assert written and {key: found[key] for key in written} == pytest.approx(written, abs=1e-6)


def test_each_key_exactly_once_per_epoch(uninterrupted: RunFolder, digits: Path) -> None:
    index = load_index(digits / "train")
    keys = [key for step in keys_by_step(uninterrupted) for key in step]
    size = len(index)
    assert len(keys) > 2 * size
    every_key = {index.sample(ordinal).key for ordinal in range(size)}
    for epoch in range(len(keys) // size):
        assert set(keys[epoch * size : (epoch + 1) * size]) == every_key
    assert max(Counter(keys[len(keys) // size * size :]).values()) == 1


def test_release_opens_without_the_package(uninterrupted: RunFolder, tmp_path: Path) -> None:
    opened = open_release(uninterrupted.release, tmp_path)
    assert opened.returncode == 0, opened.stderr
    assert "MMPretrainModel" in opened.stdout


def test_exported_again_it_is_the_same_release(uninterrupted: RunFolder, tmp_path: Path) -> None:
    made = export_run(uninterrupted, tmp_path / "again")
    left_out = {"SHA256SUMS", *(str(path.relative_to(made.folder)) for path in made.folder.rglob("tokenizer*.json"))}
    for name, path in release_files(uninterrupted.release):
        if name not in left_out:  # a tokenizer remembers how it was last used
            assert (made.folder / name).read_bytes() == path.read_bytes(), name
    assert made.scores and verify_release(made.folder) == []


def test_a_token_is_nowhere_in_the_run(uninterrupted: RunFolder) -> None:
    files = [path for path in uninterrupted.path.rglob("*") if path.is_file()]
    assert len(files) > 30 and not [path for path in files if TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("after_step", "which", "resolved"), [(7, -1, True), pytest.param(13, 0, False, marks=pytest.mark.slow)]
)
def test_sigkill_then_the_same_command(
    digits: Path, tmp_path: Path, uninterrupted: RunFolder, after_step: int, which: int, resolved: bool
) -> None:
    """resolved: whether the command names the config that another run has written, instead of the tokens."""
    run = RunFolder(tmp_path / "killed")
    arguments = command(digits, tmp_path, "killed")
    if resolved:
        arguments = [*arguments[:3], f"--config={uninterrupted.config}", f"run.root={tmp_path}", "run.name=killed"]
    with subprocess.Popen(arguments, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        kill_a_rank(run, after_step, lambda ranks: sorted(ranks, key=lambda p: p.pid)[which])
        output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Traceback" not in output
    assert run.status()["state"] == "failed" and run.status()["cause"]
    again = launch(arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert weights(run) == weights(uninterrupted)
    assert keys_by_step(run) == keys_by_step(uninterrupted)
    straight = [line["loss"] for line in read_lines(uninterrupted.metrics) if "loss" in line]
    assert [line["loss"] for line in read_lines(run.metrics) if "loss" in line] == straight


def test_complete_run_again_changes_nothing(digits: Path, uninterrupted: RunFolder) -> None:
    before = weights(uninterrupted)
    done = launch(command(digits, uninterrupted.path.parent, "straight", *DRAWN))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "complete" in done.stdout
    assert weights(uninterrupted) == before


def test_resume_with_another_config_is_refused(digits: Path, uninterrupted: RunFolder) -> None:
    done = launch(command(digits, uninterrupted.path.parent, "straight", *DRAWN, "optim.lr=0.5"))
    assert done.returncode != 0
    assert "optim.lr" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_killed_again_and_again(digits: Path, tmp_path: Path, uninterrupted: RunFolder) -> None:
    # A checkpoint after every step: many of the kills hit a save, a rename or the retention.
    run = RunFolder(tmp_path / "chaos")
    arguments = command(digits, tmp_path, "chaos", "checkpoint.every_steps=1")
    random = Random(0)
    for target in (3, 8, 12, 17, 22):
        with subprocess.Popen(arguments, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
            kill_a_rank(run, target, random.choice, delay=random.uniform(0, 0.3))
            process.wait(timeout=120)
        assert process.returncode != 0
    again = launch(arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert weights(run) == weights(uninterrupted)
    assert keys_by_step(run) == keys_by_step(uninterrupted)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", OTHERS)
def test_other_methods_survive_a_sigkill(digits: Path, tmp_path: Path, method: str) -> None:
    runs = {}
    for name in ("straight", "killed"):
        arguments, run = command_of(method, digits, tmp_path, name), RunFolder(tmp_path / name)
        if name == "killed":
            with subprocess.Popen(arguments, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
                kill_a_rank(run, 12, lambda ranks: ranks[0])
            assert process.returncode != 0
        done = launch(arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        losses = [line["loss"] for line in read_lines(run.metrics) if "loss" in line]
        runs[name] = (weights(run), keys_by_step(run), losses)
    assert runs["killed"] == runs["straight"]
    opened = open_release(RunFolder(tmp_path / "killed").release, tmp_path)
    assert opened.returncode == 0, opened.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_mixture_that_is_killed_goes_on_as_if_it_had_not_been(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "again")
    sources = {"scans": digits, "again": tmp_path / "again"}
    mixture = ["data.path=null", *(f"data.sources.{name}.path={path}" for name, path in sources.items())]
    mixture += ["data.sources.again.weight=0.3", "data.sources.scans.weight_from={1280: 0.1}", "data.workers=1"]
    runs = {}
    for name in ("straight", "killed"):
        arguments, run = command(digits, tmp_path, name, *mixture), RunFolder(tmp_path / name)
        for after_step in (4, 13) if name == "killed" else ():
            with subprocess.Popen(arguments, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
                kill_a_rank(run, after_step, lambda ranks: ranks[0])
            assert process.returncode != 0
        done = launch(arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        runs[name] = (weights(run), keys_by_step(run))
    assert runs["killed"] == runs["straight"]
    again = [sum(key.startswith("again/") for key in step) for step in runs["killed"][1]]
    assert set(again[:10]) == {29, 30} and set(again[10:]) == {96}
    refused = launch([*command(digits, tmp_path, "killed", *mixture), "data.sources.again.weight=0.4"])
    assert refused.returncode != 0 and "data.sources.again.weight: 0.3 -> 0.4" in refused.stdout + refused.stderr
