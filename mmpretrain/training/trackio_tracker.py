"""Records for trackio, through its own package."""

from __future__ import annotations

import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import trackio
from PIL import Image

from mmpretrain.config.root import Config
from mmpretrain.training.delivered_run import DeliveredRun
from mmpretrain.training.plain_config import plain_config


class Trackio(DeliveredRun):
    """A run of a project; the same one after every resumption."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "tracking" / "trackio.json")

    def start(self, done: int, config: Config) -> None:
        """Begin or continue the run. Raises what trackio raises."""
        settings = config.tracking.trackio
        self._run = trackio.init(
            project=settings.project,
            # Runs are known by name alone: another run folder of this name must not continue this one.
            name=f"{config.run.name}-{self._delivered.id}",
            space_id=settings.space_id,
            private=True,  # a Space that does not exist yet would be made for everybody to see
            config=plain_config(config),
            resume="allow",
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def log(self, record: Mapping[str, Any]) -> None:
        """One record, likewise; without numbers that are not finite, which not every version of it takes."""
        super().log({k: value for k, value in record.items() if not isinstance(value, float) or math.isfinite(value)})

    def picture(self, step: int, name: str, png: bytes) -> None:
        """One picture, likewise."""
        if self._delivered.is_new(step):
            self._run.log({name: trackio.Image(Image.open(BytesIO(png)))}, step=step)

    def flush(self) -> None:
        """trackio's own thread delivers every half a second."""

    def conclude(self, step: int, scores: Mapping[str, float]) -> None:
        """The final scores as one more record."""
        self.log({"step": step, **{f"final/{name}": value for name, value in scores.items()}})
