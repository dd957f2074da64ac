"""Config of the engine: what is refused before anything starts."""

from __future__ import annotations

import pytest

from launcher.planning.checks import check_batches
from launcher.planning.resources import Cluster, Resources
from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.engine import EngineConfig


@pytest.mark.parametrize(
    ("count", "nearest"), [(1, None), (2, None), (8, None), (64, None), (6, 4), (50, 64), (1000, 64)]
)
def test_micro_batches_divide_the_local_batch(count: int, nearest: int | None) -> None:
    config = compose(["method=clip", "data.global_batch=128", f"engine.micro_batches={count}"])
    problems = check_batches(config, Resources(Cluster.local, 1, 2, 0))
    wrong = f"engine.micro_batches={count} does not divide the local batch of 64 samples: the nearest that does is"
    assert problems == ([] if nearest is None else [f"{wrong} {nearest}"])


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["engine.micro_batches=0"], "engine.micro_batches is 0: it must be at least 1"),
        (["engine.coalesce_reduction=true"], "engine.coalesce_reduction has no effect without micro-batches"),
        (["engine=zero0", "engine.micro_batches=2", "engine.coalesce_reduction=true"], "refuses it at stage 0"),
        (["engine.precision=fp16"], "float16"),
        (["engine.deepspeed.fp16.enabled=true"], "use engine.precision"),
        (["engine.deepspeed.torch_autocast.enabled=true"], "use engine.precision"),
    ],
)
def test_one_clear_message(tokens: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["method=clip", *tokens])
    (problem,) = caught.value.problems
    assert message in problem


def test_coalescing_is_accepted_where_deepspeed_can() -> None:
    assert EngineConfig(zero=3, micro_batches=2, coalesce_reduction=True).problems() == []
