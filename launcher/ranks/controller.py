"""The parent of a local run's ranks: ``python -m launcher.ranks.controller LOGS GRACE_S``, started by LocalRanks.

submitit's own controller forgets how ranks end, and whether the kernel ended one for want of memory. This one writes
both down, and has the last word where no rank could say anything. It also ends ranks that wait for one that is gone:
gloo tells them at once, NCCL only when a collective's time is over. No launcher needs to live for any of that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from submitit.local.local import Controller, LocalExecutor, LocalJob

from launcher.ranks.failures import conclude, exits_file
from launcher.ranks.signals import ABORT
from mmpretrain.files import replace_text
from mmpretrain.run_folder import DamagedFileError

MODULE = "launcher.ranks.controller"
POLL_S = 1 / 24
GRACE_S = 20.0  # how long the other ranks may take to notice that one failed, before they are ended
ABORT_S = 5.0  # and then to end as they are told to, before they are killed


class LocalRanks(LocalExecutor):
    """submitit's executor of local jobs, with this controller."""

    def _submit_command(self, command: str) -> LocalJob[None]:
        ranks = int(self.parameters.get("tasks_per_node", 1))
        own = {"NTASKS": ranks, "COMMAND": command, "TIMEOUT_S": 0, "SIGNAL_DELAY_S": 0, "NODEID": 0}
        own |= {"JOB_NUM_NODES": 1, "WITH_SHELL": ""}
        variables = {f"SUBMITIT_LOCAL_{name}": str(value) for name, value in own.items()}
        variables |= {"SUBMITIT_STDERR_TO_STDOUT": "", "SUBMITIT_EXECUTOR": "local", "CUDA_VISIBLE_DEVICES": ""}
        words = [sys.executable, "-m", MODULE, str(self.folder), str(GRACE_S)]
        process = subprocess.Popen(words, env={**os.environ, **variables})
        return LocalJob(folder=self.folder, job_id=str(process.pid), process=process, tasks=list(range(ranks)))


class NotingController(Controller):
    """Starts the ranks, notes how each of them ends, and ends those left ``grace_s`` after one failed."""

    def __init__(self, folder: Path, grace_s: float = GRACE_S) -> None:
        super().__init__(folder)
        self._grace_s = grace_s
        self._failed_at: float | None = None
        self._asked = False

    def wait(self, freq: int = 24) -> Sequence[int | None]:
        """The exit codes of all ranks, when they have ended; negative: the signal that ended one."""
        before = oom_kills()
        ended: dict[int, int] = {}  # in the order in which they ended: the first one is the cause
        while True:
            codes = [task.poll() for task in self.tasks]
            fresh = {rank: code for rank, code in enumerate(codes) if code is not None and rank not in ended}
            if fresh:
                ended |= fresh
                facts = {"codes": ended, "out_of_memory": oom_kills() - before}
                with suppress(OSError):
                    replace_text(exits_file(self.folder, self.pid), json.dumps(facts))
            if len(ended) == len(codes):
                return codes
            if any(ended.values()):
                self._end_the_others()
            time.sleep(POLL_S)

    def _end_the_others(self) -> None:
        """Of a job with a failed rank; asked again and again until all have ended."""
        now = time.monotonic()
        if self._failed_at is None:
            self._failed_at = now
        late = now - self._failed_at - self._grace_s
        if late > ABORT_S:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    process.kill()
        elif late > 0 and not self._asked:
            self._asked = True
            self._forward_signal(ABORT)


def oom_kills(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """How many processes of this process's control group the kernel has ended for want of memory; 0 if not known."""
    with suppress(OSError, ValueError, StopIteration):
        path = next(line.split("::", 1)[1] for line in groups.read_text().splitlines() if line.startswith("0::"))
        events = (root / path.lstrip("/") / "memory.events").read_text().split()
        return int(events[events.index("oom_kill") + 1])
    return 0


def main(logs: Path, grace_s: float) -> None:
    """Run the ranks of the job in the folder ``logs`` to their end."""
    controller = NotingController(logs, grace_s)
    controller.run()
    with suppress(OSError, DamagedFileError):
        conclude(logs.parent, controller.pid, controller.ntasks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
