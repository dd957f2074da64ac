"""The tokens of a fine-tuning that follow from its model and its recipe (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.finetuning.asked import Asked, said
from launcher.finetuning.start import Form, StartError
from mmpretrain.config.finetune import Recipe
from mmpretrain.config.kind import Kind
from mmpretrain.config.root import Config
from mmpretrain.words import listed

NEW_WIDTH, NEW_RATE = 256, 5e-4  # of projections that start anew


def of_start(asked: Asked) -> list[str]:
    """Method, model and what is taken over."""
    start = asked.start
    tokens = ["model=own", f"recipe={asked.recipe}", f"method={start.method}", "finetune.before=true"]
    if not _changes_method(asked):
        tokens += [f"method.{key}={said(value)}" for key, value in start.settings.items()]
    for name, source in start.sources.items():
        tokens.append(f"model.encoders.{name}.pretrained={source}")
        if start.form is Form.release:
            tokens.append(f"model.encoders.{name}.projection=kept")
    if start.form is Form.encoders:
        return [*tokens, f"model.embed_dim={NEW_WIDTH}"]
    # What no encoder brings: fusion, heads, the learned scale. Of a run its release counts, which may be an average or
    # a mixture that no checkpoint holds.
    return [*tokens, *_parts(start.model), f"init_from={start.source}"]


def _parts(model: Mapping[str, Any]) -> list[str]:
    """What sits on the encoders of a release, as its config says."""
    tokens = [f"model.embed_dim={said(model.get('embed_dim'))}"]
    if hidden := model.get("classifier_hidden"):
        tokens.append(f"model.classifier_hidden={hidden}")
    for part in ("fusion", "factors"):
        tokens += [f"model.{part}.{key}={said(value)}" for key, value in (model.get(part) or {}).items()]
    if components := model.get("components"):
        tokens += [f"model.components.{key}={said(components[key])}" for key in ("common", "hidden")]
        tokens += [f"model.components.individual_of.{n}={w}" for n, w in components["individual"].items()]
    return tokens


def frozen(asked: Asked, names: Sequence[str]) -> list[str]:
    """What the recipe freezes of these modalities. Raises StartError."""
    if asked.lock and asked.recipe != Recipe.lit:
        raise StartError(f"--lock goes with recipe=lit, and the recipe is {asked.recipe}")
    if unknown := [name for name in asked.lock if name not in names]:
        raise StartError(f"--lock {unknown[0]}: the model has {listed(names)}")
    if asked.recipe == Recipe.head:
        new = asked.start.form is not Form.release
        keeps = [] if new else [f"model.encoders.{name}.projection=trained" for name in names]
        return [*(f"model.encoders.{name}.freeze=true" for name in names), *keeps]
    if asked.recipe != Recipe.lit:
        return []
    images = [name for name in names if asked.start.kinds.get(name) is Kind.image]
    locked = asked.lock or tuple(images[:1])
    if not locked:
        raise StartError(f"recipe=lit locks the images' encoder, and the model has {listed(names)}: say --lock NAME")
    return [f"model.encoders.{name}.freeze=true" for name in locked]


def new_projections(asked: Asked, config: Config) -> list[str]:
    """Projections that start anew need a pace at which pretrained encoders would forget."""
    if asked.start.form is not Form.encoders:
        return []
    scale = max(1.0, NEW_RATE / config.optim.lr)
    return [f"model.encoders.{name}.projection_lr_scale={scale:g}" for name in config.data.modalities]


def _changes_method(asked: Asked) -> bool:
    return any(token.startswith("method=") and token != f"method={asked.start.method}" for token in asked.tokens)
