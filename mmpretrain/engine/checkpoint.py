"""Collective save and load of a run's state. What is complete and what is damaged is decided in checkpoint_files.py."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mmpretrain.distributed.world import World
from mmpretrain.engine import checkpoint_files
from mmpretrain.engine.checkpoint_files import CheckpointError, DiskFullError, NoCheckpointError
from mmpretrain.engine.engine import Engine
from mmpretrain.words import listed

DEEPSPEED = "deepspeed"
HEADS = "heads.pt"
PASSED_OVER = "passed_over"  # beside what the manifest says: newer checkpoints that are damaged, in words
NONE, LOST = -1, -2
logger = logging.getLogger(__name__)


def save(engine: Engine, checkpoints: Path, step: int, facts: dict[str, Any], keep: Collection[int] = ()) -> None:
    """Write the state after ``step`` steps; every rank must call it. Saving does not change the trajectory.

    facts: what the manifest records beside the files (stream position, config, data fingerprint). keep: steps whose
    checkpoints stay whatever ``config.checkpoint`` says.
    Raises CheckpointError at once on a rank that cannot write, which must then end: the others wait for it in a
    collective until it does. Older checkpoints stay as they are.
    """
    world, settings = engine.world, engine.config.checkpoint
    writing = checkpoint_files.writing_folder(checkpoints, step)
    with _told_clearly(writing, world.rank):
        if world.rank == 0:
            checkpoint_files.start_writing(checkpoints, step)
        world.barrier()
        _write(engine, writing)
        world.barrier()
        checkpoint_files.describe_share(writing, world.rank, world.size)
        world.barrier()
        if world.rank == 0:
            checkpoint_files.commit(writing, {"step": step, **facts}, world.size)
            checkpoint_files.prune(checkpoints, step, settings.keep_last, settings.keep_every, keep)
        world.barrier()


def exists(checkpoints: Path, world: World) -> bool:
    """Whether the run has ever had a complete checkpoint; a collective, with rank 0's answer on every rank."""
    return world.max_flag(
        world.rank == 0 and (bool(checkpoint_files.steps(checkpoints)) or checkpoint_files.lost(checkpoints))
    )


def load_newest(engine: Engine, checkpoints: Path) -> dict[str, Any] | None:
    """Load the newest complete checkpoint; its manifest, or None when the run has none yet.

    Every rank must call it. With PASSED_OVER it names newer checkpoints that are damaged. Raises NoCheckpointError when
    there were checkpoints but none is usable (a run never silently starts from scratch), CheckpointError when the
    newest was written by another number of ranks.
    """
    world = engine.world
    # Rank 0 says which one to look at: other nodes may see a shared folder's entries late.
    waiting = checkpoint_files.steps(checkpoints) if world.rank == 0 else []
    damaged: list[str] = []
    while (step := _announce(engine, waiting.pop(0) if waiting else _nothing_left(checkpoints))) >= 0:
        folder = checkpoint_files.step_folder(checkpoints, step)
        problem = checkpoint_files.find_problem(folder, world.rank, world.size)
        if not world.max_flag(problem is not None):
            return {**_read(engine, folder), **({PASSED_OVER: damaged} if damaged else {})}
        damaged.append(f"{folder.name}: {problem or 'another rank found it damaged'}")
        logger.warning("checkpoint passed over: %s", damaged[-1])
    if step == LOST or damaged:
        why = listed(damaged, 4, between="; ") or f"{checkpoint_files.LATEST} names one that is gone"
        raise NoCheckpointError(f"no usable checkpoint in {checkpoints} ({why}): restore one, or start another run")
    return None


def load_step(engine: Engine, checkpoints: Path, step: int) -> dict[str, Any]:
    """Load the checkpoint after ``step`` steps, into an engine that may have trained on; its manifest.

    Every rank must call it. Raises CheckpointError, on all of them, if it is missing or damaged, or was written by
    another number of ranks.
    """
    folder = checkpoint_files.step_folder(checkpoints, step)
    problem = checkpoint_files.find_problem(folder, engine.world.rank, engine.world.size)
    if engine.world.max_flag(problem is not None):
        why = problem or "another rank found it damaged"
        raise CheckpointError(f"{folder} is needed and cannot be used ({why}): restore it")
    return _read(engine, folder)


def _announce(engine: Engine, step: int) -> int:
    """Rank 0's number, on every rank."""
    mine = step if engine.world.rank == 0 else 0
    return int(engine.world.all_reduce_sum(torch.tensor([mine], device=engine.device)).item())


def _nothing_left(checkpoints: Path) -> int:
    return LOST if checkpoint_files.lost(checkpoints) else NONE


def _write(engine: Engine, writing: Path) -> None:
    engine.deepspeed.save_checkpoint(str(writing), tag=DEEPSPEED, save_latest=False)
    if engine.average:
        engine.average.save(writing)
    if engine.world.rank == 0:
        scale = engine.loss_scale
        state = {
            "heads": engine.heads.state_dict(),
            "critics": engine.critics.state_dict(),
            "loss_scale": scale and asdict(scale),
        }
        torch.save(state, writing / HEADS)


def _read(engine: Engine, folder: Path) -> dict[str, Any]:
    manifest = checkpoint_files.read_manifest(folder)
    if manifest["world_size"] != engine.world.size:
        raise CheckpointError(
            f"{folder} was written by {manifest['world_size']} ranks and this run has {engine.world.size}:"
            " start it with the same number of ranks"
        )
    loaded, _ = engine.deepspeed.load_checkpoint(str(folder), tag=DEEPSPEED)
    if loaded is None:
        raise CheckpointError(
            f"DeepSpeed found no state in {folder}: restore it, or delete the folder to use an older one"
        )
    state = torch.load(folder / HEADS, map_location=engine.device, weights_only=True)
    try:
        engine.heads.load_state_dict(state["heads"])
        engine.critics.load_state_dict(state["critics"])
    except KeyError as error:
        raise CheckpointError(
            f"{folder / HEADS} lacks {error}: another version of mmpretrain wrote it; go on with that one, or start"
            " a run with another run.name"
        ) from error
    if engine.average:
        engine.average.load(folder)
    if engine.loss_scale:
        engine.loss_scale.restore(**state["loss_scale"])
    return manifest


@contextmanager
def _told_clearly(writing: Path, rank: int) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = DiskFullError if checkpoint_files.is_full(error, writing) else CheckpointError
        full = "the disk is full" if kind is DiskFullError and "space" not in reason.lower() else ""
        reason = f"{full}: {reason}" if full else reason
        raise kind(f"rank {rank} could not write {writing} ({reason}); earlier checkpoints are untouched") from error
