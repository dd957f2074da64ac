"""Config of LoRA (Hu et al., 2021, arXiv 2106.09685): small trained matrices beside frozen layers (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mmpretrain.config.architectures import ARCHITECTURES

KEY = "model.lora"
INSTALL = "pip install 'mmpretrain-contrastive[finetune]'"


class Trains(Protocol):
    """What is asked of an encoder's config."""

    architecture: str | None
    freeze: bool


Encoders = Mapping[str, Trains]


@dataclass
class LoraConfig:
    """LoRA in encoders: their weights W stay as they are, and W + (alpha / rank) B A is computed in chosen layers.

    A and B are trained (by the package peft), and with them whatever is no encoder: projections, fusion, heads. B
    starts at zero, so that training starts from the encoder as it is. The release holds the sum, and A and B beside it.
    """

    rank: int | None = None
    """Rows of A and columns of B; null: no LoRA, encoders train whole."""

    alpha: float | None = None
    """The product counts ``alpha / rank`` times; null: twice the rank."""

    dropout: float = 0.0
    """Share of a layer's inputs that A does not see in a step, from 0 to below 1."""

    targets: list[str] | None = None
    """The linear layers that get an A and a B, by the end of their names in the encoder: ``query`` stands for
    ``encoder.layer.0.attention.self.query`` and those of all other layers. null: every linear layer of attention and
    MLP, not those of embeddings and poolers."""

    modalities: list[str] = field(default_factory=list)
    """The encoders that get LoRA, by modality; the others train as they would without. Empty: all that are not
    frozen."""

    @property
    def scaling(self) -> float:
        """How often B A counts. Only of a config with a rank."""
        assert self.rank is not None
        return (2.0 * self.rank if self.alpha is None else self.alpha) / self.rank

    def adapted(self, encoders: Encoders) -> list[str]:
        """The modalities whose encoders get LoRA, in the order of ``encoders``."""
        if self.rank is None:
            return []
        asked = self.modalities or list(encoders)
        return [name for name, encoder in encoders.items() if name in asked and not encoder.freeze]

    def problems(self, encoders: Encoders) -> list[str]:
        """What is wrong with this section for a model with these encoders, one sentence each."""
        if self.rank is None:
            return [f"{KEY}.{key} has no effect without {KEY}.rank: set that, or leave it out" for key in self._set]
        return self._sizes() + self._choice(encoders)

    @property
    def _set(self) -> list[str]:
        usual = LoraConfig()
        return [k for k in ("alpha", "dropout", "targets", "modalities") if getattr(self, k) != getattr(usual, k)]

    def _sizes(self) -> list[str]:
        found = []
        if self.rank is not None and self.rank < 1:
            found.append(f"{KEY}.rank is {self.rank}: it must be at least 1, or null for no LoRA")
        if self.alpha is not None and self.alpha <= 0:
            found.append(f"{KEY}.alpha is {self.alpha}: it must be above 0")
        if not 0 <= self.dropout < 1:
            found.append(f"{KEY}.dropout is {self.dropout}: it must be from 0 to below 1")
        if self.targets is not None and not all(self.targets):
            found.append(f"{KEY}.targets holds an empty name: name ends of layers' names, such as query")
        if self.targets == []:
            found.append(f"{KEY}.targets is empty, so that no layer gets LoRA: name some, or null for all")
        return found

    def _choice(self, encoders: Encoders) -> list[str]:
        found = []
        for name in self.modalities:
            if name not in encoders:
                known = ", ".join(encoders) or "none with this method"
                found.append(f"{KEY}.modalities names {name!r}, and there is no such encoder: there are {known}")
            elif encoders[name].freeze:
                found.append(
                    f"{KEY}.modalities names {name!r}, which does not train (model.encoders.{name}.freeze=true): leave"
                    " out one of the two; LoRA freezes what it stands beside by itself"
                )
        if not found and not self.adapted(encoders):
            why = "every encoder is frozen" if encoders else "this model has no encoders"
            found.append(f"{KEY}.rank is {self.rank}, and {why}: set {KEY}.rank=null, or let an encoder train")
        for name in self.adapted(encoders):
            if (architecture := encoders[name].architecture) in ARCHITECTURES:
                found.append(no_layers(name, f"of this project's own ({architecture})", self.others(name, encoders)))
        return found

    def others(self, without: str, encoders: Encoders) -> list[str]:
        """The modalities with LoRA apart from one, and apart from architectures of this project."""
        found = self.adapted(encoders)
        return [name for name in found if name != without and encoders[name].architecture not in ARCHITECTURES]


def no_layers(name: str, what: str, others: list[str]) -> str:
    """That an encoder is none of transformers. others: the modalities that could have LoRA without it."""
    way = f"set {KEY}.modalities=[{','.join(others)}], and it trains whole" if others else f"set {KEY}.rank=null"
    return f"{KEY}: encoder {name} is {what}, and LoRA is for those of transformers: {way}"
