"""Who is which rank, and what is heard of one that fails."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mmpretrain.console import CommandError
from mmpretrain.embedding.jobs import EmbedJob, PairJob, VectorPrecision, job_from_json
from mmpretrain.embedding.place import Place, place_of_step
from mmpretrain.embedding.ranks import _start, _wait, run_job
from mmpretrain.embedding.worker import _check_gpus, work
from tests.models.small import ROOT

STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "2", "SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"}


def test_tasks_of_a_slurm_step() -> None:
    job = PairJob(out="/data/out")
    place = place_of_step(job, STEP)
    assert place is not None and place == replace(place, rank=3, size=4, local_rank=1)
    assert place.meeting is not None and place.meeting.startswith("/data/.out.meeting-7-2-0-")
    assert place == place_of_step(replace(job), STEP)
    # A restarted step meets elsewhere, and so does another command of the same step.
    others = [(job, {**STEP, "SLURM_RESTART_COUNT": "1"}), (replace(job, split="test"), STEP)]
    found = [place_of_step(*other) for other in others]
    assert len({other.meeting for other in (place, *found) if other is not None}) == 3
    batch_script = {key: value for key, value in STEP.items() if key != "SLURM_STEP_ID"}
    for alone in ({}, batch_script, {**STEP, "SLURM_STEP_NUM_TASKS": "1"}):
        assert place_of_step(job, alone) is None


def test_tokenizers_of_ranks_take_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is spelled as the library spells it."""
    given: list[dict[str, str]] = []
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    monkeypatch.setattr("subprocess.Popen", lambda command, env, **_: given.append(env))
    _start(PairJob(out="o"), Place(0, 2, 0, "nowhere"))
    assert given[0]["TOKENIZERS_PARALLELISM"] == "false"


def test_only_local_ranks_need_a_visible_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of an srun may see one GPU, its own, whatever its number on the machine."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    third, job = Place(3, 4, 3, "nowhere/meeting"), PairJob(out="o")
    monkeypatch.setattr("torch.cuda.set_device", lambda device: None)
    met: list[str] = []
    monkeypatch.setattr("torch.distributed.init_process_group", lambda backend, **_: met.append(backend))
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    monkeypatch.setattr("mmpretrain.embedding.worker.World.current", lambda device: device)
    monkeypatch.setattr("mmpretrain.embedding.pairing.pair_share", lambda job, world: met.append(str(world)))
    monkeypatch.setattr("pathlib.Path.mkdir", lambda *_, **__: None)
    work(job, third)
    assert met == ["nccl", "cuda:0"]
    with pytest.raises(CommandError, match="there are 1 GPUs here"):
        _check_gpus(job, third)
    _check_gpus(EmbedJob(out="o"), third)  # these do not talk


@pytest.mark.processes
def test_the_rank_that_knows_is_waited_for() -> None:
    """One that only lost a peer ends first, without a word."""
    says = 'import time; time.sleep(0.5); print(\'{"errors": ["the cause"]}\'); raise SystemExit(1)'
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for code in ("raise SystemExit(3)", says)
    ]
    assert _wait(children) == ["the cause"]
    for child in children:
        child.communicate()
    silent = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"], stdout=subprocess.PIPE, text=True)
    assert "rank 0 ended with exit code 3" in _wait([silent])[0]
    silent.communicate()


def test_counts_that_make_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    job = EmbedJob(out="/data/out")
    with pytest.raises(CommandError, match="--ranks is 0"):
        run_job(job, 0)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CommandError, match="srun has started 4 tasks already"):
        run_job(job, 2)


def test_jobs_travel_as_text_and_know_their_problems() -> None:
    embed = EmbedJob(out="o", release="r", data="d", dtype=VectorPrecision.float16, modalities="a, b=c")
    pair = PairJob(out="o", first="f", temperature=0.02)
    for job in (embed, pair):
        assert job_from_json(job.to_json()) == job and job.problems() == []
    assert embed.wanted == {"a": None, "b": "c"} and replace(embed, modalities=None).wanted is None
    wrong = replace(embed, batch=0, samples_per_shard=0, workers=-1, pool="best", modalities="a,=b", split="a/b")
    assert len(wrong.problems()) == 6
    assert len(replace(pair, temperature=0, out="s3://o", first="s3://f").problems()) == 3


@pytest.mark.processes
def test_a_rank_ends_with_its_parent() -> None:
    """Its standard input closes when the parent dies, however it dies."""
    code = "import time; from mmpretrain.embedding.ranks import end_with_parent; end_with_parent(); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE) as rank:
        assert rank.stdin is not None
        rank.stdin.close()
        assert rank.wait(30) == 1


@pytest.mark.processes
@pytest.mark.slow
def test_what_a_local_rank_says_is_heard(tmp_path: Path) -> None:
    job = EmbedJob(out=str(tmp_path / "out"), release=str(tmp_path), data=str(tmp_path))
    with pytest.raises(CommandError, match=r"no config\.json"):
        run_job(job, 2)
