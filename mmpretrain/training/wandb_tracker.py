"""Records for Weights & Biases, through its own package."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import wandb
from PIL import Image

from mmpretrain.config.root import Config
from mmpretrain.training.delivered_run import DeliveredRun
from mmpretrain.training.plain_config import plain_config

START_S, FINISH_S = 60.0, 50.0  # for reaching the server, and for delivering the rest at the end


class Wandb(DeliveredRun):
    """A run of a project; the same one after every resumption. Offline it lies below the run folder's ``wandb``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__(folder / "tracking" / "wandb.json")

    def start(self, done: int, config: Config) -> None:
        """Begin or continue the run. Raises what wandb raises."""
        settings = config.tracking.wandb
        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group,
            tags=settings.tags or None,
            mode=settings.mode.value,
            id=self._delivered.id,
            name=config.run.name,
            resume="allow",
            dir=self._folder,
            config=plain_config(config),
            settings=_settings(),
        )
        where = self._run.url or f"{self._folder / 'wandb'} (`wandb sync` delivers it)"
        print(f"wandb: {where}", flush=True)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """One picture, likewise."""
        if self._delivered.is_new(step):
            self._run.log({name: wandb.Image(Image.open(BytesIO(png)))}, step=step)

    def flush(self) -> None:
        """wandb's own process has taken the records over already."""

    def conclude(self, step: int, scores: Mapping[str, float]) -> None:
        """The final scores as the run's summary."""
        self._run.summary.update({f"final/{name}": value for name, value in scores.items()})


def _settings() -> Any:
    """What ranks print stays in the run folder, and so does the code; nothing is waited for without end."""
    wanted = {
        "console": "off",
        "disable_git": True,
        "save_code": False,
        "silent": True,
        "init_timeout": START_S,
        "finish_timeout": FINISH_S,
    }
    known = wandb.Settings.model_fields  # earlier versions lack some, and refuse what they do not know
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in known})
