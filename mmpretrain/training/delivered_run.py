"""What trackers that go through a package's run object have in common: every step is delivered once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpretrain.training.delivered import Delivered


class DeliveredRun:
    """Hands records to ``_run``, which ``start`` of a class below sets. file: what notes which steps were delivered."""

    def __init__(self, file: Path) -> None:
        self._delivered = Delivered(file)
        self._run: Any = None

    def log(self, record: Mapping[str, Any]) -> None:
        """One record, unless an earlier process delivered it."""
        step = record["step"]
        if self._delivered.is_new(step):
            self._run.log({name: value for name, value in record.items() if name != "step"}, step=step)

    def complete(self) -> None:
        """Deliver what is left."""
        self._run.finish()
