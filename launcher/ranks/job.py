"""What every rank runs. Only the run folder is pickled: all else is found on disk at every start and restart."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from submitit import JobEnvironment
from submitit.core.utils import JobPaths
from submitit.helpers import TorchDistributedEnvironment

from launcher.ranks.exclusion import exclude_and_requeue
from launcher.ranks.failures import (
    LOST_PEER,
    WAITED,
    Cause,
    failure_record,
    one_line,
    record_failure,
    record_hang,
    root_cause,
    settled_cause,
)
from launcher.ranks.heartbeats import HEARTBEATS, Verdict
from launcher.ranks.signals import ABORT
from launcher.ranks.watchdog import Watchdog, Watched, end_silent
from launcher.slurm import client as slurm_client
from launcher.slurm.srun_verdicts import ATTEMPT as NEW_START
from mmpretrain.config.compose import load_config
from mmpretrain.endings import Ending, ending_of
from mmpretrain.run_folder import DamagedFileError, RunFolder, State
from mmpretrain.training.attempt import ATTEMPT, attempt
from mmpretrain.training.health_verdict import HealthError
from mmpretrain.training.preemption import PreemptedError, request_preemption

EXIT_S = 60.0  # for what packages do when a process ends, after an error


@dataclass
class Job:
    """One rank of a run; submitit calls it in every process."""

    run_folder: Path

    def __call__(self) -> None:
        """Train, and leave behind how it ended. Raises what training raised; exits quietly after a preemption."""
        listen_for_preemption()
        faulthandler.enable()
        folder = RunFolder(self.run_folder)
        plan = json.loads(folder.plan.read_text())
        os.chdir(plan["directory"])
        rank = enter_rank(folder, plan)
        watchdog = watched(folder, rank)
        with noted_failures(folder, rank, watchdog):
            rank.forget_previous_attempt()
            watchdog.start()
            if rank.number == 0:
                folder.update_status(state=State.running, job_id=rank.job_id, **rank.start())
            self._train(folder, rank)
            watchdog.stop()
            if rank.number == 0:
                folder.update_status(state=State.completed)

    def _train(self, folder: RunFolder, rank: Rank) -> None:
        try:
            self.train()
        except HealthError as error:
            leave_out(folder, rank, error)
            raise SystemExit(0) from None
        except PreemptedError as stop:
            leave(folder, rank, stop)
            # Neither an error nor a result: submitit would store either, and followers would think the job over.
            raise SystemExit(0) from None
        except SystemExit as end:  # of code that was written for a process of its own
            raise RuntimeError(f"something called sys.exit({end.code!r}) while the run went on") from end

    def train(self) -> None:
        """The work itself; imports torch."""
        from mmpretrain.training.train import main

        main(self.run_folder)


@dataclass(frozen=True)
class Rank:
    """Who this process is. paths: submitit's files of this task."""

    number: int
    world_size: int
    job_id: str
    cluster: str
    paths: JobPaths

    def start(self) -> dict[str, Any]:
        """What the status says of a start: of a job that Slurm brought back, which attempt it is."""
        again = int(os.environ.get("SLURM_RESTART_COUNT", 0))
        return {"cause": f"requeued by Slurm, attempt {again + 1}" if again else None, "attempt": again + 1}

    def forget_previous_attempt(self) -> None:
        """Remove what this rank left when the same job ran before it was requeued, which would be taken for new; in its
        log, say where the new start begins."""
        result = self.paths.result_pickle
        for path in (result, result.with_suffix(".pkl.save_tmp"), failure_record(self.paths)):
            path.unlink(missing_ok=True)
        if self.number and int(os.environ.get("SLURM_RESTART_COUNT", 0)):  # rank 0's log begins with it in any case
            print(f"{NEW_START} {self.start()['attempt']} of job {self.job_id}", file=sys.stderr, flush=True)


@contextmanager
def noted_failures(folder: RunFolder, rank: Rank, watchdog: Watchdog) -> Iterator[None]:
    """Leave a record of an exception and the run's root cause in its status, and end with the exit code for it.

    submitit would store the exception and end with 1 whatever it is.
    """
    try:
        yield
    except Exception as error:
        with suppress(OSError):  # the log may lie on the same full disk
            traceback.print_exc()
        ending = Ending.failed
        with suppress(OSError, DamagedFileError):  # a full disk may be the very error, and must not hide itself
            ending = _noted(folder, rank, error, watchdog)
        with suppress(OSError):
            sys.stderr.flush()
        code = (ending_of(error) if ending is Ending.failed else ending).code
        watchdog.leave_within(EXIT_S, code)
        raise SystemExit(code) from error


def _noted(folder: RunFolder, rank: Rank, error: Exception, watchdog: Watchdog) -> Ending:
    """What the exception of this rank means for the run, written down as far as the disk takes it."""
    with suppress(OSError):
        record_failure(rank.paths, error)
    cause = root_cause(rank.paths.folder, rank.job_id, rank.world_size)
    if not cause.certain and LOST_PEER.search(str(error)):
        watchdog.waited(error)
    found = watchdog.why_waiting(error) if not cause.certain and WAITED.search(str(error)) else None
    if found is not None:
        with suppress(OSError):
            record_hang(rank.paths, found.text, found.ending)
        end_silent(watchdog.beats(), found)
        watchdog.has_told()
    cause = settled_cause(rank.paths.folder, rank.job_id, rank.world_size)
    if not cause.certain and found is not None:
        cause = Cause(found.text, rank.paths.stderr, ending=found.ending)
    elif not cause.certain and watchdog.let_tell():
        cause = root_cause(rank.paths.folder, rank.job_id, rank.world_size)
    if not cause.certain and ending_of(error) is Ending.failed and folder.status().get("state") == State.failed.value:
        return cause.ending  # another rank knows more
    if not cause.certain and ending_of(error) is not Ending.failed:  # its record did not fit on the disk
        cause = Cause(one_line(error), rank.paths.stderr, rank.number, ending_of(error))
    # Rank 0 may have completed the run before another rank failed at taking itself down.
    folder.update_status(unless=State.completed, state=State.failed, cause=str(cause), ending=cause.ending)
    return cause.ending


def watched(folder: RunFolder, rank: Rank) -> Watchdog:
    """What watches this rank, not started yet."""
    hang_s = float(load_config(folder.config).engine.hang_s)

    def told(found: Verdict) -> None:
        with suppress(OSError):
            record_hang(rank.paths, found.text, found.ending)
        with suppress(OSError, DamagedFileError):
            folder.update_status(unless=State.completed, state=State.failed, cause=found.text, ending=found.ending)

    def stopped() -> None:
        cause = "stopped while it started, before its first step"
        with suppress(OSError, DamagedFileError):
            folder.update_status(unless=State.completed, state=State.preempted, cause=cause)

    place, parent = folder.path / HEARTBEATS, os.getppid() if rank.cluster == "local" else None
    of = Watched(place, rank.number, rank.world_size, os.environ[ATTEMPT], rank.paths, hang_s, parent)
    return Watchdog(of, told, stopped if rank.number == 0 else None)


def leave_out(folder: RunFolder, rank: Rank, error: HealthError) -> None:
    """After a check that failed: under Slurm, rank 0 starts the job again without the bad nodes, and the others end
    quietly, as their exit codes would end the job first. Raises ``error`` where that is not possible."""
    if rank.cluster == "local":
        raise error
    if rank.number == 0:
        exclude_and_requeue(folder, rank.job_id, error, load_config(folder.config).health.most_excluded)


def listen_for_preemption() -> None:
    """Replace submitit's handlers, which would requeue at once: ours only set a flag that the loop reads. ABORT is what
    Ctrl-C usually is, which itself is ignored: the terminal sends it to all processes at once."""
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda *_: request_preemption())
    signal.signal(ABORT, signal.default_int_handler)


def enter_rank(folder: RunFolder, plan: dict[str, Any]) -> Rank:
    """Set the environment that torch and DeepSpeed read when they are imported."""
    # The code that runs must not take the snapshot's search rules into processes that it starts.
    os.environ.pop("PYTHONSAFEPATH", None)
    env = JobEnvironment()
    # Devices are left alone: ranks pick theirs among those that they see (mmpretrain/training/devices.py).
    ranks = TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if env.cluster == "local":
        os.environ["MASTER_ADDR"] = "127.0.0.1"  # the host's own name need not resolve
    if plan["gpus_per_node"] == 0:
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    else:
        os.environ.pop("DS_ACCELERATOR", None)  # a "cpu" from the login shell must not reach ranks with GPUs
        if plan["visible_gpus"]:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(plan["visible_gpus"])
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        del os.environ[name]  # they change the engine behind the config's back
    os.environ[ATTEMPT] = attempt(env.job_id, env.cluster)
    threads = load_config(folder.config).engine.threads or _threads_per_rank(ranks.local_world_size)
    os.environ |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    return Rank(ranks.rank, ranks.world_size, env.job_id, env.cluster, env.paths)


def leave(folder: RunFolder, rank: Rank, stop: PreemptedError) -> None:
    """After a preemption: rank 0 notes it and puts a Slurm job back into the queue.

    Raises SlurmError when Slurm refuses; the checkpoint is there, and the same command resumes.
    """
    if rank.number != 0:
        return
    if rank.cluster == "local":
        folder.update_status(state=State.preempted, cause=str(stop))
        return
    # A job that was cancelled gets the same signal, is COMPLETING by now, and would come back to life.
    if slurm_client.job_state(rank.job_id) != "RUNNING":
        folder.update_status(state=State.preempted, cause=f"{stop}; Slurm ended the job (cancelled, or out of time)")
        return
    folder.update_status(state=State.preempted, cause=f"{stop}; back in the queue")
    slurm_client.requeue(rank.job_id)


def _threads_per_rank(ranks: int) -> int:
    cores = int(os.environ.get("SLURM_CPUS_PER_TASK", 0))
    return cores or max(1, len(psutil.Process().cpu_affinity() or [0]) // ranks)
