"""What a method used of a run's config: the part of it that a reader of a model card wants to see (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from mmpretrain.config.root import Config

# Of sections that mostly say how a run is carried out: what decides about the weights. The others are shown whole.
_SHOWN = {
    "data": ("name", "modalities", "classes", "global_batch", "incomplete", "sources", "mixing", "temperature"),
    "engine": ("zero", "precision", "micro_batches"),
    "train": ("samples",),
    "objective": ("negatives", "products"),
}
_LEFT_OUT = ("run", "checkpoint", "evaluation", "tracking", "experiment")
# Of a modality and an encoder: how it is read and run, not what it is.
_HOW = (
    "load_size",
    "load_seconds",
    "decoding",
    "member",
    "field",
    "weights",
    "padding",
    "compile",
    "attention",
    "padding_mask",
)
_MIXED = ("mixing", "temperature")
_OF_PARTS = ("fusion", "factors", "components", "projectors", "classifier_hidden", "classifier_dropout", "embed_dim")


def used_parameters(config: Config) -> dict[str, Any]:
    """The config as plain containers, without what the method does not use and what changes no result."""
    whole: Any = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    found = {name: _section(name, content) for name, content in whole.items() if name not in _LEFT_OUT}
    if not config.data.sources:
        found["data"] = {key: value for key, value in found["data"].items() if key not in _MIXED}
    for modality in found["data"]["modalities"].values():
        for key, kind in (("max_length", "text"), ("channels", "image")):
            if modality["kind"] != kind:
                modality.pop(key, None)
    if config.model.lora.rank is None:
        found["model"].pop("lora", None)
    if not config.method.contrasts:
        found.pop("objective", None)
    if not config.method.augments:
        found.pop("augment", None)
        for modality in found["data"].get("modalities", {}).values():
            modality.pop("augment", None)
            modality.pop("unique", None)
    unused = set(_OF_PARTS) - _parts(config)
    found["model"] = {key: value for key, value in found.get("model", {}).items() if key not in unused}
    return {name: content for name, value in found.items() if not _nothing(content := _given(value))}


def _section(name: str, content: Any) -> Any:
    if name not in _SHOWN or not isinstance(content, Mapping):
        return content
    return {key: content[key] for key in _SHOWN[name] if key in content}


def _parts(config: Config) -> set[str]:
    """Keys of the model section that this method's model is built from."""
    parts = config.method.model_parts(config.model, config.data)
    found = {name for name in parts.arguments if name != "connection"}
    found |= {"projectors"} if parts.connection is not None else set()
    hidden = parts.classifier and not parts.fused_classifier
    return found | ({"classifier_hidden", "classifier_dropout"} if hidden else set())


def _given(value: Any) -> Any:
    """Without nulls and empty containers."""
    if isinstance(value, Mapping):
        found = {key: _given(entry) for key, entry in value.items() if key not in _HOW}
        return {key: entry for key, entry in found.items() if not _nothing(entry)}
    return [_given(entry) for entry in value] if isinstance(value, list | tuple) else value


def _nothing(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, dict | list) and not value)
