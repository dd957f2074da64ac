"""`experiment=clip_clap` from end to end: a CLIP and a CLAP of transformers, drawn pictures, tones and captions."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import ClapFeatureExtractor
from typer.testing import CliRunner

from mmpretrain.cli import app
from mmpretrain.release_folder import verify_release
from mmpretrain.run_folder import RunFolder, read_lines
from tests.data.small_dataset import png
from tests.data.tones import RATE, encoded, tone, write_tones
from tests.embedding.spaces import write_clap, write_clip
from tests.shards.drawn import files
from tests.small_runs import ROOT, launch

pytestmark = [pytest.mark.slow, pytest.mark.processes]

WIDTH, STEPS, BATCH = 12, 5, 16
MODELS = {"first": "clip", "second": "clap"}
MEMORIES = {"first": "picture", "second": "sound"}


def command(*arguments: str | Path) -> str:
    """Of ``mmpretrain``; what it prints."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def models(root: Path) -> None:
    """clip and clap, as `transformers` writes them."""
    write_clip(root / "clip")
    write_clap(root / "clap")
    extractor = ClapFeatureExtractor(feature_size=16, sampling_rate=RATE, frequency_max=8000, max_length_s=1)
    extractor.truncation = "rand_trunc"
    extractor.save_pretrained(root / "clap")


def tokens(root: Path) -> list[str]:
    """What makes the experiment small."""
    sizes = [f"data.modalities.{side}_{role}.size=[{WIDTH}]" for side in MODELS for role in ("shared", "partner")]
    spaces = [f"method.{side}={root / name}" for side, name in MODELS.items()]
    few = [f"data.global_batch={BATCH}", f"train.samples={STEPS * BATCH}", "checkpoint.every_steps=5"]
    return ["experiment=clip_clap", f"data.path={root / 'pairs'}", *spaces, *sizes, *few]


def test_texts_connect_pictures_and_sounds_and_both_find_one_another(tmp_path: Path) -> None:
    models(tmp_path)
    write_tones(tmp_path / "data", 48)
    for side, name in MODELS.items():
        names = f"caption,{MEMORIES[side]}"
        embedded = tmp_path / f"in-{name}"
        command("embed", tmp_path / name, "--data", tmp_path / "data", "--modalities", names, "--out", embedded)
    corpora = [part for side, name in MODELS.items() for part in (f"--{side}", tmp_path / f"in-{name}")]
    memories = [f"--{side}-memory={tmp_path}/in-{name}:{MEMORIES[side]}" for side, name in MODELS.items()]
    command("pair", *corpora, "--shared", "caption", *memories, "--out", tmp_path / "pairs")
    script = [sys.executable, str(ROOT / "launcher" / "submit.py"), "--cluster=local", *tokens(tmp_path)]
    done = launch([*script, f"run.root={tmp_path}", "run.name=connected"])
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder(tmp_path / "connected")
    losses = [line["loss"] for line in read_lines(run.metrics) if "loss" in line]
    assert len(losses) == STEPS and all(np.isfinite(losses)) and verify_release(run.release) == []
    seen = {f"frames/{n}.png": png(40 * n, (8, 8)) for n in range(6)}
    heard = {f"audio/{n}.wav": encoded(tone(n)) for n in range(6)}
    data = tmp_path / "flickr"
    files(tmp_path / "folder", seen | heard)
    command("shards", "build", "audio-visual", "flickr-soundnet", tmp_path / "folder", data, "--split", "test=0.9")
    told = command("evaluate", run.release, "--data", data, "--metric", "retrieval", "--json")
    scores = json.dumps(json.loads(told))
    assert "image->sound/recall@1" in scores and "sound->image/recall@1" in scores
