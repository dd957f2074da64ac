"""Settings of the optimizer and the rate that stand against one another."""

from __future__ import annotations

import pytest

from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.engine import Schedule

BEST = ["evaluation.best.score=classification/accuracy", "evaluation.every_steps=3"]


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        (["optim.schedule=plateau"], "lowers the rate by evaluation.best.score, which is null"),
        ([*BEST, "optim.plateau_patience=3"], "optim.plateau_patience has no effect with optim.schedule=constant"),
        ([*BEST, "optim.schedule=plateau", "optim.plateau_patience=0"], "plateau_patience is 0: it must be at least 1"),
        (["optim.lr_scales.classifier=0.0"], "optim.lr_scales.classifier is 0.0: it must be above 0"),
        (["optim.lr_scales.encoders=2.0"], "optim.lr_scales.encoders: use model.encoders.NAME.lr_scale"),
        (["model.classifier_dropout=1.0"], "model.classifier_dropout is 1.0: it must be from 0 to below 1"),
        (["method=clip", "model.classifier_dropout=0.5"], "classifier_dropout has no effect with method=clip"),
        (["method.unimodal_weight=-1"], "method.unimodal_weight is -1"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_refused(tokens: list[str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        compose(["experiment=rosmap", *tokens])


def test_the_papers_schedules_and_rates_compose() -> None:
    tokens = [*BEST, "optim.schedule=plateau", "optim.lr_scales.unimodal_mrna=0.5", "model.classifier_dropout=0.5"]
    config = compose(["experiment=rosmap", *tokens, "method.unimodal_weight=0"])
    assert config.optim.schedule is Schedule.plateau and config.optim.lr_scales == {"unimodal_mrna": 0.5}


def test_the_omics_experiments_take_full_batches() -> None:
    for name, persons in (("rosmap", 245), ("brca", 612)):
        config = compose([f"experiment={name}"])
        assert config.data.global_batch == persons and config.total_steps == 500
