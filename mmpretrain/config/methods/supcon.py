"""Hyper-parameters of SupCon (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass

from mmpretrain.config.methods.base import MethodConfig, not_positive, too_cold


@dataclass
class SupconConfig(MethodConfig):
    """SupCon (Khosla et al. 2020), the modalities of a sample being its views.

    temperature: of the similarities. hidden, width: of each modality's projection head (Linear - ReLU - Linear).
    """

    name: str = "supcon"
    temperature: float = 0.07
    hidden: int = 2048
    width: int = 128

    implementation = "mmpretrain.methods.supcon.Supcon"
    title = "SupCon: Supervised Contrastive Learning"
    arxiv = "2004.11362"

    @property
    def needs_labels(self) -> bool:
        """The labels say which samples belong together."""
        return True

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        return not_positive(self, "temperature", "hidden", "width") + too_cold(self, "temperature")
