"""Learning rates of their own are in the records."""

from __future__ import annotations

from mmpretrain.config.compose import compose
from mmpretrain.training.rates import rates


def test_only_rates_that_differ_are_named() -> None:
    assert rates(compose(["experiment=digits"])) == {}
    tokens = [
        "model.encoders.left.lr_scale=0.1",
        "model.encoders.right.lr_scale=0.1",
        "model.encoders.right.freeze=true",
    ]
    assert rates(compose(["experiment=digits", "optim.lr=1e-3", "optim.heads_lr=1e-2", *tokens])) == {
        "lr/left": 0.1,
        "lr/heads": 10.0,
    }


def test_parts_of_the_model_are_named_by_their_factor_and_heads_by_that_of_their_own_rate() -> None:
    scales = ["optim.lr_scales.classifier=2.0", "optim.lr_scales.unimodal_left=0.5"]
    config = compose(["method=m3col", "experiment=digits", "optim.lr=1e-3", "optim.heads_lr=1e-2", *scales])
    assert rates(config) == {"lr/classifier": 2.0, "lr/unimodal_left": 5.0, "lr/heads": 10.0}
