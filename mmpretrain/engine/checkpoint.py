"""Collective save and load of a run's state. What is complete and what is damaged is decided in checkpoint_files.py."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from mmpretrain.distributed.world import World
from mmpretrain.engine import checkpoint_files
from mmpretrain.engine.checkpoint_files import CheckpointError, DiskFullError, NoCheckpointError
from mmpretrain.engine.checkpoint_layout import LAYOUT, layout_of, not_divisible, written_layout
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.resharding import reshard
from mmpretrain.words import listed

DEEPSPEED = "deepspeed"
HEADS = "heads.pt"
PASSED_OVER = "passed_over"  # beside what the manifest says: newer checkpoints that are damaged, in words
NONE, LOST = -1, -2
PATIENCE_S = 3600.0  # for file systems to take what all ranks write at once
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
    with told_clearly(writing, world.rank):
        if world.rank == 0:
            checkpoint_files.start_writing(checkpoints, step)
        world.barrier(patient=True)
        engine.deepspeed.save_checkpoint(str(writing), tag=DEEPSPEED, save_latest=False)
        for file in own_files(engine):
            file.write(writing)
        world.barrier(patient=True)
        checkpoint_files.describe_share(writing, world.rank, world.size)
        world.barrier(patient=True)
        if world.rank == 0:
            checkpoint_files.commit(writing, all_facts(engine, step, facts), world.size)
            checkpoint_files.prune(checkpoints, step, settings.keep_last, settings.keep_every, keep)
        world.barrier(patient=True)


def all_facts(engine: Engine, step: int, facts: dict[str, Any]) -> dict[str, Any]:
    """What a manifest says beside the files; facts: of the run."""
    return {"step": step, LAYOUT: layout_of(engine.config.engine, engine.world.size).facts(), **facts}


def exists(checkpoints: Path, world: World) -> bool:
    """Whether the run has ever had a complete checkpoint; a collective, with rank 0's answer on every rank."""
    return world.max_flag(
        world.rank == 0 and (bool(checkpoint_files.steps(checkpoints)) or checkpoint_files.lost(checkpoints))
    )


def load_newest(engine: Engine, checkpoints: Path) -> dict[str, Any] | None:
    """Load the newest complete checkpoint; its manifest, or None when the run has none yet.

    Every rank must call it. One that was written by other ranks, at another stage or in another precision is divided
    anew. With PASSED_OVER it names newer checkpoints that are damaged. Raises NoCheckpointError when there were
    checkpoints but none is usable (a run never silently starts from scratch), CheckpointError when it does not fit.
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

    Every rank must call it. Raises CheckpointError, on all of them, if it is missing or damaged.
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


@dataclass(frozen=True)
class StateFile:
    """A file of a checkpoint. name: below its folder. state: what is in it. to: how it is written there."""

    name: str
    state: Any
    to: Callable[[Any, Path], object] = torch.save

    def write(self, writing: Path) -> None:
        """Write it into ``writing``."""
        self.to(self.state, writing / self.name)


def own_files(engine: Engine) -> Iterator[StateFile]:
    """What this rank writes beside DeepSpeed's files, as it is now: live tensors, which the next step changes."""
    if engine.average and (numbers := engine.average.kept()) is not None:
        yield StateFile(engine.average.file, numbers, save_file)
    if engine.world.rank == 0:
        scale = engine.loss_scale
        state = {
            "heads": engine.heads.state_dict(),
            "critics": engine.critics.state_dict(),
            "loss_scale": scale and asdict(scale),
        }
        yield StateFile(HEADS, state)


def _read(engine: Engine, folder: Path) -> dict[str, Any]:
    manifest = checkpoint_files.read_manifest(folder)
    own = layout_of(engine.config.engine, engine.world.size)
    written = written_layout(manifest) or replace(own, ranks=manifest["world_size"])
    if written == own:
        loaded, _ = engine.deepspeed.load_checkpoint(str(folder), tag=DEEPSPEED)
        if loaded is None:
            raise CheckpointError(
                f"DeepSpeed found no state in {folder}: restore it, or delete the folder to use an older one"
            )
    else:
        if why := not_divisible(written) or not_divisible(own):
            raise CheckpointError(f"{folder} was written by {written} and this run has {own}: {why}")
        stage, names = engine.config.engine.zero, engine.trained_names
        reshard(engine.deepspeed, stage, names, engine.live, folder / DEEPSPEED, written.ranks)
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
        engine.average.load(folder, None if written == own else written.ranks)
    if engine.loss_scale and state["loss_scale"]:  # another precision has none: float16 then begins with its own
        engine.loss_scale.restore(**state["loss_scale"])
    return manifest


@contextmanager
def told_clearly(writing: Path, rank: int) -> Iterator[None]:
    """Whatever stops a rank from writing is a CheckpointError that says so in one line."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = DiskFullError if checkpoint_files.is_full(error, writing) else CheckpointError
        full = "the disk is full" if kind is DiskFullError and "space" not in reason.lower() else ""
        reason = f"{full}: {reason}" if full else reason
        raise kind(f"rank {rank} could not write {writing} ({reason}); earlier checkpoints are untouched") from error
