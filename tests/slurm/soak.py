"""What befalls a run on a cluster, one thing after another: each fault is done to a living job, and whoever follows it
gives the same command again whenever it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mmpretrain.engine.checkpoint_files import newest_step, step_folder
from mmpretrain.run_folder import RunFolder, read_lines
from tests.slurm.conftest import dev_cluster
from tests.small_runs import ranks_of

PATIENCE_S = 600.0  # for a run to come back after a fault
SETTLE_S = 60.0  # until Slurm has taken leave of a job


@dataclass
class Soak:
    """A run and whoever follows it. command: what starts it and goes on with it. folder: of the cluster.

    codes: what the followers of all attempts ended with.
    """

    command: list[str]
    run: RunFolder
    folder: str
    codes: list[int] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    _follower: subprocess.Popen[str] | None = None

    def step(self) -> int:
        """The newest step in the run's records."""
        return max((line["step"] for line in read_lines(self.run.metrics) if "loss" in line), default=0)

    def advance(self, steps: int) -> bool:
        """Wait until so many further steps are made, starting the run again when it ended; False if it is complete."""
        goal, end = self.step() + steps, time.monotonic() + PATIENCE_S
        while self.step() < goal:
            assert time.monotonic() < end, f"no step for {PATIENCE_S} s after {self.log[-1:]}; {self.run.status()}"
            if not self._followed():
                return False
            time.sleep(0.05)
        return True

    def finish(self) -> None:
        """Wait for the end, giving the command again as often as it takes."""
        end = time.monotonic() + 2 * PATIENCE_S
        while self._followed():
            assert time.monotonic() < end, f"the run does not end; {self.run.status()}"
            time.sleep(0.1)

    def end(self) -> int:
        """Wait until the follower has ended, and give the command no more; its exit code."""
        assert self._follower is not None
        output, _ = self._follower.communicate(timeout=PATIENCE_S)
        self.codes.append(self._follower.returncode)
        self.log.append(output[-2000:])
        self._follower = None
        return self.codes[-1]

    def job_id(self) -> str:
        """Of the run's newest job."""
        return str(self.run.status()["job_id"])

    def ranks(self) -> list[psutil.Process]:
        """The living ranks in their order."""
        living = [process for process in ranks_of(self.run) if "SLURM_PROCID" in process.environ()]
        return sorted(living, key=lambda process: int(process.environ()["SLURM_PROCID"]))

    def _followed(self) -> bool:
        """Whether the run is not complete; it is started again if nobody follows it."""
        if self._follower is None:
            self._follower = subprocess.Popen(
                self.command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        elif self._follower.poll() is not None:
            return self._again() != 0
        return True

    def _again(self) -> int:
        """Give the command again once the last one ended; its code."""
        code = self.end()
        if code == 0:
            return code
        # The launcher's own refusals begin a line with it; what a failed run says of its cause does not.
        refused = [line for line in self.log[-1].splitlines() if line.startswith("error: ")]
        assert all("in use by" in line for line in refused), refused
        # A job that is ending still holds its run, which the launcher says and refuses.
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline and _queued(self.run.status().get("job_id")):
            time.sleep(0.2)
        return code


def _queued(job_id: str | None) -> bool:
    listing = ["squeue", "--noheader", "--me", "--format=%i"]
    return job_id in subprocess.run(listing, capture_output=True, text=True, timeout=30, check=False).stdout.split()


Fault = Callable[[Soak], None]


def kill_a_rank(soak: Soak) -> None:
    """SIGKILL of one rank."""
    for rank in soak.ranks()[-1:]:
        rank.kill()


def lose_a_node(soak: Soak) -> None:
    """Power loss of a node that the run uses; it comes back later."""
    shown = subprocess.run(
        ["squeue", "--noheader", f"--jobs={soak.job_id()}", "--format=%B"], capture_output=True, text=True, check=True
    )
    node = shown.stdout.strip()
    dev_cluster("kill-node", node, folder=soak.folder)
    waiting = time.monotonic() + SETTLE_S
    while time.monotonic() < waiting and _state(soak.job_id()) == "RUNNING":
        time.sleep(0.2)
    dev_cluster("start-node", node, folder=soak.folder)


def restart_the_controller(soak: Soak) -> None:
    """slurmctld dies, and is started again a little later."""
    pid = int(Path(soak.folder, "run", "slurmctld.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    time.sleep(3)
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    subprocess.run(["slurmctld", "-f", os.environ["SLURM_CONF"]], check=True, env=os.environ | {"PATH": path})


def preempt(soak: Soak) -> None:
    """Another partition takes all nodes for a moment."""
    sizes = subprocess.run(["sinfo", "-h", "-p", "high", "-o", "%D"], capture_output=True, text=True, check=True)
    words = ["--partition=high", f"--nodes={sizes.stdout.split()[0]}", "--exclusive", "--output=/dev/null"]
    subprocess.run(["sbatch", *words, "--wrap=true"], check=True, capture_output=True)


def run_out_of_time(soak: Soak) -> None:
    """The signal that comes before a time limit."""
    subprocess.run(["scancel", "--signal=USR2", soak.job_id()], check=True)


def damage_and_kill(soak: Soak) -> None:
    """A byte of the newest checkpoint turns over, and the run has to go on from it."""
    newest = newest_step(soak.run.checkpoints)
    if newest is not None:
        file = max(step_folder(soak.run.checkpoints, newest).rglob("*.pt"), key=lambda path: path.stat().st_size)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    kill_a_rank(soak)


def hang(soak: Soak) -> None:
    """A rank stands still."""
    for rank in soak.ranks()[-1:]:
        rank.suspend()


def fill_the_disk(soak: Soak) -> None:
    """Nothing can be written any more, until the run has ended for that."""
    ballast = soak.run.path.parent / "ballast"
    with ballast.open("wb") as stream:
        try:
            while True:
                stream.write(b"\0" * 65536)
                stream.flush()
        except OSError:
            pass
    try:
        soak.end()
    finally:
        ballast.unlink()


FAULTS: tuple[Fault, ...] = (
    kill_a_rank,
    lose_a_node,
    restart_the_controller,
    preempt,
    run_out_of_time,
    damage_and_kill,
    hang,
    fill_the_disk,
)


def _state(job_id: str) -> str:
    shown = subprocess.run(["scontrol", "show", "job", job_id], capture_output=True, text=True, timeout=20, check=False)
    return next((w.partition("=")[2] for w in shown.stdout.split() if w.startswith("JobState=")), "gone")


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[Path]:
    """A file system of that size at ``folder``, made before a cluster's nodes so that they see it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
