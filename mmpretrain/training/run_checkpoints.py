"""A run's checkpoints: saved at once or beside training, copied to a store, and brought back from there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf

from mmpretrain.config.changes import may_change
from mmpretrain.config.merging import leaves
from mmpretrain.config.root import Config
from mmpretrain.data.stores import Patience
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.world import World
from mmpretrain.engine import checkpoint_files
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.engine.checkpoint_store import CheckpointStore, StoreError
from mmpretrain.engine.copies import Copies
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.saving import Saved, Saving
from mmpretrain.files import replace_bytes
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.best import Best
from mmpretrain.training.phases import phase
from mmpretrain.words import listed

LEAVING_S = 20.0  # that a rank which failed waits for the checkpoint in flight
LAST_COPY_S, STOPPED_COPY_S = 600.0, 10.0  # that the end of a run waits for its copies, and a run that was stopped
LINES = ("metrics.jsonl", "consumed.jsonl", "quarantine.jsonl")
RECORDS = (*LINES, "evaluation_before.json", "evaluation_before.npz")
LOOK_S = 5.0  # that a store may be silent when a run starts
NONE = -1
logger = logging.getLogger(__name__)


class RunCheckpoints:
    """What saves and copies. saved: told on rank 0, perhaps by a thread, how many seconds a checkpoint took."""

    def __init__(self, folder: RunFolder, engine: Engine, saved: Callable[[float], None]) -> None:
        self._folder, self._engine, self._told = folder, engine, saved
        self._saving = Saving(engine, folder.checkpoints, self._saved)
        self._beside = engine.config.checkpoint.background and self._saving.possible
        if engine.config.checkpoint.background and not self._beside and engine.world.rank == 0:
            logger.warning(
                "checkpoints are not written beside training: engine.deepspeed.checkpoint has its own writer"
            )
        store = CheckpointStore.of(engine.config) if engine.world.rank == 0 else None
        self._copies = Copies(store, folder, engine.config.checkpoint) if store else None

    @property
    def failed(self) -> bool:
        """Whether this rank could not write one; all must then save, which says why."""
        return self._saving.failed

    def start(self, best: Best | None) -> None:
        """Copy what an earlier start could not. best: so far."""
        if self._copies is not None:
            self._copies.renew([best.step] if best else [])

    def save(self, done: int, facts: dict[str, Any], *, now: bool) -> None:
        """Write the checkpoint after ``done`` steps, beside training unless it must be complete ``now``; a collective.

        facts: as :func:`checkpoint.save` takes them. Raises CheckpointError; also, on all ranks alike, for the one
        before that was written beside training.
        """
        config = self._engine.config
        now = now or done == config.total_steps or not self._beside
        (self._saving.save if now else self._saving.start)(done, facts, _best_of(facts))

    def leave(self, *, stopped: bool) -> None:
        """A run that was ``stopped``, or has failed: what is under way gets a moment to become complete."""
        self._saving.leave(LEAVING_S)
        if self._copies is not None and stopped:
            self._copies.finish(STOPPED_COPY_S)

    def finish(self) -> None:
        """Wait for the copies, on the rank that makes them; the others wait for it where they wait for its release."""
        if self._copies is not None:
            self._copies.finish(LAST_COPY_S)

    def _saved(self, saved: Saved) -> None:
        """On rank 0, perhaps in a thread: only what is complete is told of."""
        self._told(saved.seconds)
        if best := saved.facts.get("best"):
            self._folder.update_status(best=best)
        if self._copies is not None:
            self._copies.renew(_best_of(saved.facts))


def facts_of(config: Config, stream: Stream, done: int, **found: object) -> dict[str, Any]:
    """What the manifest says of a run after ``done`` steps. found: further facts, left out where there is nothing."""
    return {
        "position": done * config.data.global_batch,
        "index": stream.index.fingerprint,
        "seed": config.seed,
        **{name: value for name, value in {"mixture": stream.plan.facts, **found}.items() if value},
        "config": OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True),
    }


def bring_back(folder: RunFolder, config: Config, world: World) -> None:
    """Fetch the newest copy if the run's folder has no checkpoint, only older ones, or a damaged one that is newer; a
    collective.

    Raises CheckpointError on all ranks: the copies are of another run, or of more steps than this one is to have; or no
    checkpoint here can be used and the store does not say whether it has one.
    """
    store = CheckpointStore.of(config, Patience(connect_s=LOOK_S, silence_s=LOOK_S))
    if store is not None:
        with phase("fetch"):
            _bring_back(store, folder, config, world)


def _bring_back(store: CheckpointStore, folder: RunFolder, config: Config, world: World) -> None:
    found = _Found(folder, config, store) if world.rank == 0 else None
    _agreed(found.foreign() if found else None, world)
    here = found.here() if found else []
    for number in range(_from_first(len(here), world) + 1):
        step = _from_first(here[number] if number < len(here) else NONE, world)
        path = checkpoint_files.step_folder(folder.checkpoints, step)
        if step != NONE and not world.max_flag(bool(checkpoint_files.find_problem(path, world.rank, world.size))):
            return
        others = here[number + 1 :]
        fetched, problem = found.fetch(max(others, default=NONE)) if found else (False, None)
        _agreed(problem, world)
        if world.max_flag(fetched):
            return


class _Found:
    """What rank 0 finds in the store and in the run's folder."""

    def __init__(self, folder: RunFolder, config: Config, store: CheckpointStore) -> None:
        self._folder, self._config, self._store = folder, config, store
        self._copies: list[int] = []
        self._silence: StoreError | None = None
        self._behind = False  # the run went on elsewhere after what is here
        try:
            self._copies = store.steps()
        except StoreError as error:
            self._silence = error
            logger.warning("copies of checkpoints cannot be looked at: %s", error)

    def foreign(self) -> str | None:
        """A sentence if the copies are of another run, or this one ends before them."""
        for step in self._copies:
            try:
                keys = _of_another_run(self._store.manifest(step), self._config)
            except StoreError as error:
                logger.warning("the copy of a checkpoint is passed over: %s", error)
                continue
            if keys:
                where = f"{self._store} holds checkpoints of another run"
                return f"{where} ({listed(keys)} differ): use another run.name or checkpoint.copy_to"
            break
        if self._copies and self._copies[0] > self._config.total_steps:
            return (
                f"{self._store} holds a checkpoint after step {self._copies[0]}, and train.samples ends the run after"
                f" step {self._config.total_steps}: ask for more, or use another run.name or checkpoint.copy_to"
            )
        return None

    def here(self) -> list[int]:
        """The steps in the run's folder, newest first; before them NONE, if ``latest`` names one that is gone, or there
        is a copy of a later one."""
        steps = checkpoint_files.steps(self._folder.checkpoints)
        latest = checkpoint_files.named_latest(self._folder.checkpoints)
        newest = max([*steps, NONE if latest is None else latest], default=NONE)
        self._behind = bool(steps) and max(self._copies, default=NONE) > newest
        gone = steps and latest not in (None, *steps)
        return [NONE, *steps] if gone or self._behind else steps

    def fetch(self, above: int) -> tuple[bool, str | None]:
        """Whether the newest sound copy of a step after ``above`` was fetched, and why the run cannot go on if not."""
        if self._silence is not None and above == NONE:
            return False, (
                f"no checkpoint here can be used, and whether there are copies of this run is not known"
                f" ({self._silence}): give the command again when the store answers, or add checkpoint.copy_to=null to"
                " go without them"
            )
        problems = []
        for step in (step for step in self._copies if step > above):
            try:
                self._store.fetch(step, self._folder.checkpoints)
            except (StoreError, OSError) as error:
                problems.append(str(error))
                logger.warning("the copy of a checkpoint is passed over: %s", error)
                continue
            print(f"fetched the checkpoint after step {step} from {self._store}", flush=True)
            for fetch in (self._fetch_start, self._fetch_records, partial(self._fetch_best, step)):
                try:
                    fetch()
                except (StoreError, OSError) as error:
                    logger.warning("not all that lies beside the copy of a checkpoint is fetched: %s", error)
            return True, None
        # Without anything else to go on from, this would be a silent start from scratch.
        return False, f"no copy of this run can be used: {listed(problems)}" if problems and above == NONE else None

    def _fetch_start(self) -> None:
        """The weights that the run started from, if it needs them at its end."""
        if self._config.averaging.interpolate and not self._folder.start_weights.exists():
            self._store.fetch_beside(self._folder.start_weights)

    def _fetch_records(self) -> None:
        """Those that are not here, or end before the copy."""
        for name in RECORDS:
            path = self._folder.path / name
            wanted = not path.exists() or (self._behind and name in LINES)
            if wanted and (content := self._store.content(name)) is not None:
                replace_bytes(path, content)

    def _fetch_best(self, step: int) -> None:
        """The checkpoint of the best step, as that after ``step`` knows it."""
        checkpoints = self._folder.checkpoints
        for best in _best_of(checkpoint_files.read_manifest(checkpoint_files.step_folder(checkpoints, step))):
            if best in self._copies and not checkpoint_files.step_folder(checkpoints, best).exists():
                self._store.fetch(best, checkpoints)
                checkpoint_files.name_latest(checkpoints, step)


def _of_another_run(manifest: Mapping[str, Any], config: Config) -> list[str]:
    """Keys that change weights and have other values than in a copy's manifest. A run's length may differ, and how its
    engine divides the work."""
    asked = dict(leaves(OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)))
    stored = dict(leaves(manifest.get("config") or {}))
    free = ("engine.", "train.", "data.accept_index")
    return [
        key
        for key in asked.keys() & stored.keys()
        if asked[key] != stored[key] and not key.startswith(free) and not may_change(key, config, config)
    ]


def _best_of(facts: Mapping[str, Any]) -> list[int]:
    best = facts.get("best")
    return [int(best["step"])] if best else []


def _agreed(problem: str | None, world: World) -> None:
    """Raise rank 0's problem on all ranks; they wait for what it fetches."""
    if world.max_flag(problem is not None, patient=True):
        raise CheckpointError(problem or "rank 0 could not fetch the copy of a checkpoint")


def _from_first(number: int, world: World) -> int:
    """Rank 0's number, on every rank."""
    mine = number if world.rank == 0 else 0
    return int(world.all_reduce_sum(torch.tensor([mine], device=world.device)).item())
