"""What a tracker that cannot take records back has got already, so that no resumption delivers it twice."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from mmpretrain.run_folder import DamagedFileError, read_json


class Delivered:
    """The name under which a tracker knows this run, and how far it is; in a small file of the run folder.

    A record that a killed run delivered beyond its checkpoint is the same when the step is done again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            known = read_json(path)
        except DamagedFileError:  # the power failed while it was written
            known = {}
        self.id = str(known.get("id") or secrets.token_hex(6))
        self._step, self._count = int(known.get("step", -1)), int(known.get("count", 0))
        self._met = -1, 0  # the step of this process's last record, and how many of its records there were

    def is_new(self, step: int) -> bool:
        """Whether the next record, of this step, was not delivered yet; notes that it is now."""
        self._met = step, (self._met[1] + 1 if self._met[0] == step else 1)
        if self._met <= (self._step, self._count):
            return False
        self._step, self._count = self._met
        self._path.parent.mkdir(exist_ok=True)
        # Not flushed to the disk: a process that is killed leaves it behind all the same.
        self._path.write_text(json.dumps({"id": self.id, "step": self._step, "count": self._count}), encoding="utf-8")
        return True
