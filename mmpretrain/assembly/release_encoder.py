"""Encoders that start from a release: its architecture, weights, projection, tokenizer and preprocessing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mmpretrain.assembly.encoder_source import EncoderSource
from mmpretrain.assembly.fetched import fetched_release
from mmpretrain.assembly.own_architectures import OwnEncoder
from mmpretrain.assembly.sounds import SoundForm, sound_form
from mmpretrain.assembly.transformers_encoder import TransformersEncoder
from mmpretrain.config.architectures import ARCHITECTURES, Pool
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.model import EncoderConfig
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError, nearest, one_line
from mmpretrain.release_folder import CHECKSUMS, foreign_code, verify_release


@dataclass(frozen=True)
class OpenedRelease:
    """A release that encoders start from. source: folder or Hub id; config: its model's."""

    source: str
    revision: str
    config: MMPretrainConfig

    @cached_property
    def folder(self) -> Path:
        """Where it lies, fetched from the Hub if need be. Raises what huggingface_hub raises."""
        return fetched_release(self.source, self.revision)

    @cached_property
    def damage(self) -> list[str]:
        """What its checksums say is wrong with it, a sentence each; hashes its files. Raises as :attr:`folder`."""
        return verify_release(self.folder) if (self.folder / CHECKSUMS).exists() else foreign_code(self.folder)

    @cached_property
    def processor(self) -> MMPretrainProcessor:
        """Its processor, with the tokenizers. Raises whatever the parser of a damaged file raises."""
        return MMPretrainProcessor.from_pretrained(self.folder)

    def model(self) -> Any:
        """Its model in float32, and what was said of its weights. Raises UnusableError for damage, else as
        :attr:`processor`."""
        if self.damage:
            raise UnusableError(self.damage)
        return MMPretrainModel.from_pretrained(
            self.folder,
            config=self.config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )


class ReleaseEncoder(EncoderSource):
    """The encoder of one modality of a release. part: that modality. Raises UnusableError if it has no such encoder."""

    def __init__(self, name: str, encoder: EncoderConfig, modality: ModalityConfig, release: OpenedRelease) -> None:
        super().__init__(name, encoder, modality)
        self.release, self.part = release, encoder.part or name
        parts = release.config.encoders
        if self.part not in parts:
            known = ", ".join(parts) or "none, for it connects two other releases: name one of these"
            hint = nearest(self.part, parts)
            raise UnusableError(
                [f"{self.where}.part: {release.source} has no encoder {self.part!r}{hint}; its encoders: {known}"]
            )

    @property
    def entry(self) -> dict[str, Any]:
        """Its architecture, config and pool in the release."""
        found: dict[str, Any] = self.release.config.encoders[self.part]
        return found

    def specification(self, tokenizer: Any | None) -> dict[str, Any]:
        """See :class:`EncoderSource`; raises too if the release takes other inputs, or another architecture is asked
        for."""
        asked = self._by_architecture()
        if asked.architecture in ARCHITECTURES:
            return OwnEncoder(self.name, asked, self.modality).specification(tokenizer)
        source = TransformersEncoder(self.name, asked, self.modality)
        source.__dict__["feature_extractor"] = self.feature_extractor  # opened once, and the release's own
        found = source.specification_checking(self.encoder.config, tokenizer)
        return {key: v for key, v in found.items() if key != "masked"} | (
            {"masked": self.entry["masked"]} if "masked" in self.entry else {}
        )

    def brought_tokenizer(self) -> Any:
        """The tokenizer of the release for the same modality."""
        found = self._processor.tokenizers.get(self.part)
        if found is None:
            raise self._unusable(f"{self.release.source} reads no texts as {self.part!r}")
        return found

    def brought_extractor(self) -> Any:
        """The feature extractor of the release for the same modality."""
        found = self._processor.feature_extractors.get(self.part)
        if found is None:
            raise self._unusable(f"{self.release.source} takes no sounds as {self.part!r}")
        return found

    @cached_property
    def sound_form(self) -> SoundForm | None:
        """See :class:`EncoderSource`; unless the data says otherwise sounds are as long as those of the release."""
        if self.feature_extractor is None:
            return None
        seconds = self.modality.seconds or self._processor.modalities[self.part]["seconds"]
        return sound_form(self.name, replace(self.modality, seconds=seconds), self.feature_extractor)

    def input_statistics(self) -> dict[str, Any]:
        """See :class:`EncoderSource`; what the release was trained with counts, also where that is nothing."""
        entry = self._processor.modalities[self.part]
        found = {key: entry[key] for key in self.modality.kind.row.statistics if key in entry}
        if self.modality.kind.row.resized and "resize" not in entry:
            found["resize"] = "crop" if "shortest_edge" in entry else "squash"  # before there was a choice
        return found

    def load(self, model: MMPretrainModel, specification: dict[str, Any]) -> None:
        """See :class:`EncoderSource`; with the projection, if that is one to the same width."""
        backbone = model.get_submodule(f"encoders.{self.name}.backbone")
        try:
            release, info = self.release.model()
            # The parameters themselves: one that is kept in parts is whole while it is copied, and no longer.
            own = release.encoders[self.part].backbone.state_dict(keep_vars=True)
            # A pooler that this encoder makes no use of stays behind.
            backbone.load_state_dict({key: own[key] for key in backbone.state_dict(keep_vars=True) if key in own})
        except Exception as error:  # Damaged files raise whatever their parser raises.
            raise self._unusable(f"{self.release.source} cannot be loaded ({one_line(error)})") from error
        if info["missing_keys"]:
            raise self._unusable(f"{self.release.source} has no weights for {sorted(info['missing_keys'])[0]}")
        if self.brings_projection(model):
            model.projections[self.name].load_state_dict(release.projections[self.part].state_dict())

    def problems(self, encoder: Encoder) -> list[str]:
        """Whether the weights fit ``encoder`` (on the meta device), and a local release is whole; hashes its files."""
        source = self.release.source
        with torch.device("meta"):
            own = Encoder(self.part, self.entry).backbone.state_dict()
        wanted = encoder.backbone.state_dict()
        misfits = [key for key, tensor in wanted.items() if key not in own or own[key].shape != tensor.shape]
        found = [f"{self.where}: {source} has no {key} as this config and pool want it" for key in misfits[:1]]
        return found + [f"{self.where}.pretrained: {problem}" for problem in self.release.damage]

    def projection_form(self, width: int) -> dict[str, Any] | None:
        """See :class:`EncoderSource`; the release's own where that is asked for and fits."""
        if self.encoder.projection is None or width != self.release.config.embed_dim:
            return None
        form: dict[str, Any] | None = (self.release.config.projections or {}).get(self.part)
        return form

    def brings_projection(self, model: MMPretrainModel) -> bool:
        """Whether its projection is one to the model's ``embed_dim``, after the same pooling."""
        width = model.config.embed_dim
        if self.name not in model.projections or width is None or width != self.release.config.embed_dim:
            return False
        if self.part in (self.release.config.projections or {}) and self.encoder.projection is None:
            return False  # an MLP's: those of a run are linear unless more is asked for
        return self.encoder.pool in (None, self.entry["pool"])

    def _by_architecture(self) -> EncoderConfig:
        """The same encoder by architecture and config, for this modality of the data."""
        source = self.release.source
        if misfit := _misfit(self._processor.modalities[self.part], self.modality):
            raise self._unusable(f"{source} takes {misfit} as {self.part!r}: take other data or another release")
        architecture, config, asked = self.entry["architecture"], self.entry["config"], self.encoder.config
        changed = [key for key, value in asked.items() if config.get(key) != value]
        row = ARCHITECTURES.get(architecture)
        if changed and row:
            raise UnusableError([f"{self.where}.config.{changed[0]} is not that of {source}: leave it out"])
        pool = self.encoder.pool or Pool(self.entry["pool"])
        if row and pool not in row.pools:
            raise UnusableError([f"{self.where}.pool is {pool}: {architecture} knows {', '.join(row.pools)}"])
        return replace(self.encoder, architecture=architecture, config=config | asked, pretrained=None, pool=pool)

    @property
    def _processor(self) -> MMPretrainProcessor:
        try:
            return self.release.processor
        except Exception as error:  # Damaged files raise whatever their parser raises.
            raise self._unusable(
                f"the processor of {self.release.source} cannot be opened ({one_line(error)})"
            ) from error

    def _unusable(self, problem: str) -> UnusableError:
        return UnusableError([f"{self.where}.pretrained: {problem}"])


def _misfit(entry: dict[str, Any], modality: ModalityConfig) -> str | None:
    """What a release takes, if that is not what the data has; sequences may be longer or shorter."""
    kind = Kind(entry["kind"])
    if kind is not modality.kind:
        return f"a {kind.value}"
    if not kind.row.size:
        return None
    taken, given = list(entry["size"]), list(modality.size)
    if "channels" in kind.row.described_by:
        taken, given = [entry["channels"], *taken], [modality.channels, *given]
    elif kind.row.tokens:
        taken, given = taken[-1:], given[-1:]
    return None if taken == given else f"{kind.value}s of {'x'.join(map(str, taken))}"
