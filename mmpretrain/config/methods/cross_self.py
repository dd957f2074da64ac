"""Hyper-parameters of the baseline Cross+Self (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mmpretrain.config.data import DataConfig
from mmpretrain.config.methods.base import MethodConfig, not_positive, too_cold, too_few
from mmpretrain.config.objective import LARGEST_SCALE


class CrossLoss(StrEnum):
    """How modalities are compared with one another."""

    nt_xent = "nt_xent"
    """NT-Xent, through the same heads as the views."""

    clip = "clip"
    """CLIP's loss, through linear projectors of its own."""


class CrossInputs(StrEnum):
    """What the modalities are compared on."""

    plain = "plain"
    """The plain inputs."""

    view = "view"
    """The first augmented view, which saves one of three passes through the encoders."""


@dataclass
class CrossSelfConfig(MethodConfig):
    """Cross+Self, in the manner of SLIP (Mu et al., arXiv 2112.12750), as a baseline of CoMM and FactorCL.

    The views are set under ``data.modalities.NAME.augment``. More in docs/methods/baselines.md.
    """

    name: str = "cross_self"

    cross: CrossLoss = CrossLoss.nt_xent
    """The loss between modalities."""

    cross_inputs: CrossInputs = CrossInputs.plain
    """What the loss between modalities looks at."""

    self_weight: float = 0.5
    """Weight of the sum over modalities of NT-Xent between two augmented views; 0: between modalities only, and no
    views are made."""

    temperature: float = 0.1
    """Temperature of NT-Xent; fixed."""

    hidden: int = 1024
    """Hidden units of each modality's projection head, which does not ship."""

    width: int = 256
    """Width of what the projection heads give."""

    clip_temperature: float = 0.07
    """``cross=clip``: initial value of its learned temperature."""

    max_scale: float = 100.0
    """``cross=clip``: upper limit of 1 / temperature while it is learned."""

    clip_width: int = 512
    """``cross=clip``: width of its linear projectors."""

    takes_margin = True
    implementation = "mmpretrain.methods.cross_self.CrossSelf"
    title = "Cross+Self, after SLIP: Self-supervision meets Language-Image Pre-training"
    arxiv = "2112.12750"

    @property
    def augments(self) -> bool:
        """The self terms compare augmented views."""
        return self.self_weight > 0

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = not_positive(self, "temperature", "hidden", "width", "clip_temperature", "max_scale", "clip_width")
        found += too_cold(self, "temperature", "clip_temperature")
        if self.max_scale > LARGEST_SCALE:
            found.append(f"method.max_scale is {self.max_scale}: it must be at most {LARGEST_SCALE:g}")
        if not found and 1 / self.clip_temperature > self.max_scale:
            found.append(
                f"method.clip_temperature {self.clip_temperature} starts above method.max_scale {self.max_scale}:"
                f" use at least {1 / self.max_scale:g}"
            )
        return found + self._self_terms()

    def data_problems(self, data: DataConfig) -> list[str]:
        """What this dataset lacks for the method, one sentence each."""
        return super().data_problems(data) + too_few(data)

    def _self_terms(self) -> list[str]:
        if self.self_weight < 0:
            return [f"method.self_weight is {self.self_weight}: it must be 0 or more"]
        if self.augments:
            return []
        found = []
        if self.cross is CrossLoss.clip:
            found.append("method.cross=clip with method.self_weight=0 leaves CLIP alone: choose method=clip")
        if self.cross_inputs is CrossInputs.view:
            found.append("method.cross_inputs=view needs the views of method.self_weight above 0: use plain")
        return found
