"""``data.modalities.*.train`` in real steps of the engine: any number of ranks trains on the same augmented inputs."""

from __future__ import annotations

from collections.abc import Callable

from tests.engine import runs

STEPS = 3
TOKENS = ["method=clip", "engine=zero0", "optim.eps=1", "optim.lr=0.1", "optim.clip=null"]
TRAIN = [
    "data.modalities.left.train={crop: [0.3, 1], flip: 0.5, jitter: 0.8, blur: 0.5}",
    "data.modalities.caption.train={mask: 0.5}",
]


def test_training_inputs_do_not_depend_on_the_ranks(ranks: Callable) -> None:
    config = runs.tiny_config(*TOKENS, *TRAIN)
    alone = ranks(1, runs.outcome, config, STEPS)[0]
    runs.check_equal(ranks(2, runs.outcome, config, STEPS)[0], alone)
    plain = ranks(1, runs.outcome, runs.tiny_config(*TOKENS), STEPS)[0]
    assert all(abs(a - b) > 1e-3 for a, b in zip(alone.losses, plain.losses, strict=True))
