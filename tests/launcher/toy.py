"""A small real job for launcher tests: ranks add numbers over gloo, save what step they are at, and heed signals."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import launcher.ranks.job
from launcher.planning.checks import Batches
from launcher.planning.plan import RunPlan
from launcher.planning.previous_run import Action
from launcher.planning.resources import Cluster, Resources
from launcher.ranks.job import Job
from launcher.slurm.profiles import Profile
from mmpretrain.config.compose import compose
from mmpretrain.run_folder import append_line
from mmpretrain.training.phases import reached
from mmpretrain.training.preemption import PreemptedError, preemption_requested

FAULTS = dict.fromkeys(("raise_on", "kill", "hang", "stop", "absent", "fill", "slow_start"))
ROOT = Path(__file__).resolve().parents[2]


def toy_plan(
    run_folder: Path, ranks: int = 2, steps: int = 10, tokens: Sequence[str] = (), **resources: Any
) -> RunPlan:
    """A plan for ``steps`` toy steps; by default on two local CPU ranks."""
    config = compose(["method=clip", f"run.root={run_folder.parent}", f"run.name={run_folder.name}", *tokens])
    settings: dict[str, Any] = {"cluster": Cluster.local, "nodes": 1, "ranks_per_node": ranks, "gpus_per_node": 0}
    places = Resources(**settings | resources)
    batches = Batches(128, 128 // places.world_size, steps, 128 * steps)
    return RunPlan(run_folder, Path.cwd(), config, config, places, batches, Action.new, command="the command")


def slurm_plan(run_folder: Path, steps: int = 10, nodes: int = 2, ranks: int = 2, **profile: Any) -> RunPlan:
    """A plan for toy steps under Slurm."""
    settings = Profile(**{"time_limit_min": 5, "signal_lead_s": 30} | profile)
    return toy_plan(
        run_folder, ranks, steps, cluster=Cluster.slurm, nodes=nodes, profile_name="default", profile=settings
    )


def toy_job(run_folder: Path, **settings: Any) -> ToyJob:
    """A job with its settings in the run folder: steps, pause (s per step); raise_on, kill, hang, stop (a rank at step
    3); absent (a rank that leaves out the collective of step 3 and waits in the next one); fill (a rank that fills the
    disk); slow_start (s before the ranks meet); timeout_s of collectives."""
    run_folder.mkdir(parents=True, exist_ok=True)
    (run_folder / "toy.json").write_text(json.dumps({"steps": 10, "pause": 0.0, "timeout_s": 600, **FAULTS} | settings))
    return ToyJob(run_folder)


@dataclass
class ToyJob(Job):
    """Trains nothing, in the shape of training."""

    def train(self) -> None:
        """All-reduce once per step; save and stop together when any rank was signalled."""
        import torch
        from torch import distributed as dist

        settings = json.loads((self.run_folder / "toy.json").read_text())
        time.sleep(settings["slow_start"] or 0)
        dist.init_process_group("gloo", timeout=timedelta(seconds=settings["timeout_s"]))
        rank, world = dist.get_rank(), dist.get_world_size()
        saved = self.run_folder / "toy.step"
        first = int(saved.read_text()) if saved.exists() else 0
        self._describe(rank, first)
        for step in range(first + 1, settings["steps"] + 1):
            if step == 3 and self._is_absent(rank, settings):
                continue
            values = torch.tensor([1.0, float(preemption_requested())])
            dist.all_reduce(values)
            assert values[0] == world
            reached(step)
            if rank == 0:
                append_line(self.run_folder / "metrics.jsonl", {"step": step, "loss": 1 / step, "samples_per_s": 1e3})
            time.sleep(settings["pause"])
            if values[1] > 0:
                if rank == 0:
                    saved.write_text(str(step))
                dist.barrier()
                raise PreemptedError(f"stopped after step {step}")
        dist.barrier()
        dist.destroy_process_group()

    def _is_absent(self, rank: int, settings: dict[str, Any]) -> bool:
        """Let the faults of this rank happen; whether it leaves out a collective."""
        if rank == settings["raise_on"]:
            raise FileNotFoundError("data/toy/shard-000001.tar is missing")
        if rank == settings["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if rank == settings["hang"]:
            time.sleep(600)
        if rank == settings["stop"]:
            os.kill(os.getpid(), signal.SIGSTOP)
        if rank == settings["fill"]:
            fill(self.run_folder / "filling")
            append_line(self.run_folder / "metrics.jsonl", {"step": 3, "more": "than fits" * 1000})
        return rank == settings["absent"]

    def _describe(self, rank: int, first: int) -> None:
        """What this rank found around it, for the test to look at."""
        import mmpretrain

        wanted = ["MASTER_ADDR", "WORLD_SIZE", "LOCAL_RANK", "CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "PYTHONSAFEPATH"]
        wanted += ["ACCELERATE_USE_CPU"]
        facts: dict[str, str | int | None] = {name: os.environ.get(name) for name in wanted}
        facts |= {"launcher": launcher.ranks.job.__file__, "version": mmpretrain.__version__, "first": first}
        facts |= {"host": os.uname().nodename, "directory": os.getcwd(), "threads": torch_threads()}
        append_line(self.run_folder / f"rank-{rank}.jsonl", facts)


def fill(path: Path) -> None:
    """Leave no room on the disk."""
    with path.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))


def torch_threads() -> int:
    """Threads that torch was told to use."""
    import torch

    return torch.get_num_threads()
