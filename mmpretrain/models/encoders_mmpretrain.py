"""One modality's encoder: a transformers model (or our MLP) and the pooling of its output into one vector."""

from __future__ import annotations

import inspect
from typing import Any

# Its Auto classes are looked up when used: loading them here would load the module that needs this one.
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig

from .heads_mmpretrain import VectorMLP


class Encoder(nn.Module):
    """Encoder tensors of b samples -> [b, output_size].

    name: the modality, for messages. spec: ``{"architecture", "config", "pool"}`` of :class:`MMPretrainConfig`.
    An encoder whose parameters are all frozen stays in evaluation mode: no dropout, no batch statistics.
    """

    def __init__(self, name: str, spec: dict[str, Any]) -> None:
        super().__init__()
        self.name = name
        self.pool = spec["pool"]
        if spec["architecture"] == "mlp":
            self.backbone: nn.Module = VectorMLP(**spec["config"])
            self.output_size: int = spec["config"]["output_size"]
        else:
            config = backbone_config(spec)
            self.backbone = transformers.AutoModel.from_config(config, **pooling_arguments(config, self.pool))
            self.output_size = output_width(config, self.pool)

    def forward(self, **tensors: Tensor) -> Tensor:
        """Keyword tensors of the backbone, [b, ...] each -> [b, output_size].

        Raises ValueError if the backbone's main input is missing or has a wrong size.
        """
        wanted = self.backbone.main_input_name
        if wanted not in tensors:
            raise ValueError(f"modality {self.name!r} needs {wanted}, got {', '.join(sorted(tensors)) or 'nothing'}")
        try:
            output = self.backbone(**tensors)
        except ValueError as error:
            raise ValueError(f"modality {self.name!r}: {error}") from error
        if isinstance(output, Tensor):
            return output
        if self.pool == "pooler":
            return output.pooler_output.flatten(1)
        return pool_states(output.last_hidden_state, tensors.get("attention_mask"), self.pool)

    def train(self, mode: bool = True) -> Encoder:
        """Switch dropout and batch statistics on or off; a fully frozen encoder keeps them off."""
        return super().train(mode and any(p.requires_grad for p in self.parameters()))


def backbone_config(spec: dict[str, Any]) -> PreTrainedConfig:
    """The transformers config object that an encoder's entry describes."""
    return transformers.CONFIG_MAPPING[spec["architecture"]].from_dict(spec["config"])


def pooling_arguments(config: PreTrainedConfig, pool: str) -> dict[str, bool]:
    """Constructor arguments that leave an unused pooler out, where the architecture offers that."""
    model_class: Any = transformers.MODEL_MAPPING[type(config)]
    optional = "add_pooling_layer" in inspect.signature(model_class).parameters
    return {"add_pooling_layer": pool == "pooler"} if optional else {}


def output_width(config: PreTrainedConfig, pool: str) -> int:
    """Width of the pooled output. Raises ValueError for an architecture that is not a single encoder."""
    if pool == "pooler" and getattr(config, "pooler_output_size", None):
        return config.pooler_output_size
    width = getattr(config, "hidden_size", None) or (getattr(config, "hidden_sizes", None) or [None])[-1]
    if width is None or config.is_encoder_decoder:
        raise ValueError(f"architecture {config.model_type} is not a single encoder with a hidden_size")
    return width


def pool_states(states: Tensor, mask: Tensor | None, pool: str) -> Tensor:
    """Token states [b, n, w] (or a feature map [b, w, h, v]) -> [b, w]: the first one, or their mean under ``mask``.

    mask: [b, n], 1 for tokens that count; None: all do.
    """
    if states.ndim == 4:
        states = states.flatten(2).transpose(1, 2)
    if pool == "cls":
        return states[:, 0]
    if mask is None:
        return states.mean(dim=1)
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
