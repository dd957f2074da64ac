"""Config of the encoders and the classification head (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Pool(StrEnum):
    """How token states become one vector: first token, masked mean, or the model's own pooler output."""

    cls = "cls"
    mean = "mean"
    pooler = "pooler"


class Attention(StrEnum):
    """Implementation of an encoder's attention, under transformers' names."""

    eager = "eager"
    sdpa = "sdpa"
    flash_attention_2 = "flash_attention_2"


@dataclass
class EncoderConfig:
    """One encoder: an architecture by config, or a pretrained one.

    architecture: any transformers ``model_type`` (vit, bert, ...) or ``mlp`` (vectors); config: its keyword arguments.
    pretrained: a local folder or a Hub id, with its revision; architecture and config then come from there.
    tokenizer: folder or Hub id for text (default: the pretrained one's). freeze: no gradients for this encoder.
    lr_scale: its learning rate relative to optim.lr.

    How it trains, without a trace in its release: checkpointing: keep only the inputs of its layers for the backward
    pass and compute the rest again there (less memory, one more forward pass in time). attention: null for the
    architecture's own default. compile: with torch.compile, which needs a C++ compiler on every node, and gains little
    under ZeRO-3.
    """

    architecture: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    pretrained: str | None = None
    revision: str | None = None
    tokenizer: str | None = None
    pool: Pool = Pool.cls
    freeze: bool = False
    lr_scale: float = 1.0
    checkpointing: bool = False
    attention: Attention | None = None
    compile: bool = False

    def problems(self, name: str) -> list[str]:
        """What is wrong with this entry, one sentence each."""
        key = f"model.encoders.{name}"
        found = []
        if (self.architecture is None) == (self.pretrained is None):
            found.append(f"{key}: set exactly one of architecture (by config) and pretrained (folder or Hub id)")
        if self.pretrained is None and self.revision is not None:
            found.append(f"{key}.revision has no effect without {key}.pretrained")
        if self.lr_scale < 0:
            found.append(f"{key}.lr_scale is {self.lr_scale}: it must be 0 or more (use freeze=true to train nothing)")
        if self.architecture == "mlp":
            set_to = {"checkpointing": "true" if self.checkpointing else None, "attention": self.attention}
            found += [f"{key}.{k}={v} has no effect on the mlp: leave it out" for k, v in set_to.items() if v]
        if self.freeze and self.checkpointing:
            found.append(f"{key}.checkpointing=true saves nothing with freeze=true, which keeps nothing: leave it out")
        return found


@dataclass
class ModelConfig:
    """Encoders by modality, and what sits on top.

    embed_dim: width of a bias-free linear projection per modality; null: the embedding is the pooled encoder output.
    classifier_hidden: width of the hidden layer of every classification head (methods that learn from labels).
    """

    embed_dim: int | None = None
    encoders: dict[str, EncoderConfig] = field(default_factory=dict)
    classifier_hidden: int = 256

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = [p for name, encoder in self.encoders.items() for p in encoder.problems(name)]
        for key in ("embed_dim", "classifier_hidden"):
            value = getattr(self, key)
            if value is not None and value < 1:
                found.append(f"model.{key} is {value}: it must be at least 1")
        return found
