"""What every rank runs. Only the run folder is pickled: all else is found on disk at every start and restart."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import psutil
from submitit import JobEnvironment
from submitit.core.utils import JobPaths
from submitit.helpers import TorchDistributedEnvironment

from launcher import slurm_client
from launcher.exclusion import exclude_and_requeue
from launcher.failures import failure_record, record_failure, root_cause
from launcher.siblings import POLL_S, SiblingLostError, Siblings, watched
from launcher.signals import ABORT
from mmpretrain.config.compose import load_config
from mmpretrain.run_folder import DamagedFileError, RunFolder, State
from mmpretrain.training.attempt import ATTEMPT, attempt
from mmpretrain.training.health_verdict import HealthError
from mmpretrain.training.preemption import PreemptedError, request_preemption


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
        rank.forget_previous_attempt()
        if rank.number == 0:
            folder.update_status(state=State.running, job_id=rank.job_id, cause=None)
        with noted_failures(folder, rank):
            self._train(folder, rank)
        if rank.number == 0:
            folder.update_status(state=State.completed)

    def _train(self, folder: RunFolder, rank: Rank) -> None:
        try:
            with self._beside_others(folder, rank):
                self.train()
        except HealthError as error:
            leave_out(folder, rank, error)
            raise SystemExit(0) from None
        except PreemptedError as stop:
            leave(folder, rank, stop)
            # Neither an error nor a result: submitit would store either, and followers would think the job over.
            raise SystemExit(0) from None

    @contextmanager
    def _beside_others(self, folder: RunFolder, rank: Rank) -> Iterator[None]:
        """Local ranks do not outlive one another; Slurm's end together anyway."""
        if rank.cluster != "local":
            yield
            return
        tasks = [JobPaths(rank.paths.folder, rank.job_id, number) for number in range(rank.world_size)]
        with watched(Siblings(tasks, controller=os.getppid()), lambda: end_after_sibling(folder, rank)):
            yield

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

    def forget_previous_attempt(self) -> None:
        """Remove what this rank left when the same job ran before it was requeued: submitit would take it for new."""
        result = self.paths.result_pickle
        for path in (result, result.with_suffix(".pkl.save_tmp"), failure_record(self.paths)):
            path.unlink(missing_ok=True)


@contextmanager
def noted_failures(folder: RunFolder, rank: Rank) -> Iterator[None]:
    """Leave a record of an exception, and the run's root cause in its status, before the exception goes on."""
    try:
        yield
    except Exception as error:
        with suppress(OSError, DamagedFileError):  # a full disk may be the very error, and must not hide itself
            record_failure(rank.paths, error)
            cause = root_cause(rank.paths.folder, rank.job_id, rank.world_size)
            # Rank 0 may have completed the run before another rank failed at taking itself down.
            folder.update_status(unless=State.completed, state=State.failed, cause=str(cause))
        raise


def end_after_sibling(folder: RunFolder, rank: Rank) -> NoReturn:
    """End this process at once, with the reason of the rank that is gone; its main thread may wait in a collective."""
    with suppress(OSError, DamagedFileError):
        record_failure(rank.paths, SiblingLostError())
        time.sleep(2 * POLL_S)  # until the others that are left have said that it is not them
        cause = root_cause(rank.paths.folder, rank.job_id, rank.world_size)
        folder.update_status(unless=State.completed, state=State.failed, cause=str(cause))
    faulthandler.dump_traceback()
    os._exit(SiblingLostError.ending.code)


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
