"""``mmpretrain embed`` and ``mmpretrain pair`` as users start them: from two releases to training data of cmcr."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mmpretrain.cli import app
from mmpretrain.data.index import load_index
from mmpretrain.embedding import ranks
from mmpretrain.embedding.jobs import EmbeddingJob, PairJob
from mmpretrain.embedding.place import Place, place_of_step
from mmpretrain.embedding.vectors import Vectors
from tests.embedding.spaces import write_data
from tests.embedding.test_pairing import COLUMNS


def start(*arguments: object) -> Result:
    """The command's end."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def embedded(spaces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small data set in two spaces."""
    folder = tmp_path_factory.mktemp("embedded")
    for name, release in (("own", spaces / "own" / "release"), ("clip", spaces / "clip")):
        done = start("embed", release, "--data", spaces / "data", "--out", folder / name, "--samples-per-shard", 10)
        assert done.exit_code == 0, done.output
    return folder


def pair(embedded: Path, out: Path, *more: str | Path) -> Result:
    """Captions as what both know; vectors and pictures as memories."""
    corpora = ["--first", embedded / "own", "--second", embedded / "clip", "--shared", "caption"]
    memories = ["--first-memory", f"{embedded / 'own'}:genes", "--second-memory", f"{embedded / 'clip'}:picture"]
    return start("pair", *corpora, *memories, "--out", out, "--samples-per-shard", 8, *more)


def test_embed_says_what_it_made(spaces: Path, tmp_path: Path) -> None:
    arguments = (
        "embed",
        spaces / "clip",
        "--data",
        spaces / "data",
        "--modalities",
        "caption",
        "--out",
        tmp_path / "out",
    )
    first = start(*arguments)
    assert first.exit_code == 0
    assert f"{tmp_path / 'out' / 'train'}: 23 samples in 1 shards: caption [12]" in first.output
    again = json.loads(start(*arguments, "--json").stdout)
    assert again["complete"] and again["widths"] == {"caption": 12} and again["samples"] == 23
    assert again["fingerprint"] == load_index(tmp_path / "out" / "train").fingerprint


def test_errors_are_sentences(spaces: Path, tmp_path: Path) -> None:
    arguments = ("embed", spaces / "clip", "--data", spaces / "data", "--out", tmp_path / "out")
    unknown = start(*arguments, "--modalities", "smell", "--json")
    assert unknown.exit_code == 1 and "unknown modality 'smell'" in json.loads(unknown.stdout)["errors"][0]
    several = start(*arguments, "--batch", "0", "--pool", "best")
    assert several.exit_code == 1 and "--batch is 0" in several.output and "--pool is 'best'" in several.output
    absent = start("embed", spaces / "clip", "--data", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert absent.exit_code == 1 and "index.json is missing" in absent.output
    assert not (tmp_path / "out").exists()


def test_pairs_of_two_real_spaces(embedded: Path, tmp_path: Path) -> None:
    done = pair(embedded, tmp_path / "one")
    assert done.exit_code == 0, done.output
    assert "23 samples in 3 shards" in done.output and "items are the nearest of some query" in done.output
    widths = json.loads(pair(embedded, tmp_path / "one", "--json").stdout)["widths"]
    assert widths == {"first_shared": 8, "first_partner": 8, "second_shared": 12, "second_partner": 12}


@pytest.mark.processes
def test_two_local_processes_meet_and_share_the_memories(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[Place, subprocess.Popen[str]]] = []

    def noted(job: EmbeddingJob, place: Place) -> subprocess.Popen[str]:
        started.append((place, start_rank(job, place)))
        return started[-1][1]

    start_rank = ranks._start
    monkeypatch.setattr(ranks, "_start", noted)
    for name, more in (("one", ()), ("two", ("--ranks", "2"))):
        done = pair(embedded, tmp_path / name, *more)
        assert done.exit_code == 0, done.output
    assert [(place.rank, place.size, child.returncode) for place, child in started] == [(0, 2, 0), (1, 2, 0)]
    assert len({child.pid for _, child in started} | {os.getpid()}) == 3
    for column in COLUMNS:
        one, two = (Vectors(str(tmp_path / name), "train", column).read(range(23)) for name in ("one", "two"))
        assert (one - two).abs().max() < 1e-6


def test_other_keys_end_the_command_with_the_first_of_them(embedded: Path, spaces: Path, tmp_path: Path) -> None:
    """The test split has other keys than the train split."""
    done = start("embed", spaces / "clip", "--data", spaces / "data", "--split", "test", "--out", tmp_path / "clip")
    assert done.exit_code == 0
    (tmp_path / "clip" / "test").rename(tmp_path / "clip" / "train")
    corpora = ["--first", embedded / "own", "--second", tmp_path / "clip", "--shared", "caption"]
    memories = ["--first-memory", f"{embedded / 'own'}:genes", "--second-memory", f"{embedded / 'clip'}:picture"]
    failed = start("pair", *corpora, *memories, "--out", tmp_path / "pairs")
    assert failed.exit_code == 1 and "has the key 's0000', and" in failed.output


def test_other_data_with_the_same_keys_is_paired_when_asked_for(spaces: Path, embedded: Path, tmp_path: Path) -> None:
    """Samples are numbered; the vectors beside the captions are other ones, and the captions could be."""
    data, clip = write_data(tmp_path / "data", width=6), tmp_path / "clip"
    assert start("embed", spaces / "clip", "--data", data, "--modalities", "caption", "--out", clip).exit_code == 0
    corpora = ["--first", embedded / "own", "--second", clip, "--shared", "caption"]
    memories = ["--first-memory", f"{embedded / 'own'}:genes", "--second-memory", f"{embedded / 'clip'}:picture"]
    failed = start("pair", *corpora, *memories, "--out", tmp_path / "pairs")
    assert failed.exit_code == 1 and "was embedded from small (" in failed.output
    assert "add --allow-other-data" in failed.output and not (tmp_path / "pairs").exists()
    done = start("pair", *corpora, *memories, "--out", tmp_path / "pairs", "--allow-other-data")
    assert done.exit_code == 0 and "23 samples in 1 shards" in done.output


def test_outside_of_slurm_there_is_one_process() -> None:
    assert place_of_step(PairJob(out="out")) is None
