"""At ZeRO 3 a step gathers a share of the model at a time, with the numbers of one that gathers it whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

from mmpretrain.engine import gathering
from mmpretrain.engine.deepspeed_setup import deepspeed_config
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.gathering import LEAST, PARTS, gathering_limits
from tests.engine import runs

ZERO = "engine.deepspeed.zero_optimization"
LARGE = 100 * PARTS * LEAST


@pytest.mark.parametrize(("numel", "kept"), [(1000, LEAST), (2 * PARTS * LEAST, 2 * LEAST), (LARGE, 100 * LEAST)])
def test_a_share_of_the_model_is_kept_for_its_next_use(numel: int, kept: int) -> None:
    limits = gathering_limits(runs.tiny_config("engine=zero3"), numel, 2)
    assert limits["stage3_max_reuse_distance"] == limits["stage3_max_live_parameters"] == kept
    assert limits["stage3_prefetch_bucket_size"] == min(kept, 50_000_000)


def test_what_the_config_says_counts() -> None:
    key = "stage3_max_reuse_distance"
    config = runs.tiny_config("engine=zero3", f"{ZERO}.{key}=5")
    assert gathering_limits(config, LARGE, 2)[key] == deepspeed_config(config, 2, LARGE)["zero_optimization"][key] == 5


def test_one_rank_and_other_stages_keep_deepspeed_s() -> None:
    assert gathering_limits(runs.tiny_config("engine=zero3"), 1000, 1)["stage3_max_reuse_distance"] == 10**9
    told = deepspeed_config(runs.tiny_config("engine=zero2"), 2, 1000)["zero_optimization"]
    assert not [key for key in told if key.startswith("stage3_max")]


def most_whole(least: int) -> tuple[float, runs.Outcome]:
    """The largest share of the model that was whole in a forward pass after the first ones, and what training was."""
    most, usual = 0.0, gathering.LEAST

    def watch(engine: Engine) -> None:
        parameters: list[Any] = list(engine.method.model.parameters())

        def look(*_: object) -> None:
            nonlocal most
            whole = sum(p.ds_numel for p in parameters if p.ds_status is ZeroParamStatus.AVAILABLE)
            most = max(most, whole / sum(p.ds_numel for p in parameters))

        for module in engine.method.model.modules():
            module.register_forward_pre_hook(look)  # after DeepSpeed's, which has gathered

    gathering.LEAST = least
    try:
        found = runs.outcome(runs.tiny_config("method=clip", "engine=zero3"), 4, watch)
    finally:
        gathering.LEAST = usual
    return most, found


def test_most_of_the_model_is_away_in_a_step_and_training_is_the_same(ranks: Callable) -> None:
    (usual, right), (limited, ours) = (ranks(2, most_whole, least)[0] for least in (LEAST, 1))
    assert usual > 0.9 and limited < 0.3, (usual, limited)
    runs.check_equal(ours, right)
