"""Where a run's encoders come from: asked once for each, and kept.

sources = EncoderSources(config)
sources["caption"].tokenizer
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from transformers import PreTrainedConfig

from mmpretrain.assembly.encoder_source import EncoderSource
from mmpretrain.assembly.own_architectures import OwnEncoder
from mmpretrain.assembly.release_encoder import OpenedRelease, ReleaseEncoder
from mmpretrain.assembly.transformers_encoder import PretrainedEncoder, TransformersEncoder, open_config
from mmpretrain.config.architectures import ARCHITECTURES
from mmpretrain.config.data import ModalityConfig
from mmpretrain.config.model import EncoderConfig
from mmpretrain.config.root import Config
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.problems import UnusableError


class EncoderSources(Mapping[str, EncoderSource]):
    """The source of every modality that has an encoder, in the order of the data.

    A source is found when it is first asked for; that raises UnusableError if what it names cannot be opened. Encoders
    that start from the same model open its config, and its processor, together.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._found: dict[str, EncoderSource] = {}
        self._opened: dict[tuple[str, str | None], PreTrainedConfig | OpenedRelease] = {}

    def __getitem__(self, name: str) -> EncoderSource:
        if name not in self._found:
            if name not in self._modalities:
                raise KeyError(name)
            self._found[name] = self._find(name, self._config.model.encoders[name], self._modalities[name])
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modalities)

    def __len__(self) -> int:
        return len(self._modalities)

    @property
    def _modalities(self) -> dict[str, ModalityConfig]:
        # Embeddings that are connected have no encoders.
        return self._config.data.modalities if self._config.parts.encoders else {}

    def _find(self, name: str, encoder: EncoderConfig, modality: ModalityConfig) -> EncoderSource:
        if not encoder.pretrained:
            source = OwnEncoder if encoder.architecture in ARCHITECTURES else TransformersEncoder
            return source(name, encoder, modality)
        opened = self._open(f"model.encoders.{name}", encoder.pretrained, encoder.revision)
        if isinstance(opened, OpenedRelease):
            return ReleaseEncoder(name, encoder, modality, opened)
        if encoder.part is not None:
            problem = f"has no effect: {encoder.pretrained} is not an mmpretrain release, leave it out"
            raise UnusableError([f"model.encoders.{name}.part {problem}"])
        return PretrainedEncoder(name, encoder, modality, opened)

    def _open(self, where: str, source: str, revision: str | None) -> PreTrainedConfig | OpenedRelease:
        if (source, revision) not in self._opened:
            config = open_config(where, source, revision)
            if isinstance(config, MMPretrainConfig):
                self._opened[source, revision] = OpenedRelease(source, revision or "main", config)
            else:
                self._opened[source, revision] = config
        return self._opened[source, revision]
