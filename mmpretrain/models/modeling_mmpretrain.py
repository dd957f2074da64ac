"""The model that ships: an encoder per modality, optional projections, and an optional classifier over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_mmpretrain import MMPretrainConfig
from .encoders_mmpretrain import Encoder
from .heads_mmpretrain import MLPHead, init_linear


@dataclass
class MMPretrainOutput(ModelOutput):
    """What the model gives for b samples; what the training method does not learn is None.

    logits: [b, num_labels], only if every modality was passed. embeds: modality -> [b, d], not normalised (divide by
    the norm before taking cosine similarities). fused_embeds: [b, d] of all passed modalities together.
    shared_embeds, unique_embeds: modality -> [b, d], what it shares with the others and what only it knows.
    """

    # ModelOutput takes a lone dict in its first field for its own content, so a tensor stands there.
    logits: Tensor | None = None
    embeds: dict[str, Tensor] | None = None
    fused_embeds: Tensor | None = None
    shared_embeds: dict[str, Tensor] | None = None
    unique_embeds: dict[str, Tensor] | None = None


class MMPretrainModel(PreTrainedModel):
    """One encoder per modality; see :class:`MMPretrainConfig` for what can sit on top.

    embed_sizes: modality -> width of its embedding.
    """

    config_class = MMPretrainConfig
    base_model_prefix = ""
    _auto_class = "AutoModel"
    _supports_sdpa = True
    embed_sizes: dict[str, int]

    def __init__(self, config: MMPretrainConfig) -> None:
        super().__init__(config)
        encoders = {name: Encoder(name, config.encoders[name]) for name in config.modalities}
        self.encoders = nn.ModuleDict(encoders)
        self.projections = nn.ModuleDict()
        self.embed_sizes = {name: config.embed_dim or encoder.output_size for name, encoder in encoders.items()}
        if config.embed_dim is not None:
            for name, encoder in encoders.items():
                self.projections[name] = nn.Linear(encoder.output_size, config.embed_dim, bias=False)
        self.classifier: MLPHead | None = None
        if config.classifier_hidden is not None and config.num_labels is not None:
            self.classifier = MLPHead(sum(self.embed_sizes.values()), config.classifier_hidden, config.num_labels)
        self.post_init()

    def forward(self, /, **inputs: dict[str, Tensor]) -> MMPretrainOutput:
        """Encode any of the modalities: modality -> keyword tensors of its encoder, with b samples each.

        ``{"pixel_values": [b, c, h, w]}`` for images, ``{"input_ids": [b, n], "attention_mask": [b, n]}`` for texts,
        ``{"values": [b, features]}`` for vectors: what :class:`MMPretrainProcessor` returns.
        Raises ValueError for no modality, an unknown one, or tensors that its encoder cannot take.
        """
        self._check(inputs)
        embeds = {name: self._embed(name, inputs[name]) for name in self.config.modalities if name in inputs}
        logits = None
        if self.classifier is not None and len(embeds) == len(self.config.modalities):
            logits = self.classifier(torch.cat(list(embeds.values()), dim=1))
        return MMPretrainOutput(logits=logits, embeds=embeds)

    def get_embeds(self, /, **inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Only the embeddings of :meth:`forward`: modality -> [b, d], not normalised."""
        embeds = self(**inputs).embeds
        assert embeds is not None
        return embeds

    def _embed(self, name: str, tensors: dict[str, Tensor]) -> Tensor:
        embed = self.encoders[name](**tensors)
        return self.projections[name](embed) if name in self.projections else embed

    def _check(self, inputs: dict[str, Any]) -> None:
        known = ", ".join(self.config.modalities)
        if not inputs:
            raise ValueError(f"no modality was passed: give at least one of {known}")
        for name, tensors in inputs.items():
            if name not in self.encoders:
                raise ValueError(f"unknown modality {name!r}: this model has {known}")
            if not isinstance(tensors, dict):
                raise ValueError(f"modality {name!r} is a {type(tensors).__name__}: pass a dict of its tensors")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init_linear(module)
