"""Config of the encoders and the classification head (no torch here)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from mmpretrain.config.architectures import ARCHITECTURES, TRANSFORMERS_POOLS, Pool
from mmpretrain.config.keys import PATH, PLACE
from mmpretrain.config.kind import Kind
from mmpretrain.config.lora import LoraConfig


class VectorTokens(StrEnum):
    """What a vector becomes in the fusion."""

    features = "features"
    """A token per feature."""

    one = "one"
    """One token."""


class FusionForm(StrEnum):
    """What fuses the modalities."""

    transformer = "transformer"
    """A transformer over the tokens of all modalities."""

    linear = "linear"
    """A linear map of the pooled features of all modalities side by side (an ablation)."""


class ProjectorForm(StrEnum):
    """The layers of a projector."""

    two_layer = "two_layer"
    """Linear - BatchNorm - ReLU - Linear - BatchNorm."""

    half = "half"
    """Linear - BatchNorm - ReLU, so that all cosines are 0 or more."""


class ProjectorStart(StrEnum):
    """How a projector's matrices start."""

    xavier = "xavier"
    """Random, by Glorot and Bengio's rule."""

    identity = "identity"
    """Ones on the diagonal, zeros elsewhere."""


class ConnectedSpace(StrEnum):
    """One of two spaces that are connected."""

    first = "first"
    """The first space."""

    second = "second"
    """The second space."""


class AttentionKernel(StrEnum):
    """Implementation of an encoder's attention, under transformers' names."""

    eager = "eager"
    """Plain operations, with the whole matrix of weights in memory."""

    sdpa = "sdpa"
    """torch's ``scaled_dot_product_attention``."""

    flash_attention_2 = "flash_attention_2"
    """The package flash-attn, which must be installed (CUDA GPUs only)."""


class Projection(StrEnum):
    """What becomes of the projection that a release has for an encoder."""

    kept = "kept"
    """It is taken over whatever its form (CLAP's are MLPs), and is frozen with the encoder."""

    trained = "trained"
    """It is taken over whatever its form, and learns although the encoder is frozen."""


@dataclass
class EncoderConfig:
    """One encoder: an architecture by config, or a pretrained one. Exactly one of the two keys must be set.

    The keys checkpointing, attention, padding_mask and compile say how it trains and leave no trace in its release.
    """

    architecture: str | None = None
    """An architecture that starts from random weights: any ``model_type`` of transformers (vit, bert, ...), or one of
    this project's: ``mlp``, ``leaky_mlp`` or ``identity`` (vectors; the last passes them on), ``cnn`` (images),
    ``sequence``, ``gru`` or ``causal_cnn`` (sequences). null with ``pretrained``."""

    config: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the architecture; what the data says (sizes, channels) is filled in. mlp: hidden_size,
    output_size, layers. leaky_mlp: widths, one per layer. cnn: batch_norm, and layers, a list of ``{channels, kernel,
    stride, padding, pool, pool_stride}``. sequence: width, layers, heads, ff, dropout, pre_norm. gru: width, layers,
    dropout. causal_cnn: widths, kernel, stride, and released (true: padded as in the released code of Vision & Touch,
    which sees the first steps alone). With ``pretrained`` of a transformers model they are laid over what it brings."""

    pretrained: str | None = field(default=None, metadata=PATH)
    """A local folder or a Hub id of a transformers model, or of a release of this project: architecture, config and (of
    a release) pooling come from there. A release also brings how inputs are prepared and, if it is one to
    ``model.embed_dim``, the projection of the encoder. Weights are read from safetensors only. null with
    ``architecture``."""

    revision: str | None = None
    """Branch, tag or commit of ``pretrained`` on the Hub; null: the newest of its main branch."""

    part: str | None = None
    """The modality whose encoder is taken from a release; null: the one that is called the same."""

    tokenizer: str | None = field(default=None, metadata=PATH | PLACE)
    """Texts: folder or Hub id of the tokenizer; null: the one of ``pretrained``."""

    feature_extractor: str | None = field(default=None, metadata=PATH)
    """Sounds: folder or Hub id of the feature extractor; null: the one of ``pretrained``, or one that is made to fit
    ``architecture``."""

    pool: Pool | None = None
    """How the encoder's states become one vector; null: as a folder of sentence-transformers says (cls, mean or last),
    else as its architecture has it, which is last for causal texts (gpt2, llama, CLIP's), cls where a first token
    stands for the whole (bert, vit), mean otherwise (feature maps, sequences); of sounds CLAP's and a pretrained AST's
    own pooling, else the mean of the frames that hold sound. Must be null under a fusion transformer, which takes the
    states themselves."""

    freeze: bool = False
    """Whether the encoder stays as it is (no gradients), and with it the projection that comes with a release."""

    projection: Projection | None = None
    """Of ``pretrained`` by a release: what becomes of its projection; null: it is taken over if it is linear, and
    frozen with the encoder."""

    lr_scale: float = 1.0
    """Learning rate of this encoder relative to ``optim.lr``, 0 or more."""

    projection_lr_scale: float | None = None
    """Learning rate of its projection relative to ``optim.lr``, 0 or more; null: ``lr_scale``."""

    checkpointing: bool = False
    """Whether only the inputs of its layers are kept for the backward pass and the rest is computed again there: less
    memory, for the time of one more forward pass. Of transformers' architectures and ``sequence`` only."""

    attention: AttentionKernel | None = None
    """Implementation of its attention; null: the architecture's own default. transformers' architectures only."""

    padding_mask: bool = True
    """Whether its attention is told which tokens are padding. false: for an encoder of texts that looks back alone
    (GPT-2, Llama, CLIP's), which padding behind a text does not touch: torch then takes its flash kernel for texts of
    several lengths, too. Tried before the run starts, and refused where it changes an embedding; its release does not
    know of it. transformers' architectures only."""

    compile: bool = False
    """Whether it goes through ``torch.compile``, which needs a C++ compiler on every node and gains little under
    ZeRO-3."""

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
        return tuple(kind for kind in Kind if kind.row.transformers_models)

    def problems(self, name: str) -> list[str]:
        """What is wrong with this entry, one sentence each."""
        key = f"model.encoders.{name}"
        found = []
        if (self.architecture is None) == (self.pretrained is None):
            found.append(f"{key}: set exactly one of architecture (by config) and pretrained (folder or Hub id)")
        found += [
            f"{key}.{option} has no effect without {key}.pretrained"
            for option in ("revision", "part", "projection")
            if self.pretrained is None and getattr(self, option) is not None
        ]
        if self.lr_scale < 0:
            found.append(f"{key}.lr_scale is {self.lr_scale}: it must be 0 or more (use freeze=true to train nothing)")
        if self.projection_lr_scale is not None and self.projection_lr_scale < 0:
            found.append(f"{key}.projection_lr_scale is {self.projection_lr_scale}: it must be 0 or more")
        if self.pool is not None and self.pool not in self._pools:
            found.append(
                f"{key}.pool is {self.pool}: {self.architecture or self.pretrained} knows {', '.join(self._pools)}"
            )
        if self.architecture in ARCHITECTURES:
            checkpointed = ARCHITECTURES[self.architecture].checkpointed
            found += self.without_effect(key, f"the {self.architecture}", checkpointed=checkpointed)
        if self.freeze and self.checkpointing:
            found.append(f"{key}.checkpointing=true saves nothing with freeze=true, which keeps nothing: leave it out")
        return found

    def without_effect(self, key: str, ours: str, *, checkpointed: bool = False) -> list[str]:
        """The options that an own architecture (``ours`` in a sentence) has no use for, one sentence each.

        checkpointed: whether it has layers whose activations can be computed again.
        """
        set_to = {
            "checkpointing": "true" if self.checkpointing and not checkpointed else None,
            "attention": self.attention,
            "padding_mask": None if self.padding_mask else "false",
        }
        return [
            f"{key}.{option}={value} has no effect on {ours}: leave it out" for option, value in set_to.items() if value
        ]


@dataclass
class FusionConfig:
    """What makes one embedding of all modalities, for methods that fuse (comm)."""

    width: int = 256
    """Width of the embeddings."""

    heads: int = 8
    """Attention heads; must divide the width. Unused by ``form=linear``."""

    layers: int = 1
    """Transformer layers. Unused by ``form=linear``."""

    vectors: VectorTokens = VectorTokens.features
    """What a vector becomes in the fusion. Unused by ``form=linear``."""

    form: FusionForm = FusionForm.transformer
    """What fuses the modalities."""

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
    """The heads for shared and unique information of methods that have them (factorcl): five MLPs per modality."""

    hidden: int | None = None
    """Hidden units of each head; null: as wide as the modality's embedding."""

    width: int | None = None
    """Width of what each head gives; null: as wide as the modality's embedding."""

    layers: int = 1
    """Further hidden layers after the first, 0 or more."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = _below_one(self, "model.factors", "hidden", "width")
        if self.layers < 0:
            found.append(f"model.factors.layers is {self.layers}: it must be 0 or more")
        return found


@dataclass
class ProjectorsConfig:
    """The projectors of methods that connect two spaces of embeddings (cmcr), one per space."""

    form: ProjectorForm = ProjectorForm.two_layer
    """The layers of a projector."""

    hidden: int | None = None
    """Hidden units of ``form=two_layer``; null: twice the width of the first space."""

    width: int | None = None
    """Width of the new space; null: that of the first space, or of the unprojected one."""

    start: ProjectorStart = ProjectorStart.xavier
    """How the projectors' matrices start."""

    unprojected: ConnectedSpace | None = None
    """The space that is the new one itself; null: both are projected."""

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
    """The heads for common and individual codes of methods that have them (mucmm)."""

    common: int = 16
    """Width of the common code of every modality."""

    individual: int = 16
    """Width of the individual code of every modality."""

    individual_of: dict[str, int] = field(default_factory=dict)
    """Modality -> width of its individual code, for those with another one than ``individual``."""

    hidden: int | None = None
    """Units of the heads' hidden layer; null: linear heads."""

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
    """Encoders by modality, and what sits on top of them."""

    embed_dim: int | None = None
    """Width of the embeddings, made by a linear projection without bias per modality; null: the embedding is the pooled
    output of the encoder. Unused under a fusion, whose width counts."""

    encoders: dict[str, EncoderConfig] = field(default_factory=dict)
    """The encoders by modality: the same names as in ``data.modalities``. ``model.encoders.NAME=null`` takes one
    out."""

    classifier_hidden: int = 256
    """Units of the hidden layer of every classification head (methods that learn from labels)."""

    classifier_dropout: float = 0.0
    """Share of these units that are set to 0 while training, from 0 to below 1."""

    fusion: FusionConfig = field(default_factory=FusionConfig)
    """What makes one embedding of all modalities, for methods that fuse (comm)."""

    factors: FactorsConfig = field(default_factory=FactorsConfig)
    """The heads for shared and unique information (factorcl)."""

    components: ComponentsConfig = field(default_factory=ComponentsConfig)
    """The heads for common and individual codes (mucmm)."""

    projectors: ProjectorsConfig = field(default_factory=ProjectorsConfig)
    """The projectors of two connected spaces (cmcr)."""

    lora: LoraConfig = field(default_factory=LoraConfig)
    """Small trained matrices beside the frozen weights of encoders."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = [p for name, encoder in self.encoders.items() for p in encoder.problems(name)]
        found += _below_one(self, "model", "embed_dim", "classifier_hidden")
        if not 0 <= self.classifier_dropout < 1:
            found.append(f"model.classifier_dropout is {self.classifier_dropout}: it must be from 0 to below 1")
        sections = (self.fusion, self.factors, self.components, self.projectors)
        found += [problem for section in sections for problem in section.problems()]
        return found + self.lora.problems(self.encoders)


def _below_one(section: Any, where: str, *keys: str) -> list[str]:
    values = {key: getattr(section, key) for key in keys}
    return [f"{where}.{k} is {v}: it must be at least 1" for k, v in values.items() if v is not None and v < 1]
