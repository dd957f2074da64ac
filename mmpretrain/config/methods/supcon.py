"""Hyper-parameters of SupCon (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass

from mmpretrain.config.methods.base import MethodConfig, not_positive, too_cold


@dataclass
class SupconConfig(MethodConfig):
    """SupCon (Khosla et al. 2020, arXiv 2004.11362), the modalities of a sample being its views. Needs labels.

    More in docs/methods/baselines.md.
    """

    name: str = "supcon"

    temperature: float = 0.07
    """Divides cosine similarities; fixed."""

    hidden: int = 2048
    """Hidden units of each modality's projection head (Linear - ReLU - Linear), which does not ship."""

    width: int = 128
    """Width of what the projection heads give."""

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
