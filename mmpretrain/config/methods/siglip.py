"""Hyper-parameters of SigLIP (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmpretrain.config.methods.base import Exchange, MethodConfig, not_positive


@dataclass
class SiglipConfig(MethodConfig):
    """SigLIP (Zhai et al. 2023, arXiv 2303.15343): the sigmoid loss over all pairs of modalities.

    More in docs/methods/baselines.md.
    """

    name: str = "siglip"

    temperature: float = 0.1
    """Initial value of the learned temperature, which divides cosine similarities."""

    bias: float = -10.0
    """Initial value of the learned bias, which is added to the divided similarities."""

    max_scale: float | None = None
    """Upper limit of 1 / temperature while it is learned; null: none, as in the paper."""

    takes_missing = True
    takes_hard_negatives = True
    implementation = "mmpretrain.methods.siglip.Siglip"
    title = "SigLIP: Sigmoid Loss for Language Image Pre-Training"
    arxiv = "2303.15343"

    def exchange(self, widths: Mapping[str, int]) -> Exchange:
        """The second embeddings of all pairs."""
        return self.exchange_of_pairs(widths)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        if self.max_scale is None:
            return not_positive(self, "temperature")
        found = not_positive(self, "temperature", "max_scale")
        if not found and 1 / self.temperature > self.max_scale:
            found.append(
                f"method.temperature {self.temperature} starts above method.max_scale {self.max_scale}:"
                f" use at least {1 / self.max_scale:g}"
            )
        return found
