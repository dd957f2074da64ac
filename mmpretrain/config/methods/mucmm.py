"""Hyper-parameters of MUCMM (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mmpretrain.config.data import DataConfig
from mmpretrain.config.methods.base import MethodConfig, ModelParts, not_positive
from mmpretrain.config.model import ModelConfig


class Corr(StrEnum):
    """Which correlation of two codes."""

    cca = "cca"
    """Canonical correlations: codes are whitened."""

    soft = "soft"
    """Plain correlations of standardized codes (Soft-CCA)."""


class Among(StrEnum):
    """Correlation of more than two common codes."""

    pairs = "pairs"
    """The mean over all pairs."""

    maxvar = "maxvar"
    """Their agreement with one code (MAXVAR)."""


class Start(StrEnum):
    """Where linear heads start."""

    closed_form = "closed_form"
    """At the solution in closed form."""

    orthogonal = "orthogonal"
    """As random orthogonal projections."""


@dataclass
class MucmmConfig(MethodConfig):
    """MUCMM (Shi and Niethammer, arXiv 2305.03125), a reconstruction: of the paper, only title, abstract and the first
    lines of the introduction were read.

    Common and individual codes of every modality, set under ``model.components``. More in docs/methods/mucmm.md.
    """

    name: str = "mucmm"

    corr: Corr = Corr.cca
    """Which correlation of two codes is maximized and minimized."""

    among: Among = Among.pairs
    """What the correlation of more than two common codes is."""

    max_power: int = 1
    """Power of the canonical correlations whose sum is maximized: 1 or 2."""

    alpha: float = 1.0
    """Weight of all correlations that are minimized, 0 or more."""

    w_individual: float = 1.0
    """Weight, within ``alpha``, of those between the individual codes of different modalities."""

    w_own: float = 1.0
    """Weight, within ``alpha``, of those between the individual and the common code of one modality."""

    w_other: float = 1.0
    """Weight, within ``alpha``, of those between an individual code and the common code of another modality."""

    gamma: float = 0.1
    """Weight of the reconstruction of embeddings from their codes; 0 leaves it out."""

    ridge: float = 1e-4
    """What is added to variances, in units of their mean."""

    momentum: float = 0.9
    """Momentum of the running moments, from 0 to below 1; 0: the moments of the batch alone."""

    start: Start = Start.closed_form
    """Where linear heads start."""

    start_samples: int = 20_000
    """How many training samples whitening and start look at."""

    variance: float = 0.99
    """Share of the variance that whitening keeps, above 0 and at most 1."""

    contrasts = False
    implementation = "mmpretrain.methods.mucmm.Mucmm"
    title = (
        "Multimodal Understanding Through Correlation Maximization and Minimization"
        " (a reconstruction: of the paper, only title, abstract and the first lines of the introduction were read)"
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
