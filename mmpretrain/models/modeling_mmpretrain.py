"""The model that ships: an encoder per modality, and what the method puts on top of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from .components_mmpretrain import Components
from .configuration_mmpretrain import MMPretrainConfig
from .connected_mmpretrain import Connection
from .convolution_mmpretrain import init_convolution
from .dual_mmpretrain import DualModel
from .encoders_mmpretrain import Encoder
from .factors_mmpretrain import FactorHeads
from .fusion_mmpretrain import Fusion
from .heads_mmpretrain import MLPHead, init_linear
from .linear_fusion_mmpretrain import LinearFusion
from .tools_mmpretrain import ToolsMixin

# Among a modality's tensors: bool [b], which samples have it.
PRESENT = "present"


@dataclass
class MMPretrainOutput(ModelOutput):
    """What the model gives for b samples; what the training method does not learn is None.

    logits: [b, num_labels], only if every modality was passed. embeds: modality -> [b, d], not normalized (divide by
    the norm before taking cosine similarities). fused_embeds: [b, d] of all passed modalities together.
    shared_embeds, unique_embeds: what each modality shares with the others and what only it knows: modality -> [b, 2 w]
    and [b, 3 w], head by head as in :class:`FactorHeads`, or [b, common] and [b, individual] of :class:`Components`.
    """

    # ModelOutput takes a lone dict in its first field for its own content, so a tensor stands there.
    logits: Tensor | None = None
    embeds: dict[str, Tensor] | None = None
    fused_embeds: Tensor | None = None
    shared_embeds: dict[str, Tensor] | None = None
    unique_embeds: dict[str, Tensor] | None = None


class MMPretrainModel(ToolsMixin):
    """One encoder per modality; see :class:`MMPretrainConfig` for what can sit on top.

    embed_sizes: modality -> width of its embedding.
    """

    config_class = MMPretrainConfig
    base_model_prefix = ""
    _auto_class = "AutoModel"
    embed_sizes: dict[str, int]

    def __init__(self, config: MMPretrainConfig) -> None:
        super().__init__(config)
        encoders = {
            name: Encoder(name, config.encoders[name], config.attention_of(name))
            for name in config.modalities
            if name in config.encoders
        }
        self.encoders = nn.ModuleDict(encoders)
        self.projections = nn.ModuleDict()
        self.embed_sizes = {name: config.embed_dim or encoder.output_size for name, encoder in encoders.items()}
        if config.embed_dim is not None:
            for name, encoder in encoders.items():
                self.projections[name] = nn.Linear(encoder.output_size, config.embed_dim, bias=False)
        self.fusion: Fusion | LinearFusion | None = None
        if config.fusion is not None:
            self.fusion = _fusion(encoders, **config.fusion)
            self.embed_sizes = dict.fromkeys(encoders, self.fusion.width)
        self.connection: Connection | None = None
        if config.connection is not None:
            self.connection = Connection(**config.connection, build=self._model_of_space)
            self.embed_sizes = dict.fromkeys(config.modalities, self.connection.width)
        self.factors = nn.ModuleDict()
        if config.factors is not None:
            for name, size in self.embed_sizes.items():
                self.factors[name] = FactorHeads(size, **config.factors)
        self.components = nn.ModuleDict()
        if config.components is not None:
            common, hidden = config.components["common"], config.components["hidden"]
            for name, size in self.embed_sizes.items():
                self.components[name] = Components(size, common, config.components["individual"][name], hidden)
        self.classifier: MLPHead | None = None
        if config.classifier_hidden is not None and config.num_labels is not None:
            self.classifier = MLPHead(sum(self.embed_sizes.values()), config.classifier_hidden, config.num_labels)
        self.post_init()

    def forward(self, /, **inputs: dict[str, Tensor]) -> MMPretrainOutput:
        """Encode any of the modalities: modality -> keyword tensors of its encoder, with b samples each.

        ``{"pixel_values": [b, c, h, w]}`` for images, ``{"input_ids": [b, n], "attention_mask": [b, n]}`` for texts,
        ``{"values": [b, features]}`` for vectors, ``{"values": [b, T, features], "attention_mask": [b, T]}`` for
        sequences: what :class:`MMPretrainProcessor` returns. ``present`` (bool [b]) beside them says which samples have
        the modality; a fusion leaves it out in the others. Embeddings of a modality that a sample lacks mean nothing.
        Raises ValueError for no modality, an unknown one, or tensors that its encoder cannot take.
        """
        self._check(inputs)
        embeds, fused = self._embeds({name: inputs[name] for name in self.config.modalities if name in inputs})
        logits = None
        if self.classifier is not None and len(embeds) == len(self.config.modalities):
            logits = self.classifier(torch.cat(list(embeds.values()), dim=1))
        parts = self.factors or self.components
        factors = {name: parts[name](embed) for name, embed in embeds.items()} if parts else None
        return MMPretrainOutput(
            logits=logits,
            embeds=embeds,
            fused_embeds=fused,
            shared_embeds={name: shared for name, (shared, _) in factors.items()} if factors else None,
            unique_embeds={name: unique for name, (_, unique) in factors.items()} if factors else None,
        )

    def get_embeds(self, /, **inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Only the embeddings of :meth:`forward`: modality -> [b, d], not normalized."""
        embeds = self(**inputs).embeds
        assert embeds is not None
        return embeds

    def _embeds(self, inputs: dict[str, dict[str, Tensor]]) -> tuple[dict[str, Tensor], Tensor | None]:
        """Modality -> [b, d], and the embedding of all of them if there is a fusion."""
        present = {name: tensors[PRESENT] for name, tensors in inputs.items() if PRESENT in tensors}
        if self.connection is not None:
            return self.connection(inputs), None
        given = {name: {k: t for k, t in tensors.items() if k != PRESENT} for name, tensors in inputs.items()}
        if isinstance(self.fusion, Fusion):
            encoders: Any = self.encoders
            return self.fusion({name: encoders[name].states(**tensors) for name, tensors in given.items()}, present)
        embeds = {name: self.encoders[name](**tensors) for name, tensors in given.items()}
        if self.fusion is not None:
            return self.fusion(embeds, present)
        return {n: self.projections[n](embed) if n in self.projections else embed for n, embed in embeds.items()}, None

    def _model_of_space(self, entry: Mapping[str, Any]) -> nn.Module:
        """A model of this very class, which may be a connection itself, or one of transformers with several towers."""
        if "dual" in entry:
            return DualModel(**entry["dual"], attention=self.config.attention_of(""))
        return type(self)(MMPretrainConfig(**entry, attn_implementation=self.config.attention_of("")))

    def _check(self, inputs: dict[str, Any]) -> None:
        known = ", ".join(self.config.modalities)
        if not inputs:
            raise ValueError(f"no modality was passed: give at least one of {known}")
        for name, tensors in inputs.items():
            if name not in self.embed_sizes:
                raise ValueError(f"unknown modality {name!r}: this model has {known}")
            if not isinstance(tensors, dict):
                raise ValueError(f"modality {name!r} is a {type(tensors).__name__}: pass a dict of its tensors")

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if (initialize := getattr(module, "initialize_", None)) is not None:
            # transformers comes to a module after its layers, some of which this one starts otherwise.
            initialize()
        elif isinstance(module, nn.Linear):
            init_linear(module)
        elif isinstance(module, nn.Conv2d):
            init_convolution(module)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            super()._init_weights(module)


def _fusion(encoders: Mapping[str, Encoder], form: str = "transformer", **arguments: Any) -> Fusion | LinearFusion:
    """The fusion of a config. Releases from before there were two forms do not name theirs."""
    if form == "linear":
        return LinearFusion({name: encoder.output_size for name, encoder in encoders.items()}, **arguments)
    return Fusion({name: (encoder.form, encoder.state_size) for name, encoder in encoders.items()}, **arguments)
