"""A toy job whose ranks look at one another first, on nodes of which some compute wrongly."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from launcher.ranks.job import Job
from mmpretrain.run_folder import RunFolder, append_line


def checked_job(run_folder: Path, *bad: str) -> CheckedJob:
    """A job for which the nodes in ``bad`` compute wrongly; it notes in ``nodes.jsonl`` where it ran."""
    run_folder.mkdir(parents=True, exist_ok=True)
    (run_folder / "bad.json").write_text(json.dumps(bad))
    return CheckedJob(run_folder)


@dataclass
class CheckedJob(Job):
    """The start of training, and nothing after it."""

    def train(self) -> None:
        """Find the others, look, and say that all is well."""
        from mmpretrain.config.compose import load_config
        from mmpretrain.training import devices, health

        folder, node = RunFolder(self.run_folder), os.environ.get("SLURMD_NODENAME", "here")
        if node in json.loads((self.run_folder / "bad.json").read_text()):
            setattr(devices, "computes_right", lambda _: False)  # noqa: B010 - it is typed
        health.start(folder, load_config(folder.config))
        append_line(self.run_folder / "nodes.jsonl", {"node": node})
