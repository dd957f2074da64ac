"""A thread that keeps the copies of a run's checkpoints up to date. It neither ends nor delays a run."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection

from mmpretrain.config.engine import CheckpointConfig
from mmpretrain.engine import checkpoint_files
from mmpretrain.engine.checkpoint_store import CheckpointStore, StoreError
from mmpretrain.run_folder import RunFolder

RECORDS = (
    *("config.yaml", "plan.json", "status.json", "metrics.jsonl", "consumed.jsonl", "quarantine.jsonl"),
    *("evaluation_before.json", "evaluation_before.npz"),
)
logger = logging.getLogger(__name__)


class Copies:
    """Of the checkpoints of ``folder`` in ``store``, on rank 0 alone."""

    def __init__(self, store: CheckpointStore, folder: RunFolder, settings: CheckpointConfig) -> None:
        self._store, self._folder, self._settings = store, folder, settings
        self._keep: Collection[int] = ()
        self._changed = threading.Condition()
        self._wanted = self._done = 0  # how often there was something to copy, and how often that was over
        self._thread: threading.Thread | None = None

    def renew(self, keep: Collection[int] = ()) -> None:
        """A checkpoint has become complete: copy what there is no copy of, when the thread gets to it.

        keep: steps whose copies stay whatever ``checkpoint`` says.
        """
        with self._changed:
            self._keep = tuple(keep)
            self._wanted += 1
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="copies of checkpoints", daemon=True)
            self._thread.start()

    def finish(self, most_s: float) -> bool:
        """Wait until all is copied that is wanted, or has failed to be, so many seconds at most; whether it is so."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._done == self._wanted, most_s)
        if not done:
            logger.warning("checkpoints were still being copied to %s after %.0f s", self._store, most_s)
        return done

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._done < self._wanted)
                begun = self._wanted
            try:
                self._renew()
            except FileNotFoundError:
                pass  # a checkpoint was deleted meanwhile: newer ones are there, or the run's folder is gone
            except Exception as error:  # whatever a store's library raises, training does not depend on it
                said = error if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
                logger.warning("checkpoints are not copied now, and are with the next one: %s", said)
            with self._changed:
                self._done = begun
                self._changed.notify_all()

    def _renew(self) -> None:
        here = checkpoint_files.steps(self._folder.checkpoints)
        if not here:
            return
        there, complete, settings = self._store.names(), set(self._store.steps()), self._settings
        kept = checkpoint_files.kept_steps(
            {*here, *complete}, here[0], settings.keep_copies, settings.keep_every, self._keep
        )
        for name in RECORDS:  # before the manifest: they tell of every step that the copy has made
            self._store.put_record(self._folder.path / name)
        if (self._folder.start_weights / checkpoint_files.MANIFEST).is_file():
            self._store.put_beside(self._folder.start_weights)
        for step in (step for step in here if step in kept - complete):
            self._store.put(checkpoint_files.step_folder(self._folder.checkpoints, step))
        for step in set(there) - kept:
            self._store.remove(step)
