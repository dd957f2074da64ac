"""Config of what is looked at before training (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class HealthConfig:
    """What nodes and devices must show before the model is built (docs/slurm.md)."""

    enabled: bool = True
    """Whether anything is looked at."""

    limit_s: int = 60
    """Seconds that the exchange of data between the ranks may take in all; whoever has not answered by then is
    unhealthy."""

    least_mb_per_s: float | None = None
    """Least rate at which a rank must reach its best peer on another node, and its best one on its own, in MB
    (10^6 bytes) per second; null: none. A tenth of what is usual in the job is warned of in any case."""

    least_free_memory: float = 0.5
    """Least share of a GPU's memory that must be free before training: what is missing is held by other processes."""

    most_excluded: int = 2
    """How many nodes a Slurm job may leave out, one after another, before it ends as unhealthy. 0: it ends at once."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = []
        if self.limit_s < 1:
            found.append(f"health.limit_s is {self.limit_s}: it must be at least 1 second")
        if self.least_mb_per_s is not None and self.least_mb_per_s <= 0:
            found.append(f"health.least_mb_per_s is {self.least_mb_per_s}: it must be above 0, or null for no limit")
        if not 0 <= self.least_free_memory <= 1:
            found.append(f"health.least_free_memory is {self.least_free_memory}: a share from 0 to 1 is needed")
        if self.most_excluded < 0:
            found.append(f"health.most_excluded is {self.most_excluded}: it must be 0 or more")
        return found
