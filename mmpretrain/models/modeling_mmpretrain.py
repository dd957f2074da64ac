"""The model that ships: an encoder per modality, and what the method puts on top of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .asked_mmpretrain import Asked
from .components_mmpretrain import Components
from .configuration_mmpretrain import MMPretrainConfig
from .connected_mmpretrain import Connection
from .contents_mmpretrain import Contents, moved_left, tracing
from .convolution_mmpretrain import init_convolution
from .dual_mmpretrain import DualModel
from .encoders_mmpretrain import Encoder
from .factors_mmpretrain import FactorHeads
from .fusion_mmpretrain import Fusion
from .heads_mmpretrain import MLPHead, init_linear, projection, side_by_side
from .intake_mmpretrain import (
    KIND_OF,
    MASK,
    PRESENT,
    Takes,
    Tensors,
    aliases,
    by_modality,
    check_shapes,
    check_together,
)
from .linear_fusion_mmpretrain import LinearFusion
from .outputs_mmpretrain import MMPretrainOutput
from .places_mmpretrain import filled
from .precision_mmpretrain import as_weight, warn_of_rounding
from .recording_mmpretrain import Recorder
from .similarity_mmpretrain import SIGMOID, START, PerPair, batch_loss, classifier_loss, logits_per
from .tools_mmpretrain import ToolsMixin

# Tensors that may stand outside of a modality's dict. They are named in forward's signature, for tools look there:
# torch.export for what changes its size, a Trainer for what to keep.
FLAT = ("input_ids", "pixel_values", "attention_mask", "input_values", "input_features", "values")


class MMPretrainModel(ToolsMixin, Asked):
    """One encoder per modality; see :class:`MMPretrainConfig` for what can sit on top.

    embed_sizes: modality -> width of its embedding.
    """

    config_class = MMPretrainConfig
    base_model_prefix = ""
    _auto_class = "AutoModel"
    # Its loss is a mean over the samples of one call, which nothing further scales.
    accepts_loss_kwargs = False
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
                form = (config.projections or {}).get(name)
                self.projections[name] = projection(encoder.output_size, config.embed_dim, form)
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
            self._add_components(**config.components)
        self.classifier = self._new_classifier(config)
        self.takes = {name: self._takes(name) for name in config.modalities}
        self.aliases = aliases(self.takes)
        self._contents = Contents()
        self.logit_scale: nn.Parameter | None = None
        self.logit_bias: nn.Parameter | None = None
        if config.similarity is not None:
            self._add_similarity(**config.similarity)
        self.post_init()

    def _new_classifier(self, config: MMPretrainConfig) -> MLPHead | nn.Linear | None:
        if config.num_labels is None:
            return None
        if config.fused_classifier and self.fusion is not None:
            classifier = nn.Linear(self.fusion.width, config.num_labels)
            init_linear(classifier)
            return classifier
        if config.classifier_hidden is not None:
            sizes = (sum(self.embed_sizes.values()), config.classifier_hidden, config.num_labels)
            return MLPHead(*sizes, dropout=config.classifier_dropout)
        return None

    def _add_components(self, common: int, individual: Mapping[str, int], hidden: int | None) -> None:
        for name, size in self.embed_sizes.items():
            self.components[name] = Components(size, common, individual[name], hidden)

    def _add_similarity(self, form: str, per_modality: bool = False) -> None:
        # Of shape (1,): tools that flatten or partition parameters cannot handle one without dimension.
        self.logit_scale = nn.Parameter(torch.empty(len(self.config.modalities) if per_modality else 1))
        if form == SIGMOID:
            self.logit_bias = nn.Parameter(torch.empty(1))
        self.initialize_()

    @torch.no_grad()
    def initialize_(self) -> None:
        """Scale and bias start as in CLIP or SigLIP; weights that were just loaded stay."""
        if self.logit_scale is None:
            return
        scale, bias = START[self.config.similarity["form"]]
        init.constant_(self.logit_scale, math.log(scale))
        if self.logit_bias is not None and bias is not None:
            init.constant_(self.logit_bias, bias)

    def forward(
        self,
        /,
        *,
        input_ids: Any = None,
        pixel_values: Any = None,
        attention_mask: Any = None,
        input_values: Any = None,
        input_features: Any = None,
        values: Any = None,
        labels: Tensor | None = None,
        return_loss: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        _record: Recorder | None = None,
        **inputs: Any,
    ) -> MMPretrainOutput | tuple[Any, ...]:
        """Encode any of the modalities: modality -> keyword tensors of its encoder, with b samples each.

        ``pixel_values`` [b, c, h, w] of images, ``input_ids`` and ``attention_mask`` [b, n] of texts, ``values`` [b,
        features] of vectors or [b, T, features] of sequences: what :class:`MMPretrainProcessor` returns. ``present``
        (bool [b]) beside them says which samples have the modality; embeddings of what a sample lacks mean nothing. A
        tensor that only one modality takes may stand outside its dict, as in ``model(pixel_values=...)``.

        labels: int64 [b], for the cross-entropy of the classifier (-100: not counted). return_loss: the contrastive
        loss within these samples, of a model with a similarity. return_dict=False: a tuple of what is not None.
        Raises ValueError for no modality, an unknown one, tensors that its encoder cannot take, modalities of different
        numbers of samples where they are joined, and a loss that the model has not.
        """
        given_flat = (input_ids, pixel_values, attention_mask, input_values, input_features, values)
        inputs |= {key: tensor for key, tensor in zip(FLAT, given_flat, strict=True) if tensor is not None}
        given, rows, moved = self._given(inputs)
        record = _record or self._recorder(output_hidden_states, output_attentions)
        embeds, fused = self._embeds(given, record)
        logits = None
        if self.classifier is not None and len(embeds) == len(self.config.modalities):
            check_together(rows, "the classifier")
            logits = self._logits(embeds, fused)
        factors, pairs = self._factors(embeds), self._pairs(embeds)
        loss = None
        if labels is not None or return_loss:
            present = {name: tensors[PRESENT] for name, tensors in given.items() if PRESENT in tensors}
            loss = self._loss(labels, logits, pairs, rows, present)
        if record is not None:
            record.put_back(moved, self.config.places or {})
        output = MMPretrainOutput(
            loss=loss,
            logits=logits,
            pooler_output=next(iter(embeds.values())) if len(embeds) == 1 else None,
            embeds=embeds,
            fused_embeds=fused,
            shared_embeds={name: shared for name, (shared, _) in factors.items()} if factors else None,
            unique_embeds={name: unique for name, (_, unique) in factors.items()} if factors else None,
            logits_per=pairs,
            hidden_states=record.of_all("hidden_states") if record else None,
            attentions=record.of_all("attentions") if record else None,
        )
        output.aliases = self.aliases
        return output if self._as_output(return_dict) else output.to_tuple()

    def _logits(self, embeds: dict[str, Tensor], fused: Tensor | None) -> Tensor:
        assert self.classifier is not None
        if not isinstance(self.classifier, nn.Linear):
            return self.classifier(side_by_side(embeds))
        assert fused is not None
        return self.classifier(as_weight(fused, self.classifier.weight))

    def _factors(self, embeds: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]] | None:
        """Modality -> what is shared and what is its own; None where the method does not learn that."""
        if self.components:
            warn_of_rounding(self)
        parts = self.factors or self.components
        return {name: parts[name](embed) for name, embed in embeds.items()} if parts else None

    def _pairs(self, embeds: dict[str, Tensor]) -> PerPair | None:
        """The method's similarity of all samples of the modalities that were passed."""
        if self.logit_scale is None or len(embeds) < 2:
            return None
        of_each = self.config.modalities if self.config.similarity.get("per_modality") else None
        return logits_per(embeds, self.logit_scale, self.logit_bias, of_each)

    def save_pretrained(self, save_directory: Any, *arguments: Any, **kwargs: Any) -> None:
        """As transformers' own; every Auto class that opens it finds the code beside it, wherever it came from."""
        module = type(self).__module__.rsplit(".", 1)[-1]
        classes = (MMPretrainModel, MMPretrainForZeroShotImageClassification)
        found = {str(form._auto_class): f"{module}.{form.__name__}" for form in classes}
        self.config.auto_map = (getattr(self.config, "auto_map", None) or {}) | found
        super().save_pretrained(save_directory, *arguments, **kwargs)

    def _given(self, inputs: dict[str, Any]) -> tuple[dict[str, Tensors], dict[str, int], dict[str, Tensor]]:
        """Modality -> its tensors, -> how many samples it has, -> where its places came from if they were moved."""
        given = by_modality(inputs, self.takes)
        rows: dict[str, int] = {}
        if not tracing():
            rows = {name: check_shapes(name, tensors, self.takes[name]) for name, tensors in given.items()}
            if self.fusion is not None:
                check_together(rows, "the fusion")
        moved = {}
        for name, tensors in given.items():
            if self.takes[name].looked_at:
                given[name], source = self._look(name, tensors)
                if source is not None:
                    moved[name] = source
            given[name] = filled(name, given[name], (self.config.places or {}).get(name))
        return given, rows, moved

    def _look(self, name: str, tensors: Tensors) -> tuple[Tensors, Tensor | None]:
        """The tensors as encoders were trained to read them, after a look at what they hold."""
        wanted = self.takes[name]
        if tracing():
            left = not self.training and MASK in tensors and wanted.placed
        else:
            left = self._contents.left(name, tensors, wanted, self.training, self.vocabulary)
        return moved_left(name, tensors, wanted) if left else (tensors, None)

    def vocabulary(self, name: str) -> int | None:
        """How many token ids a modality's encoder knows; None for encoders without tokens."""
        if self.connection is not None:
            return self.connection.vocabulary(name)
        found: Any = self.encoders[name]
        return found.vocabulary

    def _loss(
        self,
        labels: Tensor | None,
        logits: Tensor | None,
        pairs: PerPair | None,
        rows: dict[str, int],
        present: dict[str, Tensor],
    ) -> Tensor:
        if labels is not None:
            if self.classifier is None:
                raise ValueError(f"{self._called} has no classifier, so that labels say nothing: {self._ways}")
            if logits is None:
                raise ValueError(f"labels need the classifier, which needs all of {', '.join(self.config.modalities)}")
            return classifier_loss(logits, labels, look=not self.training)
        if self.classifier is not None or self.logit_scale is None:
            raise ValueError(f"{self._called} has no contrastive loss of its embeddings: {self._ways}")
        if pairs is None:
            raise ValueError("return_loss compares modalities of the same samples: pass two of them at least")
        check_together(rows, "the loss")
        return batch_loss(pairs, present, self.config.similarity["form"])

    @property
    def _called(self) -> str:
        return f"this model (method {self.config.method})"

    @property
    def _ways(self) -> str:
        """Where a loss is, instead."""
        if self.classifier is not None:
            return "pass labels, for the loss of its classifier"
        if self.config.similarity is not None:
            return "leave them out, return_loss=True gives its contrastive loss"
        return "take one of mmpretrain.losses, or train by mmpretrain"

    def _embeds(self, inputs: dict[str, Tensors], record: Recorder | None) -> tuple[dict[str, Tensor], Tensor | None]:
        """Modality -> [b, d], and the embedding of all of them if there is a fusion."""
        present = {name: tensors[PRESENT] for name, tensors in inputs.items() if PRESENT in tensors}
        if self.connection is not None:
            return self.connection(inputs, record), None
        given = {name: {k: t for k, t in tensors.items() if k != PRESENT} for name, tensors in inputs.items()}
        if isinstance(self.fusion, Fusion):
            encoders: Any = self.encoders
            states = {name: encoders[name].states(record, **tensors) for name, tensors in given.items()}
            return self.fusion(states, present)
        embeds = {name: self.encoders[name](record=record, **tensors) for name, tensors in given.items()}
        if self.fusion is not None:
            return self.fusion(embeds, present)
        return {n: self.projections[n](embed) if n in self.projections else embed for n, embed in embeds.items()}, None

    def _takes(self, name: str) -> Takes:
        if self.connection is not None:
            return self.connection.takes(name)
        found: Any = self.encoders[name]
        return found.takes

    def _model_of_space(self, entry: Mapping[str, Any]) -> nn.Module:
        """A model of this very class, which may be a connection itself, or one of transformers with several towers."""
        if "dual" in entry:
            return DualModel(**entry["dual"], attention=self.config.attention_of(""))
        return type(self)(MMPretrainConfig(**entry, attn_implementation=self.config.attention_of("")))

    def zero_shot_problem(self) -> str | None:
        """Why transformers' zero-shot classification of images cannot take this model; None if it can."""
        kinds = [KIND_OF.get(wanted.main) for wanted in self.takes.values()]
        for kind in ("image", "text"):
            if kinds.count(kind) != 1:
                return f"one image and one text are needed, and its modalities are {', '.join(self.takes)}"
        if self.config.similarity is None:
            return f"its method ({self.config.method}) ships no similarity of an image and a text"
        if self.config.similarity["form"] == SIGMOID:
            return (
                "it gives every pair a probability of its own (sigmoid), and the pipeline takes a softmax; AutoModel"
                " and pair_probabilities give the model's"
            )
        return None if self.fusion is None else "its fusion takes an image and a text of the same sample only"

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


class MMPretrainForZeroShotImageClassification(MMPretrainModel):
    """The same model, for transformers' pipeline of that name, which takes the softmax over the texts of an image.

    Raises ValueError for a model of which that would be no probability, or that has not one image and one text.
    """

    _auto_class = "AutoModelForZeroShotImageClassification"

    def __init__(self, config: MMPretrainConfig) -> None:
        super().__init__(config)
        if problem := self.zero_shot_problem():
            raise ValueError(f"zero-shot-image-classification does not work with this model: {problem}")


def _fusion(encoders: Mapping[str, Encoder], form: str = "transformer", **arguments: Any) -> Fusion | LinearFusion:
    """The fusion of a config. Releases from before there were two forms do not name theirs."""
    if form == "linear":
        return LinearFusion({name: encoder.output_size for name, encoder in encoders.items()}, **arguments)
    return Fusion({name: (encoder.form, encoder.state_size) for name, encoder in encoders.items()}, **arguments)
