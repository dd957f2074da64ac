"""From the run's config to the model's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpretrain.assembly.encoder_source import EncoderSource
from mmpretrain.config.root import Config
from mmpretrain.data.info import dataset_info
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig


def model_config(
    config: Config, specs: dict[str, dict[str, Any]], sources: Mapping[str, EncoderSource] | None = None
) -> MMPretrainConfig:
    """The model's config around ``specs``, the entries of its encoders, with what else the method asks for.

    sources: what says which projections are none of the linear ones. Raises ShardError if the dataset's
    ``dataset.json`` is damaged.
    """
    parts = config.parts
    return MMPretrainConfig(
        encoders=specs,
        modalities=list(specs if parts.encoders else config.data.modalities),
        method=config.method.name,
        **parts.arguments,
        **_projections(parts.embed_dim, sources or {}),
        **(_labels(config) if parts.classifier else {}),
    )


def _projections(width: int | None, sources: Mapping[str, EncoderSource]) -> dict[str, Any]:
    """``projections``, of those that are brought and not linear; nothing where there are none."""
    if width is None:
        return {}
    forms = {n: form for n, source in sources.items() if (form := source.projection_form(width)) is not None}
    return {"projections": forms} if forms else {}


def _labels(config: Config) -> dict[str, Any]:
    """The classifier, with the names of the classes if the dataset has one for each."""
    hidden: dict[str, Any] = {"classifier_hidden": config.model.classifier_hidden}
    if config.model.classifier_dropout:
        hidden["classifier_dropout"] = config.model.classifier_dropout
    found: dict[str, Any] = {"fused_classifier": True} if config.parts.fused_classifier else hidden
    found["num_labels"] = config.data.classes
    info = dataset_info(config.data)
    names = (info.classes if info else None) or []
    if len(names) == config.data.classes:
        found |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    return found
