"""What an encoder is made of: the contract of its sources.

An encoder is an architecture of this project (own_architectures.py), one of transformers', new or pretrained
(transformers_encoder.py), or the encoder of a release (release_encoder.py). Which of them it is, is decided once
(sources.py). Whoever needs its specification, tokenizer, input statistics or weights asks the source.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from mmpretrain.assembly.sounds import SoundForm, open_extractor, sound_form
from mmpretrain.assembly.tokenizers import open_tokenizer, tokenizer_source
from mmpretrain.config.data import ModalityConfig
from mmpretrain.config.model import EncoderConfig, Projection
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.problems import UnusableError


class EncoderSource(ABC):
    """Where the encoder of one modality comes from. Whatever is opened for it is opened once and kept.

    name: the modality. where: the key of its config, for messages. config: that of a pretrained transformers model.
    """

    config: PreTrainedConfig | None = None

    def __init__(self, name: str, encoder: EncoderConfig, modality: ModalityConfig) -> None:
        self.name, self.encoder, self.modality = name, encoder, modality
        self.where = f"model.encoders.{name}"

    @abstractmethod
    def specification(self, tokenizer: Any | None) -> dict[str, Any]:
        """The entry of ``MMPretrainConfig.encoders``; sizes that are not given are taken from the data.

        tokenizer: of a text (None: not at hand yet, the architecture's own vocabulary size stands).
        Raises UnusableError with everything that is wrong.
        """

    @cached_property
    def tokenizer(self) -> Any | None:
        """The tokenizer of a text, None for other kinds. Raises UnusableError if it cannot be opened or cannot pad."""
        if not self.modality.kind.row.tokenized:
            return None
        source = tokenizer_source(self.encoder)
        key = f"{self.where}.{'tokenizer' if self.encoder.tokenizer else 'pretrained'}"
        if not source:
            raise UnusableError([f"{key} is missing: a text encoder needs a tokenizer (a folder or a Hub id)"])
        if not self.encoder.tokenizer and (brought := self.brought_tokenizer()):
            return brought
        if self.encoder.tokenizer:
            return open_tokenizer(key, source, None)
        return open_tokenizer(key, source, self.encoder.revision, self.config)

    def brought_tokenizer(self) -> Any | None:
        """A tokenizer that comes with the weights otherwise than as files beside them. Raises UnusableError."""
        return None

    @cached_property
    def feature_extractor(self) -> Any | None:
        """The feature extractor of a sound, None for other kinds. Raises UnusableError if it cannot be opened."""
        if not self.modality.kind.row.extracted:
            return None
        if self.encoder.feature_extractor:
            return open_extractor(f"{self.where}.feature_extractor", self.encoder.feature_extractor, None)
        return self.brought_extractor()

    def brought_extractor(self) -> Any:
        """The feature extractor that comes with the weights, or is made to fit the architecture. Raises
        UnusableError."""
        raise UnusableError([f"{self.where}.feature_extractor is missing: a sound needs one (a folder or a Hub id)"])

    @cached_property
    def sound_form(self) -> SoundForm | None:
        """The rate and length of a sound that the encoder gets, None for other kinds. Raises UnusableError."""
        extractor = self.feature_extractor
        return None if extractor is None else sound_form(self.name, self.modality, extractor)

    def input_statistics(self) -> dict[str, Any] | None:
        """What weights expect of their inputs, as keys of the processor's entry: statistics, and how images are cut.

        None where nothing says so: then the data's count. Raises UnusableError.
        """
        return None

    def load(self, model: MMPretrainModel, specification: dict[str, Any]) -> None:
        """Give the encoder in ``model`` its pretrained weights, if there are any. Raises UnusableError."""
        return None

    def problems(self, encoder: Encoder) -> list[str]:
        """What stands against filling ``encoder`` (on the meta device) from here, one sentence each."""
        return []

    def brings_projection(self, model: MMPretrainModel) -> bool:
        """Whether the projection of this modality in ``model`` comes from here as well."""
        return False

    def projection_form(self, width: int) -> dict[str, Any] | None:
        """The entry of ``MMPretrainConfig.projections`` for a projection to ``width``; None: a linear one."""
        return None

    def freeze(self, model: MMPretrainModel) -> None:
        """Take gradients from the encoder if it is frozen, and from a projection that came with it and is not to
        learn."""
        module: nn.Module = model.encoders[self.name]
        module.requires_grad_(not self.encoder.freeze)
        learns = self.encoder.projection is Projection.trained
        if self.encoder.freeze and not learns and self.brings_projection(model):
            model.projections[self.name].requires_grad_(False)
