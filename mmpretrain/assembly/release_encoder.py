"""Encoders that start from a release of ours: its architecture, weights, projection and preprocessing (not shipped)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmpretrain.assembly.pretrained import load_backbone, open_config, pixel_statistics
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.model import OWN_POOLS, EncoderConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError, nearest, one_line
from mmpretrain.release_folder import CHECKSUMS, verify_release

# What a release's processor knows of its training data, and how it fits images into their size.
_STATISTICS = ("mean", "std", "minimum", "maximum", "shortest_edge")


@dataclass(frozen=True)
class Tower:
    """The encoder of one modality of a release. where: the key of ``encoder``, which asks for it; part: the modality
    there; config: the whole release's."""

    where: str
    encoder: EncoderConfig
    part: str
    config: MMPretrainConfig

    @property
    def entry(self) -> dict[str, Any]:
        """Its architecture, config and pool."""
        found: dict[str, Any] = self.config.encoders[self.part]
        return found

    def processor(self) -> MMPretrainProcessor:
        """The release's. Raises UnusableError if it cannot be opened."""
        try:
            return MMPretrainProcessor.from_pretrained(self._source, revision=self._revision)
        except Exception as error:  # Damaged files raise whatever their parser raises.
            raise self._unusable(f"the processor of {self._source} cannot be opened ({one_line(error)})") from error

    def tokenizer(self) -> Any:
        """That of the modality. Raises UnusableError if there is none."""
        found = self.processor().tokenizers.get(self.part)
        if found is None:
            raise self._unusable(f"{self._source} reads no texts as {self.part!r}")
        return found

    def by_architecture(self, modality: ModalityConfig) -> EncoderConfig:
        """The same encoder by architecture and config, for this modality of the data.

        Raises UnusableError if the release takes other inputs, or the run's config asks for another architecture.
        """
        if misfit := _misfit(self.processor().modalities[self.part], modality):
            raise self._unusable(f"{self._source} takes {misfit} as {self.part!r}: take other data or another release")
        architecture, config, asked = self.entry["architecture"], self.entry["config"], self.encoder.config
        changed = [key for key, value in asked.items() if config.get(key) != value]
        if changed and architecture in OWN_POOLS:
            raise UnusableError([f"{self.where}.config.{changed[0]} is not that of {self._source}: leave it out"])
        pool = self.encoder.pool or Pool(self.entry["pool"])
        if pool not in OWN_POOLS.get(architecture, (pool,)):
            raise UnusableError(
                [f"{self.where}.pool is {pool}: {architecture} knows {', '.join(OWN_POOLS[architecture])}"]
            )
        return replace(self.encoder, architecture=architecture, config=config | asked, pretrained=None, pool=pool)

    def problems(self, encoder: Encoder) -> list[str]:
        """Whether the weights fit ``encoder`` (on the meta device), and a local release is whole; hashes its files."""
        with torch.device("meta"):
            own = Encoder(self.part, self.entry).backbone.state_dict()
        wanted = encoder.backbone.state_dict()
        misfits = [key for key, tensor in wanted.items() if key not in own or own[key].shape != tensor.shape]
        found = [f"{self.where}: {self._source} has no {key} as this config and pool want it" for key in misfits[:1]]
        folder = Path(self._source)
        damage = verify_release(folder) if (folder / CHECKSUMS).exists() else []
        return found + [f"{self.where}.pretrained: {problem}" for problem in damage]

    def projects(self, embed_dim: int | None) -> bool:
        """Whether its projection is one to ``embed_dim``, after the same pooling."""
        same_pool = self.encoder.pool in (None, self.entry["pool"])
        return embed_dim is not None and embed_dim == self.config.embed_dim and same_pool

    def load(self, backbone: nn.Module, projection: nn.Module | None) -> None:
        """Fill both with its weights. Raises UnusableError if any is missing or misfits."""
        try:
            release, info = self._open()
            own = release.encoders[self.part].backbone.state_dict()
            # A pooler that this encoder makes no use of stays behind.
            backbone.load_state_dict({key: own[key] for key in backbone.state_dict() if key in own})
        except Exception as error:  # Damaged files raise whatever their parser raises.
            raise self._unusable(f"{self._source} cannot be loaded ({one_line(error)})") from error
        if info["missing_keys"]:
            raise self._unusable(f"{self._source} has no weights for {sorted(info['missing_keys'])[0]}")
        if projection is not None:
            projection.load_state_dict(release.projections[self.part].state_dict())

    def _open(self) -> Any:
        """The release's model, and what was said of its weights."""
        return MMPretrainModel.from_pretrained(
            self._source,
            revision=self._revision,
            config=self.config,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )

    @property
    def _source(self) -> str:
        return str(self.encoder.pretrained)

    @property
    def _revision(self) -> str:
        return self.encoder.revision or "main"

    def _unusable(self, problem: str) -> UnusableError:
        return UnusableError([f"{self.where}.pretrained: {problem}"])


def find_tower(name: str, encoder: EncoderConfig) -> Tower | None:
    """What the encoder of modality ``name`` starts from, None if that is no release of ours.

    Raises UnusableError if it cannot be opened, or has no encoder for the modality.
    """
    where = f"model.encoders.{name}"
    config = open_config(where, encoder) if encoder.pretrained else None
    if not isinstance(config, MMPretrainConfig):
        if encoder.part is not None:
            raise UnusableError(
                [f"{where}.part has no effect: {encoder.pretrained} is no release of ours, leave it out"]
            )
        return None
    part = encoder.part or name
    if part not in config.encoders:
        known = ", ".join(config.encoders) or "none, for it connects two other releases: name one of these"
        hint = nearest(part, config.encoders)
        raise UnusableError(
            [f"{where}.part: {encoder.pretrained} has no encoder {part!r}{hint}; its encoders: {known}"]
        )
    return Tower(where, encoder, part, config)


def load_weights(model: MMPretrainModel, name: str, encoder: EncoderConfig, spec: dict[str, Any]) -> None:
    """Give the encoder of modality ``name`` its pretrained weights, if any, and a release's projection if it fits.

    spec: the encoder's entry in the model's config. Raises UnusableError.
    """
    if tower := find_tower(name, encoder):
        projection = model.projections[name] if _brings_projection(tower, model, name) else None
        tower.load(model.get_submodule(f"encoders.{name}.backbone"), projection)
    elif encoder.pretrained:
        model.encoders[name].backbone = load_backbone(f"model.encoders.{name}", encoder, spec)


def freeze(model: MMPretrainModel, config: Config) -> None:
    """Take gradients from the encoders that are frozen, and from projections that came with them."""
    for name, encoder in config.model.encoders.items():
        model.encoders[name].requires_grad_(not encoder.freeze)
        if encoder.freeze and (tower := find_tower(name, encoder)) and _brings_projection(tower, model, name):
            model.projections[name].requires_grad_(False)


def input_statistics(name: str, encoder: EncoderConfig) -> dict[str, Any] | None:
    """What pretrained weights expect of inputs: statistics, and how images are cut; None: the data's, for nothing says
    so."""
    if tower := find_tower(name, encoder):
        entry = tower.processor().modalities[tower.part]
        return {key: entry[key] for key in _STATISTICS if key in entry}
    return pixel_statistics(encoder) or None


def _brings_projection(tower: Tower, model: MMPretrainModel, name: str) -> bool:
    return name in model.projections and tower.projects(model.config.embed_dim)


def _misfit(entry: dict[str, Any], modality: ModalityConfig) -> str | None:
    """What a release takes, if that is not what the data has; sequences may be longer or shorter."""
    kind = Kind(entry["kind"])
    if kind is not modality.kind:
        return f"a {kind.value}"
    if kind is Kind.text:
        return None
    taken, given = list(entry["size"]), list(modality.size)
    if kind is Kind.image:
        taken, given = [entry["channels"], *taken], [modality.channels, *given]
    elif kind is Kind.sequence:
        taken, given = taken[-1:], given[-1:]
    return None if taken == given else f"{kind.value}s of {'x'.join(map(str, taken))}"
