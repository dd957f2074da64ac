"""How many numbers ZeRO-3 may hold together on a rank: a share of the model, so that no rank holds it whole in steps.

DeepSpeed's own limits are fixed numbers (10^9 weights kept for their next use, 5 * 10^7 fetched ahead), within which
most models are whole on every rank from the forward pass to the end of the backward pass.
"""

from __future__ import annotations

from mmpretrain.config.root import Config

BUCKET = 50_000_000  # numbers that one collective reduces; what ZeRO holds in copies of gradients at a time
PARTS = 32  # of a model, one of which may be held of each kind of what is together for a while
LEAST = 2**22  # numbers that may be together in any case: 16 MB, below which collectives get slow
_USUAL = {  # the limits of DeepSpeed, which are also the largest
    "stage3_max_live_parameters": 1_000_000_000,
    "stage3_max_reuse_distance": 1_000_000_000,
    "stage3_prefetch_bucket_size": 50_000_000,
    "reduce_bucket_size": BUCKET,
}
_SMALL = "stage3_model_persistence_threshold"  # small parameters that stay whole, all together


def gathering_limits(config: Config, numel: int, ranks: int) -> dict[str, int]:
    """Keys of DeepSpeed's ``zero_optimization`` at stage 3 and how many numbers each of them allows.

    numel: of the whole model. What ``engine.deepspeed`` says is laid over them. One rank has everything anyway, and
    keeps DeepSpeed's.
    """
    share = max(LEAST, numel // PARTS)
    limits = {key: min(usual, share) for key, usual in _USUAL.items()} | {_SMALL: share} if ranks > 1 else _USUAL
    given = config.engine.deepspeed.get("zero_optimization") or {}
    return {key: int(given.get(key, limit)) for key, limit in limits.items()}
