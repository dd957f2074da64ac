"""Training, read from top to bottom: load, then while not finished: step, record, evaluate, save; then finish.

Every rank runs :func:`main` on the run's folder; everything a run needs stands in it or follows from its config.
"""

from __future__ import annotations

from pathlib import Path

from mmpretrain.run_folder import RunFolder
from mmpretrain.training.phases import phase, reached
from mmpretrain.training.preemption import PreemptedError, preemption_requested, request_preemption
from mmpretrain.training.session import Session

__all__ = ["PreemptedError", "fit", "main", "request_preemption"]


def main(run_folder: Path) -> None:
    """Start or continue the run in ``run_folder`` on this rank and return when it is complete.

    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT must be set. Raises PreemptedError after a signal, with a
    checkpoint of that very step on disk.
    """
    with Session(RunFolder(run_folder)) as session:
        fit(session)


def fit(session: Session) -> None:
    """The loop. ``done`` counts finished steps, as checkpoints and metrics do."""
    done = session.resume()
    if session.agreed(preemption_requested()):
        raise PreemptedError(f"stopped after step {done}" if done else "stopped before the first step")
    over = session.out_of_patience(done)
    reached(done)
    for batch in () if over else session.batches(done):
        report = session.engine.step(batch, session.step(done))
        done += 1
        stop = session.record(done, batch, report, stop=preemption_requested())
        reached(done)
        if session.evaluation_due(done):
            with phase("evaluate"):
                session.evaluate(done)
        over = session.out_of_patience(done)
        if stop or over or session.checkpoint_due(done):
            with phase("save"):
                session.save(done, now=stop or over)
        if over:
            break
        if stop and done < session.config.total_steps:
            raise PreemptedError(f"stopped after step {done}")
    with phase("release"), session.waiting.leisurely():
        session.finish(done)
