"""A few steps of every method by ZeRO 1 and 3 under ``engine=gpu``, on one rank over NCCL, and how often steps wait."""

from __future__ import annotations

import gc
import math
import os
import warnings
from collections.abc import Iterator

import torch

from mmpretrain.config.methods.names import METHODS
from tests.engine import runs

ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
STEPS = 4
STAGES = (1, 3)
CLOSE = 0.02  # encoders in bfloat16
WITHOUT_CAPTION = ["data.modalities.caption=null", "model.encoders.caption=null"]
# Beside method=NAME. C-MCR trains projectors on stored embeddings, and has no encoders that ZeRO could divide.
EXTRA = {
    "factorcl": ["method.critic_hidden=16", *WITHOUT_CAPTION],
    "mucmm": [
        *("method.variance=1.0", "model.embed_dim=null"),
        *("model.components.common=3", "model.components.individual=4"),
    ],
}
WITHOUT = {"cmcr"}
WAITS = 2  # a step of ZeRO 0: norms, then losses and what goes with them


def tokens_of(method: str, stage: int) -> list[str]:
    """The small model of the tests of the engine under this method, with the defaults for GPUs."""
    # At stage 0 nothing is reduced beside the backward pass.
    overlap = ["engine.overlap=false"] if stage == 0 else []
    return ["engine=gpu", f"engine.zero={stage}", *overlap, f"method={method}", *EXTRA.get(method, [])]


def losses_of(method: str, stage: int, steps: int) -> list[float]:
    """Of so many steps; torch and DeepSpeed keep the process group for the next."""
    try:
        return runs.train(tokens_of(method, stage), steps)
    finally:
        gc.collect()


def waits(tokens: list[str], stage: int, device: torch.device) -> int:
    """How often the host waits for the device in a step of CLIP that writes nothing down, by torch's count."""
    config = runs.tiny_config(*tokens_of("clip", stage), *tokens, "train.log_every_steps=1000")
    engine = runs.start(config)
    batches = [runs.make_batch(index, 0, 1, modalities=config.data.modalities).to(device) for index in range(3)]
    for index, batch in enumerate(batches[:2]):  # the first ones allocate, and look whether anything moves
        engine.step(batch, runs.step_of(index, config))
    step = runs.step_of(2, config)
    if device.type != "cuda":
        engine.step(batches[2], step)
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            engine.step(batches[2], step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in seen)


def lines(device: torch.device, small: bool) -> Iterator[dict[str, object]]:
    """A check per method and stage, and the waits of CLIP's steps. small: two methods."""
    os.environ.update(ALONE)
    methods = [method for method in METHODS if method not in WITHOUT]
    for method in methods[:: 7 if small else 1]:
        first: list[float] = []
        for stage in STAGES:
            wrong, losses = None, list[float]()
            try:
                losses = losses_of(method, stage, 2 if small else STEPS)
                wrong = _fault(losses, first)
            except Exception as error:  # every method has its turn
                wrong = f"{type(error).__name__}: {error}".splitlines()[0]
            first = first or losses
            yield {"check": f"{method} at ZeRO {stage}", "wrong": wrong}
    yield from _waits_told(device)


def _waits_told(device: torch.device) -> Iterator[dict[str, object]]:
    """Encoders of texts ask whether any token is padding, which is transformers' own look: images say what is ours."""
    for stage in (0, *STAGES):
        count, more = waits(WITHOUT_CAPTION, stage, device), waits([], stage, device)
        name = "waits of the host in a step of CLIP, by torch's count"
        yield {"table": name, "ZeRO": stage, "images alone": count, "with a BERT": more}
        if stage == 0:
            yield {"check": "waits at ZeRO 0", "wrong": None if count <= WAITS else f"{count}, at most {WAITS} are due"}


def _fault(losses: list[float], first: list[float]) -> str | None:
    """first: the losses at the first stage; none at that itself."""
    if not all(math.isfinite(loss) for loss in losses):
        return f"losses are not finite: {losses}"
    far = max((abs(a - b) / max(1.0, abs(b)) for a, b in zip(losses, first, strict=False)), default=0.0)
    return None if far <= CLOSE else f"losses are not those of ZeRO {STAGES[0]}: {losses} instead of {first}"
