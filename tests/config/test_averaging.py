"""Averages, mixtures, early stop and layer decay in the config: what is refused, and what stands for "as before"."""

from __future__ import annotations

import pytest

from mmpretrain.config.averaging import AveragingConfig, Weights
from mmpretrain.config.compose import ConfigError, compose

SCORE = "evaluation.best.score=retrieval/left->caption/recall@1"
BEST = [SCORE, "evaluation.every_steps=3"]


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        (["averaging.ema=1"], "averaging.ema is 1.0: a number from 0 to below 1"),
        (["averaging.release=ema"], "averaging.release is ema, and no average is kept"),
        (["averaging.warmup=false"], "averaging.warmup=false has no effect"),
        (["averaging.interpolate=[0,1]"], "averaging.interpolate chooses by evaluation.best.score, which is null"),
        ([*BEST, "averaging.interpolate=[0,1.5]"], "averaging.interpolate has 1.5: shares lie between 0"),
        ([*BEST, "averaging.interpolate=[0,0]"], "averaging.interpolate has 0.0 twice"),
        (
            ["averaging.ema=0.9", "engine.deepspeed.zero_optimization.offload_param.device=cpu"],
            "zero_optimization.offload_param moves weights to where averaging cannot reach them",
        ),
        (["evaluation.best.patience=2"], "evaluation.best.patience counts measurements of evaluation.best.score"),
        ([*BEST, "evaluation.best.patience=2"], "evaluation.best.patience ends a run after its best step"),
        ([*BEST, "evaluation.release=best", "evaluation.best.patience=0"], "it must be at least 1, or null"),
        (["optim.layer_decay=0"], "optim.layer_decay is 0.0: it must be above 0 and up to 1"),
    ],
)
def test_what_cannot_be_is_refused(tokens: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["experiment=digits", *tokens])
    assert problem in str(caught.value)


def test_the_average_is_released_where_there_is_one() -> None:
    assert AveragingConfig().released is Weights.raw
    assert AveragingConfig(ema=0.9).released is Weights.ema
    assert AveragingConfig(ema=0.9, release=Weights.raw).released is Weights.raw


def test_everything_together_is_possible() -> None:
    tokens = [*BEST, "evaluation.release=best", "evaluation.best.patience=2", "averaging.ema=0.99"]
    compose(["experiment=digits", *tokens, "averaging.interpolate=[0,0.5,1]", "optim.layer_decay=0.7"])
