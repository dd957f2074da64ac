"""Hyper-parameters of SigLIP (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass

from mmpretrain.config.methods.base import MethodConfig, not_positive


@dataclass
class SiglipConfig(MethodConfig):
    """SigLIP (Zhai et al. 2023). temperature, bias: initial values of 1 / scale and of what is added to similarities.

    max_scale: upper limit of 1 / temperature; null: none, as in the paper.
    """

    name: str = "siglip"
    temperature: float = 0.1
    bias: float = -10.0
    max_scale: float | None = None

    implementation = "mmpretrain.methods.siglip.Siglip"
    title = "SigLIP: Sigmoid Loss for Language Image Pre-Training"
    arxiv = "2303.15343"

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
