"""Pictures, sounds and captions in one run: learning, any number of ranks, ZeRO, exact resume, and the release."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmpretrain.config.compose import save_config
from mmpretrain.config.data import AugmentConfig
from mmpretrain.config.evaluation import Metric
from mmpretrain.config.model import EncoderConfig
from mmpretrain.engine.engine import mean_over_ranks
from mmpretrain.run_folder import RunFolder
from mmpretrain.summary.grid_file import GRID_FILE
from mmpretrain.training.session import Session
from tests.assembly.test_sounds import NEW
from tests.data.tones import tone, tones_config, write_tones
from tests.engine import runs
from tests.models.small import fresh_interpreter
from tests.rank_pool import Ranks

STEPS, HALF = 16, 6
OPEN = """
import json
import numpy as np
import torch
from transformers import AutoModel, AutoProcessor
model, info = AutoModel.from_pretrained("release", trust_remote_code=True, output_loading_info=True)
assert not any(info.values()), info
processor = AutoProcessor.from_pretrained("release", trust_remote_code=True)
wave = np.load("wave.npy")
with torch.no_grad():
    bare = model(**processor(sound=[wave, wave[:2000]], sampling_rate=16000)).embeds["sound"]
    named = model(**processor(sound={"array": wave, "sampling_rate": 16000})).embeds["sound"]
    slow = model(**processor(sound=np.load("slow.npy"), sampling_rate=8000)).embeds["sound"]
assert torch.allclose(bare[:1], named, atol=1e-5)
print(json.dumps([named[0].tolist(), slow[0].tolist()]))
"""


def folder_of(root: Path, zero: int, name: str, sound: EncoderConfig | None = None) -> Path:
    """A run folder with its config; the data lies in ``root``."""
    config = tones_config(root, sound=sound, load_seconds=0.4)
    config.data.modalities["sound"].train = AugmentConfig(crop=[0.5, 1.0], gain=0.5, noise=0.5)
    config.engine.zero, config.optim.lr, config.train.samples = zero, 3e-3, 8 * STEPS
    config.run.name, config.evaluation.final = name, [Metric.retrieval]
    folder = root / name
    folder.mkdir()
    save_config(config, folder / "config.yaml")
    return folder


def train(folder: str, stop: int = STEPS) -> tuple[list[float], str]:
    """On this rank, from where the run stands up to step ``stop``: its losses, and a hash of the weights."""
    runs.forget_engines()
    session = Session(RunFolder(Path(folder)))
    done, losses = session.resume(), []
    for batch in session.batches(done):
        if done == stop:
            break
        report = session.engine.step(batch, session.step(done))
        done += 1
        session.record(done, batch, report, stop=False)
        losses.append(mean_over_ranks({"loss": report.losses["loss"]}, session.world)["loss"])
    session.save(done, now=True)
    digest = runs.weights_digest(session.engine)
    if done == STEPS:
        session.finish(done)
    return losses, digest


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shards, and runs beside them."""
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder)
    return folder


@pytest.fixture(scope="module")
def alone(ranks: Ranks, tones: Path) -> tuple[Path, list[float], str]:
    """The run of one process, all modalities, under ZeRO 1: its folder, losses and weights."""
    folder = folder_of(tones, 1, "alone")
    losses, digest = ranks(1, train, str(folder))[0]
    return folder, losses, digest


def test_three_modalities_learn(alone: tuple[Path, list[float], str]) -> None:
    folder, losses, _ = alone
    assert (folder / GRID_FILE).is_file()  # sounds in it as spectrograms
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])


@pytest.mark.parametrize("steps", [HALF, pytest.param(STEPS, marks=pytest.mark.slow)])
def test_two_ranks_train_alike(ranks: Ranks, tones: Path, alone: tuple[Path, list[float], str], steps: int) -> None:
    losses, _ = ranks(2, train, str(folder_of(tones, 1, f"two-{steps}")), steps)[0]
    assert max(abs(a - b) for a, b in zip(losses, alone[1][:steps], strict=True)) <= 1e-4


def test_resume_is_bit_equal(ranks: Ranks, tones: Path, alone: tuple[Path, list[float], str]) -> None:
    folder = str(folder_of(tones, 1, "halves"))
    first, _ = ranks(1, train, folder, HALF)[0]
    second, digest = ranks(1, train, folder)[0]
    assert first + second == alone[1] and digest == alone[2]


@pytest.mark.slow
@pytest.mark.parametrize("zero", [0, 2, 3])
@pytest.mark.parametrize("size", [1, 2])
def test_every_stage_trains_alike_and_resumes(
    ranks: Ranks, tones: Path, alone: tuple[Path, list[float], str], zero: int, size: int
) -> None:
    straight = ranks(size, train, str(folder_of(tones, zero, f"straight{zero}{size}")))[0]
    assert max(abs(a - b) for a, b in zip(straight[0], alone[1], strict=True)) <= 1e-4
    folder = str(folder_of(tones, zero, f"halves{zero}{size}"))
    first, second = ranks(size, train, folder, HALF)[0], ranks(size, train, folder)[0]
    assert first[0] + second[0] == straight[0] and second[1] == straight[1]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["clap_audio_model", "whisper", "wav2vec2", "hubert"])
def test_every_architecture_trains_alike_under_zero_3(ranks: Ranks, tones: Path, architecture: str) -> None:
    encoder = EncoderConfig(architecture, dict(NEW[architecture][0]))
    one = ranks(1, train, str(folder_of(tones, 1, f"{architecture}-1", encoder)))[0][0]
    two = ranks(2, train, str(folder_of(tones, 3, f"{architecture}-3", encoder)))[0][0]
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) <= 1e-4


@pytest.mark.processes
def test_the_release_takes_arrays_without_the_package(alone: tuple[Path, list[float], str], tmp_path: Path) -> None:
    release = RunFolder(alone[0]).release
    (tmp_path / "release").symlink_to(release)
    assert "feature_extractor" in json.loads((release / "processor_config.json").read_text(encoding="utf-8"))
    np.save(tmp_path / "wave.npy", tone(1))
    np.save(tmp_path / "slow.npy", tone(1, 8000))
    there, slow = json.loads(fresh_interpreter(OPEN, tmp_path, ours=False).splitlines()[-1])
    here = json.loads(fresh_interpreter(OPEN, tmp_path, ours=True).splitlines()[-1])
    assert [there, slow] == here
    assert np.dot(there, slow) > 0.99 * np.linalg.norm(there) * np.linalg.norm(slow)
