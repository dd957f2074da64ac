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
