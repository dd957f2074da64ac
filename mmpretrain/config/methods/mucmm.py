"""Hyper-parameters of MUCMM (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mmpretrain.config.data import DataConfig
from mmpretrain.config.methods.base import MethodConfig, ModelParts, not_positive
from mmpretrain.config.model import ModelConfig


class Corr(StrEnum):
    """cca: canonical correlations (codes are whitened). soft: plain correlations of standardized codes (Soft-CCA)."""

    cca = "cca"
    soft = "soft"


class Among(StrEnum):
    """Correlation of more than two common codes: mean over the pairs, or their agreement with one code (MAXVAR)."""

    pairs = "pairs"
    maxvar = "maxvar"


class Start(StrEnum):
    """Where linear heads start: at the solution in closed form, or as random orthogonal projections."""

    closed_form = "closed_form"
    orthogonal = "orthogonal"


@dataclass
class MucmmConfig(MethodConfig):
    """MUCMM (Shi and Niethammer, arXiv 2305.03125), as reconstructed from its abstract.

    corr, among: which correlation. max_power: of the canonical correlations that are maximized, 1 (their sum) or 2.
    alpha: weight of all that is minimized; w_individual (individual with individual codes), w_own, w_other (individual
    with the common code of the same, of another modality): of its parts. gamma: of the reconstruction. ridge: added to
    variances, in units of their mean. momentum: of the running moments, 0: those of the batch alone.
    start: of linear heads. start_samples: how many training samples whitening and start look at. variance: share of it
    that whitening keeps.
    """

    name: str = "mucmm"
    corr: Corr = Corr.cca
    among: Among = Among.pairs
    max_power: int = 1
    alpha: float = 1.0
    w_individual: float = 1.0
    w_own: float = 1.0
    w_other: float = 1.0
    gamma: float = 0.1
    ridge: float = 1e-4
    momentum: float = 0.9
    start: Start = Start.closed_form
    start_samples: int = 20_000
    variance: float = 0.99

    contrasts = False
    implementation = "mmpretrain.methods.mucmm.Mucmm"
    title = (
        "Multimodal Understanding Through Correlation Maximization and Minimization"
        " (a reconstruction from its abstract; the paper's formulas were not available)"
    )
    arxiv = "2305.03125"

    def model_parts(self, model: ModelConfig, data: DataConfig) -> ModelParts:
        """With heads for common and individual codes."""
        return ModelParts(embed_dim=model.embed_dim, components=model.components.arguments(data.modalities))

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = not_positive(self, "ridge", "start_samples")
        for key in ("alpha", "w_individual", "w_own", "w_other", "gamma"):
            if getattr(self, key) < 0:
                found.append(f"method.{key} is {getattr(self, key)}: it must be 0 or more")
        if not 0 <= self.momentum < 1:
            found.append(f"method.momentum is {self.momentum}: it must be at least 0 and below 1")
        if not 0 < self.variance <= 1:
            found.append(f"method.variance is {self.variance}: it must be above 0 and at most 1")
        return found + self._correlation_problems()

    def _correlation_problems(self) -> list[str]:
        found = []
        if self.max_power not in (1, 2):
            found.append(f"method.max_power is {self.max_power}: it must be 1 or 2")
        elif self.max_power == 2 and (self.corr is Corr.soft or self.among is Among.maxvar):
            found.append("method.max_power=2 goes with method.corr=cca and method.among=pairs: leave it out")
        if self.corr is Corr.soft and self.among is Among.maxvar:
            found.append("method.among=maxvar goes with method.corr=cca: leave it out")
        return found

    def data_problems(self, data: DataConfig) -> list[str]:
        """What this dataset lacks for the method, one sentence each."""
        found = super().data_problems(data)
        if len(data.modalities) < 2:
            found.append(f"method=mucmm correlates modalities: data.modalities has {len(data.modalities)} of them")
        return found

    def model_problems(self, model: ModelConfig, data: DataConfig) -> list[str]:
        """Widths of modalities that are not there, and codes too wide for the batch."""
        widths, batch = model.components.arguments(data.modalities), data.global_batch
        found = [
            f"model.components.individual_of.{name}: data.modalities has no {name}, only {', '.join(data.modalities)}"
            for name in model.components.individual_of
            if name not in data.modalities
        ]
        widest = max([widths["common"], *widths["individual"].values()])
        # Centered codes of n samples lie in n - 1 dimensions, where two spaces of more than half as many always meet.
        if self.corr is Corr.cca and not self.momentum and batch <= 2 * widest:
            found.append(
                f"data.global_batch is {batch}: any two codes of {widest} dimensions correlate perfectly in so few"
                f" samples; use more than {2 * widest} (20 times the width is advisable), or method.momentum=0.9"
            )
        return found
