"""Where a run's records go besides its own files (no torch here)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec


class Switch(StrEnum):
    """Whether something is used."""

    auto = "auto"
    """Where its package is installed."""

    on = "on"
    """Always; a run whose package is not installed is refused."""

    off = "off"
    """Never."""


class WandbMode(StrEnum):
    """How wandb delivers records."""

    online = "online"
    """To its server, while the run goes on."""

    offline = "offline"
    """Into the run folder, from where ``wandb sync`` delivers them later: for nodes without a network."""


@dataclass
class WandbConfig:
    """Records for Weights & Biases, sent by its own package; it finds its key where ``wandb login`` left it."""

    project: str | None = None
    """Project that the run belongs to; null: nothing is sent."""

    entity: str | None = None
    """User or team that owns the project; null: wandb's default."""

    mode: WandbMode = WandbMode.online
    """How records are delivered."""

    group: str | None = None
    """Group of runs that this one is shown in; null: none."""

    tags: list[str] = field(default_factory=list)
    """Words to find the run by."""


@dataclass
class TrackioConfig:
    """Records for trackio, a dashboard on one's own machine or in a Space of the Hub."""

    project: str | None = None
    """Project that the run belongs to; null: nothing is recorded."""

    space_id: str | None = None
    """Space on the Hub, ``OWNER/NAME``, that shows the records; null: this machine alone, below ``TRACKIO_DIR``."""


@dataclass
class TrackingConfig:
    """Where records go besides ``metrics.jsonl``, which is always written. None of these keys changes the result, and
    a tracker that fails is dropped with one warning: it never ends a run."""

    tensorboard: Switch = Switch.auto
    """Event files for TensorBoard in the run folder's ``tensorboard``."""

    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases."""

    trackio: TrackioConfig = field(default_factory=TrackioConfig)
    """Trackio."""

    pictures: bool = True
    """Whether trackers also get pictures of retrieved samples: of every evaluation, and of the last one."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = []
        for name in ("wandb", "trackio"):
            settings = getattr(self, name)
            default = type(settings)()
            given = [key for key, value in vars(settings).items() if value != getattr(default, key)]
            if given and not settings.project:
                found.append(f"tracking.{name}.{given[0]} has no effect without tracking.{name}.project: set that, too")
        space = self.trackio.space_id
        if space is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", space):
            found.append(f"tracking.trackio.space_id is {space!r}: it must be OWNER/NAME of a Space on the Hub")
        return found

    @property
    def wanted(self) -> list[str]:
        """Packages of the trackers that a run gets records for, whether or not they are installed."""
        found = {
            "tensorboard": self.tensorboard is Switch.on
            or (self.tensorboard is Switch.auto and find_spec("tensorboard") is not None),
            "wandb": bool(self.wandb.project),
            "trackio": bool(self.trackio.project),
        }
        return [name for name, is_wanted in found.items() if is_wanted]

    def not_installed(self) -> list[str]:
        """A sentence for each tracker that is asked for and whose package this Python does not have."""
        without = {"tensorboard": "tracking.tensorboard=off"}
        return [
            f"tracking.{name} is wanted, and the package {name} is not installed: `pip install {name}`, or"
            f" {without.get(name, f'leave out tracking.{name}')}"
            for name in self.wanted
            if find_spec(name) is None
        ]
