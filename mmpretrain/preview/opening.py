"""The processor of a config, as far as it can be built: what cannot be opened is left out and said."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mmpretrain.assembly.build import build_processor, unaugmented_processor
from mmpretrain.assembly.sounds import lacking_packages
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.data import DataConfig, Verify
from mmpretrain.config.implementation import implementation
from mmpretrain.config.root import Config
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.preview.plain import KindPreview
from mmpretrain.problems import UnusableError


@dataclass(frozen=True)
class OpenedConfig:
    """What training would open first.

    config: the one asked for. usable: the same with only the modalities whose tokens or tensors can be made.
    processor, unaugmented: those of training for ``usable``; the first is None where no modality is left.
    previews: every modality -> how it is shown. problems: why others are not usable, one sentence each.
    """

    config: Config
    usable: Config
    processor: MMPretrainProcessor | None
    unaugmented: MMPretrainProcessor | None
    previews: dict[str, KindPreview] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def open_config(config: Config) -> OpenedConfig:
    """Open tokenizers and statistics. Nothing is raised for one that cannot be: its modality is shown as decoded."""
    sources, problems, left_out = EncoderSources(config), [], []
    for name in sources:
        try:
            if lacking := lacking_packages(name, config.data.modalities[name]):
                raise UnusableError(lacking)
            _ = sources[name].tokenizer, sources[name].sound_form, sources[name].input_statistics()
        except UnusableError as error:
            problems += error.problems
            left_out.append(name)
    usable = only(config, [name for name in config.data.modalities if name not in left_out])
    processor = unaugmented = None
    if usable.data.modalities:
        processor = build_processor(usable, EncoderSources(usable) if left_out else sources)
        # The stream would ask it for every modality that has something of its own to start from. Views are shown
        # whether or not the method makes any.
        if not any(config.data.modalities[name].prepared_apart for name in left_out):
            unaugmented = unaugmented_processor(usable, processor)
    return OpenedConfig(config, usable, processor, unaugmented, _previews(config, processor), problems)


def only(config: Config, names: list[str]) -> Config:
    """The same config with these modalities alone."""
    kept = {name: modality for name, modality in config.data.modalities.items() if name in names}
    return replace(config, data=replace(config.data, modalities=kept))


def looking(data: DataConfig) -> DataConfig:
    """The data section for whoever only looks: in this process, without an end, and without hashing every shard."""
    return replace(data, workers=0, max_bad_fraction=1.0, verify=Verify.never)


def _previews(config: Config, processor: MMPretrainProcessor | None) -> dict[str, KindPreview]:
    found: dict[str, KindPreview] = {}
    for name, modality in config.data.modalities.items():
        entry = processor.modalities.get(name) if processor else None
        tokenizer = processor.tokenizers.get(name) if processor else None
        found[name] = implementation(modality.kind.row.preview)(name, modality, entry, tokenizer)
    return found
