"""Collective save and load of a run's state. What is complete and what is damaged is decided in commit.py."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from mmpretrain.engine import commit
from mmpretrain.engine.commit import CheckpointError
from mmpretrain.engine.engine import Engine

DEEPSPEED = "deepspeed"
HEADS = "heads.pt"
NONE, UNUSABLE = -1, -2
logger = logging.getLogger(__name__)


def save(engine: Engine, checkpoints: Path, step: int, facts: dict[str, Any]) -> Path:
    """Write the state after ``step`` steps; every rank must call it. Saving does not change the trajectory.

    facts: what the manifest records beside the files (stream position, config, data fingerprint).
    Raises CheckpointError on every rank when any rank could not write; older checkpoints stay as they are.
    """
    world, settings = engine.world, engine.config.checkpoint
    writing = commit.step_folder(checkpoints, step).with_suffix(".tmp")
    if world.rank == 0:
        commit.start_writing(checkpoints, step)
    world.barrier()
    problem = _write(engine, writing)
    if world.max_flag(problem is not None):
        raise CheckpointError(problem or "another rank could not write its part of the checkpoint")
    if world.rank == 0:
        commit.commit(writing, {"step": step, **facts}, world.size)
        commit.prune(checkpoints, settings.keep_last, settings.keep_every)
    world.barrier()
    return writing.with_suffix("")


def load_newest(engine: Engine, checkpoints: Path) -> dict[str, Any] | None:
    """Load the newest complete checkpoint; its manifest, or None when the run has none yet.

    Every rank must call it. Raises CheckpointError when checkpoints exist but none is usable (a run never silently
    starts from scratch), or when the newest was written by another number of ranks.
    """
    world = engine.world
    # One rank hashes the files for all: every rank reading every byte would drown the file system.
    found = commit.newest_complete(checkpoints) if world.rank == 0 else commit.Found(None, {}, [])
    for sentence in found.damaged:
        logger.warning("damaged checkpoint passed over: %s", sentence)
    step = _announce(engine, found)
    if step == UNUSABLE:
        raise CheckpointError(
            f"no usable checkpoint in {checkpoints} ({'; '.join(found.damaged)}):"
            " restore one, or delete the folder to start from scratch"
        )
    if step == NONE:
        return None
    folder = commit.step_folder(checkpoints, step)
    manifest = commit.read_manifest(folder)
    if manifest["world_size"] != world.size:
        raise CheckpointError(
            f"{folder} was written by {manifest['world_size']} ranks and this run has {world.size}:"
            " start it with the same number of ranks"
        )
    _read(engine, folder)
    return manifest


def _announce(engine: Engine, found: commit.Found) -> int:
    """What rank 0 found, as a number that every rank gets: a step, NONE or UNUSABLE."""
    step = 0
    if engine.world.rank == 0:
        step = found.manifest["step"] if found.folder else UNUSABLE if found.damaged else NONE
    return int(engine.world.all_reduce_sum(torch.tensor([step], device=engine.device)).item())


def _write(engine: Engine, writing: Path) -> str | None:
    """Write this rank's part; what went wrong, or None."""
    rank = engine.world.rank
    try:
        engine.deepspeed.save_checkpoint(str(writing), tag=DEEPSPEED, save_latest=False)
        if rank == 0:
            optimizer = engine.heads_optimizer
            state = {
                "heads": engine.method.heads.state_dict(),
                "optimizer": optimizer and optimizer.state_dict(),
            }
            torch.save(state, writing / HEADS)
        commit.done_marker(writing, rank).touch()
    except (OSError, RuntimeError) as error:
        return f"{writing}: rank {rank} could not write the checkpoint ({str(error).splitlines()[0]})"
    return None


def _read(engine: Engine, folder: Path) -> None:
    engine.deepspeed.load_checkpoint(str(folder), tag=DEEPSPEED)
    state = torch.load(folder / HEADS, map_location=engine.device, weights_only=True)
    engine.method.heads.load_state_dict(state["heads"])
    if engine.heads_optimizer:
        engine.heads_optimizer.load_state_dict(state["optimizer"])
