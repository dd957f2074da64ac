"""Encoders with batch norm: trained on the statistics of all ranks, refused where a step cuts or repeats its batch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from mmpretrain.config.compose import save_config
from mmpretrain.config.engine import EngineConfig, Precision
from mmpretrain.config.model import EncoderConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.engine.accumulate import refuse_batch_norms
from mmpretrain.training import preflight
from tests.engine import runs

MICRO_BATCHES = EngineConfig(micro_batches=2)
FLOAT16 = EngineConfig(precision=Precision.float16)


def with_batch_norm(*tokens: str, freeze: bool = False) -> Config:
    """The tiny config with a small ResNet for one of the images."""
    config = runs.tiny_config("method=clip", *tokens)
    settings = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic", "num_channels": 1}
    config.model.encoders["left"] = EncoderConfig(architecture="resnet", config=settings, pool=Pool.mean, freeze=freeze)
    return config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (MICRO_BATCHES, r"in 1 cannot train with engine\.micro_batches=2, .*: set engine\.micro_batches=1, freeze"),
        (FLOAT16, r"in 1 cannot train with engine\.precision=float16, .*: set engine\.precision=bfloat16, freeze"),
        (
            EngineConfig(micro_batches=2, precision=Precision.float16),
            r"=2, .*; nor with engine\.precision=.*: set engine\.micro_batches=1 and engine\.precision=bfloat16, fre",
        ),
    ],
)
def test_batch_norms_that_train_are_refused_by_name(settings: EngineConfig, message: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with pytest.raises(ValueError, match=message):
        refuse_batch_norms(model, settings)
    refuse_batch_norms(model, EngineConfig(precision=Precision.bfloat16))
    refuse_batch_norms(model.eval(), settings)


@pytest.mark.parametrize("token", ["engine.micro_batches=2", "engine.precision=float16"])
@pytest.mark.parametrize("freeze", [False, True])
def test_preflight_refuses_them_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str, freeze: bool
) -> None:
    save_config(with_batch_norm(token, freeze=freeze), tmp_path / "config.yaml")
    monkeypatch.setattr(sys, "argv", ["preflight", str(tmp_path / "config.yaml"), "2"])
    preflight.main()
    problems = json.loads(capsys.readouterr().out.splitlines()[-1])["problems"]
    assert len(problems) == (0 if freeze else 1)
    assert all(p.startswith("batch norm in encoders.left.") and f"cannot train with {token}" in p for p in problems)


@pytest.mark.parametrize("token", ["engine.micro_batches=2", "engine.precision=float16"])
def test_the_engine_refuses_them(ranks: Callable, token: str) -> None:
    assert f"cannot train with {token}" in ranks(1, runs.refusal, runs.outcome, with_batch_norm(token), 1)[0]


def test_batch_norm_trains_on_the_statistics_of_all_ranks(ranks: Callable) -> None:
    # Steps in proportion to the gradients: Adam as it is would hide any constant factor.
    config = with_batch_norm("engine=zero1", "optim.eps=1", "optim.lr=0.1", "optim.clip=null")
    ours, right = ranks(2, runs.outcome, config, 4)[0], ranks(1, runs.outcome, config, 4)[0]
    assert sum(name.endswith("running_var") for name in right.weights) > 1
    runs.check_equal(ours, right)
