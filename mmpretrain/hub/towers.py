"""The towers of CLIP, SigLIP and CLAP of transformers as encoders and projections of this project, weights and all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import MODEL_MAPPING

from mmpretrain.assembly.transformers_encoder import architecture_entry
from mmpretrain.config.kind import Kind
from mmpretrain.config.model import Pool
from mmpretrain.models.audio_mmpretrain import audio_class
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.similarity_mmpretrain import SIGMOID, SOFTMAX
from mmpretrain.problems import UnusableError, one_line


class Names(NamedTuple):
    """What the parts of a tower are called in a model of transformers: itself, its projection, and its config."""

    tower: str
    projection: str
    config: str


NAMES = {
    Kind.image: Names("vision_model", "visual_projection", "vision_config"),
    Kind.audio: Names("audio_model", "audio_projection", "audio_config"),
    Kind.text: Names("text_model", "text_projection", "text_config"),
}


class Tower:
    """One tower of ``model``, a CLIP, SigLIP or CLAP of transformers; source: its name, for messages.

    module, projection: its parts; a SigLIP's has no projection. masked: whether texts come with a mask. Raises
    UnusableError for a tower of another form.
    """

    def __init__(self, source: str, model: Any, kind: Kind, masked: bool = True) -> None:
        self.source, self.kind, self.masked = source, kind, masked
        names = NAMES[kind]
        self.found = model.config.model_type
        self.module: Any = getattr(model, names.tower, None)
        self.projection: Any = getattr(model, names.projection, None)
        self.config: Any = getattr(model.config, names.config, None)
        if self.module is None or self.config is None or not self._projects():
            raise UnusableError(
                [
                    f"{source}: a {self.found} has no {names.tower} whose {names.projection} is linear without bias, as"
                    " CLIP's, an MLP with ReLU, as CLAP's, or left out, as SigLIP's"
                ]
            )
        if type(self.config) not in MODEL_MAPPING and audio_class(self.config) is None:
            raise UnusableError(
                [f"{source}: transformers has no model of a {self.config.model_type} alone, so it cannot be an encoder"]
            )

    def _projects(self) -> bool:
        """Whether a projection of this project can be what this one is."""
        if isinstance(self.projection, nn.Linear):
            return self.projection.bias is None
        return self.projection is None or (
            [name for name, _ in self.projection.named_children()] == ["linear1", "activation", "linear2"]
            and isinstance(self.projection.activation, nn.ReLU)
        )

    @property
    def entry(self) -> dict[str, Any]:
        """The encoder in ``MMPretrainConfig.encoders``."""
        return architecture_entry(self.config, Pool.pooler, self.masked)

    @property
    def form(self) -> dict[str, Any] | None:
        """Its projection in ``MMPretrainConfig.projections``; None for one that is linear, or missing."""
        if self.projection is None or isinstance(self.projection, nn.Linear):
            return None
        return {"hidden": self.projection.linear1.out_features, "normalized": True}

    @property
    def width(self) -> int | None:
        """What its projection projects to; None without one."""
        if self.projection is None or isinstance(self.projection, nn.Linear):
            return None if self.projection is None else self.projection.out_features
        width: int = self.projection.linear2.out_features
        return width

    def fill(self, model: MMPretrainModel, name: str) -> None:
        """Give the encoder and the projection of modality ``name`` in ``model`` its weights. Raises UnusableError."""
        self._load(model.get_submodule(f"encoders.{name}.backbone"), self.module.state_dict())
        if self.projection is not None:
            self._load(model.projections[name], _renamed(self.projection.state_dict()))

    def _load(self, ours: nn.Module, weights: Mapping[str, Tensor]) -> None:
        try:
            ours.load_state_dict(weights)
        except RuntimeError as error:
            raise UnusableError([f"{self.source}: its encoders cannot stand alone here ({one_line(error)})"]) from error


def similarity_of(model: Any) -> dict[str, Any] | None:
    """``MMPretrainConfig.similarity`` of a model of transformers; None where it has no scale."""
    if hasattr(model, "logit_scale"):
        return {"form": SIGMOID if hasattr(model, "logit_bias") else SOFTMAX}
    return {"form": SOFTMAX, "per_modality": True} if hasattr(model, "logit_scale_t") else None


def learned_scales(model: Any, kinds: Sequence[Kind]) -> dict[str, Tensor]:
    """Its scale and bias under this project's names, [1] each, or of a CLAP the scale of every modality; kinds: theirs,
    in their order."""
    if hasattr(model, "logit_scale_t"):
        scales = {Kind.audio: model.logit_scale_a, Kind.text: model.logit_scale_t}
        return {"logit_scale": torch.stack([scales[kind].detach().reshape(()) for kind in kinds])}
    names = [name for name in ("logit_scale", "logit_bias") if hasattr(model, name)]
    return {name: getattr(model, name).detach().reshape(1) for name in names}


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLAP's names of the layers of its projections as those of :class:`MLPProjection`."""
    ours = {"linear1": "hidden", "linear2": "output"}
    return {".".join(ours.get(part, part) for part in name.split(".")): tensor for name, tensor in weights.items()}
