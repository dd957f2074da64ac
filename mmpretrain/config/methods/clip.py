"""Hyper-parameters of CLIP (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmpretrain.config.methods.base import Exchange, MethodConfig, not_positive, too_cold
from mmpretrain.config.objective import LARGEST_SCALE


@dataclass
class ClipConfig(MethodConfig):
    """CLIP (Radford et al. 2021, arXiv 2103.00020): symmetric InfoNCE over all pairs of modalities."""

    name: str = "clip"

    temperature: float = 0.07
    """Initial value of the learned temperature, which divides cosine similarities."""

    max_scale: float = 100.0
    """Upper limit of 1 / temperature while it is learned."""

    takes_missing = True
    takes_hard_negatives = True
    takes_margin = True
    implementation = "mmpretrain.methods.clip.Clip"
    title = "CLIP: Learning Transferable Visual Models From Natural Language Supervision"
    arxiv = "2103.00020"

    def exchange(self, widths: Mapping[str, int]) -> Exchange:
        """The second embeddings of all pairs."""
        return self.exchange_of_pairs(widths)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = not_positive(self, "temperature", "max_scale") + too_cold(self, "temperature")
        if self.max_scale > LARGEST_SCALE:
            found.append(f"method.max_scale is {self.max_scale}: it must be at most {LARGEST_SCALE:g}")
        if not found and 1 / self.temperature > self.max_scale:
            found.append(
                f"method.temperature {self.temperature} starts above method.max_scale {self.max_scale}:"
                f" use at least {1 / self.max_scale:g}"
            )
        return found
