"""A connection as a space of the next one, as users make it: embedded, paired, trained and released."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from mmpretrain.cli import app
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.model import ConnectedSpace
from mmpretrain.data.writing import RawSample, npy, write_split
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.release_folder import verify_release
from mmpretrain.run_folder import RunFolder, read_lines
from tests.embedding.spaces import raw_sample
from tests.methods.test_cmcr_release import WIDTHS, connection, ship, space
from tests.models.small import small_samples
from tests.small_runs import ROOT, launch

pytestmark = pytest.mark.slow

SAMPLES, STEPS, BATCH = 48, 5, 16
SPACES = {"first": "whole", "second": "last"}
PROTEINS = ModalityConfig(Kind.vector, [4])


def sample(number: int) -> RawSample:
    """One of all four modalities, but where it lacks its genes."""
    return {**raw_sample(number), "proteins.npy": npy(np.cos(np.arange(4) * 0.4 + number))}


def releases(folder: Path) -> None:
    """``whole``: (picture, caption) and (caption, genes), connected; ``last``: (genes, proteins)."""
    space(folder / "one", ("picture", "caption"), WIDTHS[ConnectedSpace.first], 0)
    space(folder / "two", ("caption", "genes"), WIDTHS[ConnectedSpace.second], 1)
    ship(connection(first=str(folder / "one"), second=str(folder / "two")), folder / "whole")
    space(folder / "last", ("genes",), WIDTHS[ConnectedSpace.second], 2, proteins=PROTEINS)


def command(*arguments: str | Path) -> None:
    """Of ``mmpretrain``."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output


def train(folder: Path) -> RunFolder:
    """A few steps on the pairs, by the launcher."""
    widths = {f"{s}_{role}": WIDTHS[s] for s in ConnectedSpace for role in ("shared", "partner")}
    tokens = [
        "experiment=connection",
        f"data.path={folder / 'pairs'}",
        *(f"data.modalities.{name}.size=[{width}]" for name, width in widths.items()),
        *(f"method.{side}={folder / release}" for side, release in SPACES.items()),
        f"data.global_batch={BATCH}",
        f"train.samples={STEPS * BATCH}",
        f"run.root={folder}",
        "run.name=chain",
    ]
    done = launch([sys.executable, str(ROOT / "launcher" / "submit.py"), "--cluster=local", *tokens])
    assert done.returncode == 0, done.stdout + done.stderr
    return RunFolder(folder / "chain")


@pytest.mark.processes
def test_a_connection_is_embedded_paired_and_connected(tmp_path: Path) -> None:
    releases(tmp_path)
    write_split(tmp_path / "data" / "train", map(sample, range(SAMPLES)), 16)
    for name in SPACES.values():
        command("embed", tmp_path / name, "--data", tmp_path / "data", "--out", tmp_path / f"in-{name}")
    corpora = [part for side, name in SPACES.items() for part in (f"--{side}", tmp_path / f"in-{name}")]
    memories = ["--first-memory", f"{tmp_path}/in-whole:picture", "--second-memory", f"{tmp_path}/in-last:proteins"]
    command("pair", *corpora, "--shared", "genes", *memories, "--out", tmp_path / "pairs")
    run = train(tmp_path)
    losses = [line["loss"] for line in read_lines(run.metrics) if "loss" in line]
    assert len(losses) == STEPS and all(np.isfinite(losses))
    assert verify_release(run.release) == []
    model = MMPretrainModel.from_pretrained(run.release).eval()
    before = MMPretrainModel.from_pretrained(tmp_path / "whole").state_dict()
    whole = model.state_dict()
    assert all(torch.equal(whole[f"connection.spaces.first.{key}"], tensor) for key, tensor in before.items())
    assert model.config.modalities == ["picture", "caption", "genes", "proteins"]
    samples = small_samples() | {"proteins": [[0.5] * 4, [1.0, 0.0, 0.0, -1.0]]}
    with torch.no_grad():
        found = model(**MMPretrainProcessor.from_pretrained(run.release)(**samples)).embeds
    assert {name: tuple(rows.shape) for name, rows in found.items()} == dict.fromkeys(samples, (2, 8))
    assert all(rows.isfinite().all() for rows in found.values())
