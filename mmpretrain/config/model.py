"""Config of the encoders and the classification head (no torch here)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from mmpretrain.config.architectures import ARCHITECTURES, TRANSFORMERS_POOLS, Pool
from mmpretrain.config.kind import Kind


class VectorTokens(StrEnum):
    """What a vector becomes in the fusion: a token per feature, or one token."""

    features = "features"
    one = "one"


class FusionForm(StrEnum):
    """transformer: over the tokens of all modalities. linear: of pooled features side by side (an ablation)."""

    transformer = "transformer"
    linear = "linear"


class ProjectorForm(StrEnum):
    """two_layer: Linear - BatchNorm - ReLU - Linear - BatchNorm. half: Linear - BatchNorm - ReLU, all cosines >= 0."""

    two_layer = "two_layer"
    half = "half"


class ProjectorStart(StrEnum):
    """How a projector's matrices start."""

    xavier = "xavier"
    identity = "identity"


class ConnectedSpace(StrEnum):
    """One of two spaces that are connected."""

    first = "first"
    second = "second"


class AttentionKernel(StrEnum):
    """Implementation of an encoder's attention, under transformers' names."""

    eager = "eager"
    sdpa = "sdpa"
    flash_attention_2 = "flash_attention_2"


@dataclass
class EncoderConfig:
    """One encoder: an architecture by config, or a pretrained one.

    architecture: any transformers ``model_type`` (vit, bert, ...), ``mlp`` or ``identity`` (vectors; the latter passes
    them on), ``cnn`` (images) or ``sequence`` (sequences); config: its keyword arguments. pool: default cls, and mean
    for feature maps and sequences; unused under a fusion transformer.
    pretrained: a local folder or a Hub id, with its revision, of a transformers model or a release of ours;
    architecture, config and (of a release) pool then come from there. A release brings the encoder of its modality
    ``part`` (default: the one that is called the same), how its inputs are prepared, and its projection, if that is one
    to model.embed_dim; freeze holds for that projection, too.
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
    part: str | None = None
    tokenizer: str | None = None
    pool: Pool | None = None
    freeze: bool = False
    lr_scale: float = 1.0
    checkpointing: bool = False
    attention: AttentionKernel | None = None
    compile: bool = False

    @property
    def _pools(self) -> tuple[Pool, ...]:
        if self.pretrained:
            return tuple(Pool)
        return ARCHITECTURES[self.architecture].pools if self.architecture in ARCHITECTURES else TRANSFORMERS_POOLS

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of modalities that this architecture may encode."""
        if self.pretrained:
            return tuple(Kind)
        if self.architecture in ARCHITECTURES:
            return (ARCHITECTURES[self.architecture].kind,)
        return tuple(kind for kind in Kind if kind.row.by_transformers)

    def problems(self, name: str) -> list[str]:
        """What is wrong with this entry, one sentence each."""
        key = f"model.encoders.{name}"
        found = []
        if (self.architecture is None) == (self.pretrained is None):
            found.append(f"{key}: set exactly one of architecture (by config) and pretrained (folder or Hub id)")
        found += [
            f"{key}.{option} has no effect without {key}.pretrained"
            for option in ("revision", "part")
            if self.pretrained is None and getattr(self, option) is not None
        ]
        if self.lr_scale < 0:
            found.append(f"{key}.lr_scale is {self.lr_scale}: it must be 0 or more (use freeze=true to train nothing)")
        if self.pool is not None and self.pool not in self._pools:
            found.append(
                f"{key}.pool is {self.pool}: {self.architecture or self.pretrained} knows {', '.join(self._pools)}"
            )
        if self.architecture in ARCHITECTURES:
            found += self.without_effect(key, f"the {self.architecture}")
        if self.freeze and self.checkpointing:
            found.append(f"{key}.checkpointing=true saves nothing with freeze=true, which keeps nothing: leave it out")
        return found

    def without_effect(self, key: str, ours: str) -> list[str]:
        """The options that an architecture of ours (``ours`` in a sentence) has no use for, one sentence each."""
        set_to = {"checkpointing": "true" if self.checkpointing else None, "attention": self.attention}
        return [
            f"{key}.{option}={value} has no effect on {ours}: leave it out" for option, value in set_to.items() if value
        ]


@dataclass
class FusionConfig:
    """What makes one embedding of all modalities, for methods that fuse (comm).

    width: of the embeddings. heads, layers, and what vectors become: for form=transformer, unused by form=linear.
    """

    width: int = 256
    heads: int = 8
    layers: int = 1
    vectors: VectorTokens = VectorTokens.features
    form: FusionForm = FusionForm.transformer

    def arguments(self) -> dict[str, Any]:
        """``MMPretrainConfig.fusion``: plain values, for the release is read without this project's enumerations."""
        if self.form is FusionForm.linear:
            return {"form": self.form.value, "width": self.width}
        return {**asdict(self), "form": self.form.value, "vectors": self.vectors.value}

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = _below_one(self, "model.fusion", "width", "heads", "layers")
        if not found and self.form is FusionForm.transformer and self.width % self.heads:
            found.append(f"model.fusion.heads is {self.heads}: it must divide model.fusion.width={self.width}")
        return found


@dataclass
class FactorsConfig:
    """The heads for shared and unique information of methods that have them (factorcl): five MLPs per modality.

    hidden, width: of each head; null: as wide as the modality's embedding. layers: further hidden layers.
    """

    hidden: int | None = None
    width: int | None = None
    layers: int = 1

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = _below_one(self, "model.factors", "hidden", "width")
        if self.layers < 0:
            found.append(f"model.factors.layers is {self.layers}: it must be 0 or more")
        return found


@dataclass
class ProjectorsConfig:
    """The projectors of methods that connect two spaces of embeddings (cmcr), one per space.

    hidden: units of form=two_layer; null: twice the width of the first space. width: of the new space; null: that of
    the first, or of the unprojected one. start: of the matrices. unprojected: a space that is the new one itself; null:
    both are projected.
    """

    form: ProjectorForm = ProjectorForm.two_layer
    hidden: int | None = None
    width: int | None = None
    start: ProjectorStart = ProjectorStart.xavier
    unprojected: ConnectedSpace | None = None

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = _below_one(self, "model.projectors", "hidden", "width")
        if self.form is ProjectorForm.half and self.hidden is not None:
            found.append(
                "model.projectors.hidden has no effect with form=half, which has no hidden units: leave it out"
            )
        return found


@dataclass
class ComponentsConfig:
    """The heads for common and individual codes of methods that have them (mucmm).

    common, individual: width of the codes of every modality. individual_of: modality -> width, for those with another
    individual width. hidden: units of the heads' hidden layer; null: linear heads.
    """

    common: int = 16
    individual: int = 16
    individual_of: dict[str, int] = field(default_factory=dict)
    hidden: int | None = None

    def arguments(self, modalities: Iterable[str]) -> dict[str, Any]:
        """``MMPretrainConfig.components`` for a model of these modalities."""
        individual = {name: self.individual_of.get(name, self.individual) for name in modalities}
        return {"common": self.common, "hidden": self.hidden, "individual": individual}

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = _below_one(self, "model.components", "common", "individual", "hidden")
        return found + [
            f"model.components.individual_of.{name} is {width}: it must be at least 1"
            for name, width in self.individual_of.items()
            if width < 1
        ]


@dataclass
class ModelConfig:
    """Encoders by modality, and what sits on top.

    embed_dim: width of a bias-free linear projection per modality; null: the embedding is the pooled encoder output.
    Unused under a fusion, whose width counts.
    classifier_hidden: width of the hidden layer of every classification head (methods that learn from labels).
    fusion, factors, components, projectors: used by methods whose model has them.
    """

    embed_dim: int | None = None
    encoders: dict[str, EncoderConfig] = field(default_factory=dict)
    classifier_hidden: int = 256
    fusion: FusionConfig = field(default_factory=FusionConfig)
    factors: FactorsConfig = field(default_factory=FactorsConfig)
    components: ComponentsConfig = field(default_factory=ComponentsConfig)
    projectors: ProjectorsConfig = field(default_factory=ProjectorsConfig)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = [p for name, encoder in self.encoders.items() for p in encoder.problems(name)]
        found += _below_one(self, "model", "embed_dim", "classifier_hidden")
        sections = (self.fusion, self.factors, self.components, self.projectors)
        return found + [problem for section in sections for problem in section.problems()]


def _below_one(section: Any, where: str, *keys: str) -> list[str]:
    values = {key: getattr(section, key) for key in keys}
    return [f"{where}.{k} is {v}: it must be at least 1" for k, v in values.items() if v is not None and v < 1]
