"""MUCMM (reconstruction) from the launcher to a release: canonical codes on frozen encoders, over two ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpretrain.losses.canonical import canonical_of_rows
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.run_folder import RunFolder, read_lines
from shards.latents import SEED, TEST_SHARE, build_latents, draw_latents
from tests.small_runs import ROOT, launch

pytestmark = pytest.mark.slow

COUNT = 500
TOKENS = [
    "experiment=linear",
    *(f"data.modalities.{name}.size=[100]" for name in ("first", "second")),
    "data.global_batch=64",
    "train.samples=320",
    "model.components.common=4",
    "model.components.individual=5",
    "model.components.individual_of.second=6",
    "method.variance=1.0",
    "evaluation.batch=48",
    "engine=zero3",
]


def training_sides() -> dict[str, torch.Tensor]:
    """Both sides of the samples that are not held out."""
    held_out = np.random.default_rng([SEED, 1]).permutation(COUNT) < round(TEST_SHARE * COUNT)
    _, first, second = draw_latents(COUNT)
    return {"first": torch.from_numpy(first[~held_out]), "second": torch.from_numpy(second[~held_out])}


@pytest.mark.processes
def test_a_release_has_canonical_codes_of_the_training_split(tmp_path: Path) -> None:
    build_latents(tmp_path / "latents", samples=COUNT)
    command = [sys.executable, str(ROOT / "launcher" / "submit.py"), "--cluster=local", "--gpus-per-node=2", *TOKENS]
    done = launch([*command, f"data.path={tmp_path / 'latents'}", f"run.root={tmp_path}", "run.name=run"], 600)
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder(tmp_path / "run")
    model, sides = MMPretrainModel.from_pretrained(run.release).eval(), training_sides()
    with torch.no_grad():
        output = model(**{name: {"values": rows} for name, rows in sides.items()})
    widths = {"first": 5, "second": 6}
    for name, width in widths.items():
        for codes, size in ((output.shared_embeds[name], 4), (output.unique_embeds[name], width)):
            torch.testing.assert_close(codes.mean(0), torch.zeros(size), atol=1e-4, rtol=0)
            torch.testing.assert_close(torch.cov(codes.T), torch.eye(size), atol=1e-3, rtol=0)
    rho = canonical_of_rows(output.shared_embeds["first"], output.shared_embeds["second"], ridge=0.0).rho
    torch.testing.assert_close(model.components["first"].rho.double(), rho, atol=1e-4, rtol=0)
    # A tenth of the features' dimensions is shared exactly: the start already has them.
    first = next(line for line in read_lines(run.metrics) if "loss" in line)
    assert first["correlation/first-second"] > 0.9 and rho.min() > 0.9
