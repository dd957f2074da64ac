"""Composition of the config: base file -> chosen groups -> experiment overlay -> command line, strictly (no torch).

    compose(["method=m3col", "experiment=digits", "optim.lr=1e-3"])

A token ``group=choice`` takes ``GROUP/CHOICE.yaml`` of the user's own folder or else of ``configs/``; every other
``dotted.key=value`` sets one key, with the value read as YAML; null empties a mapping or removes an entry of one
(``data.modalities.caption=null``). Unknown keys, wrong types and impossible combinations are collected and reported
together. A resolved config, as a run folder holds it, needs none of these files any more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError, safe_load

from mmpretrain.config.choices import Choices
from mmpretrain.config.merging import leaves, merge_all, nearest, nest, show
from mmpretrain.config.methods.names import METHODS
from mmpretrain.config.root import Config
from mmpretrain.config.shipped import CONFIGS

GROUPS = ("method", "data", "model", "optim", "engine", "experiment")
SAME_AS_DATA = "@data"


class ConfigError(ValueError):
    """Everything that is wrong with a config; ``problems`` holds one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def compose(tokens: Sequence[str] = (), base: Path | None = None, choices: Choices | None = None) -> Config:
    """The config that ``tokens`` describe on top of ``base`` (default: the shipped configs/pretrain.yaml).

    choices: where the files of ``group=choice`` are looked for; None: among the shipped ones alone. Raises
    ConfigError with every problem found.
    """
    problems: list[str] = []
    chosen, overrides = _parse(tokens, problems)
    root = _read(base or CONFIGS / "pretrain.yaml", problems)
    layers = [*_file_layers(root, chosen, choices or Choices(), problems), *overrides]
    tree = merge_all(_schema(layers, problems), layers, problems)
    # Further checks on a half-merged tree would only report consequences of what is already known.
    problems += [f"{key} has no value" for key in sorted(OmegaConf.missing_keys(tree))] if not problems else []
    if problems:
        raise ConfigError(problems)
    config: Config = OmegaConf.to_object(tree)  # type: ignore[assignment]
    config.run.name = config.run.name or f"{config.method.name}-{config.experiment or config.data.name}"
    if found := config.problems():
        raise ConfigError(found)
    return config


def load_config(path: Path) -> Config:
    """The config saved in a run folder."""
    return compose(base=path)


def save_config(config: Config, path: Path) -> None:
    """Write the resolved config; ``compose(base=path)`` gives it back."""
    OmegaConf.save(OmegaConf.structured(config), path)


def diff_configs(old: Config, new: Config) -> list[str]:
    """The keys in which two configs differ, as ``key: old -> new``."""
    before, after = (dict(leaves(OmegaConf.to_container(OmegaConf.structured(c)))) for c in (old, new))
    keys = [key for key in (before | after) if before.get(key) != after.get(key)]
    return [f"{key}: {show(before.get(key))} -> {show(after.get(key))}" for key in keys]


def _parse(tokens: Sequence[str], problems: list[str]) -> tuple[dict[str, str], list[dict[str, Any]]]:
    choices: dict[str, str] = {}
    overrides: list[dict[str, Any]] = []
    for token in tokens:
        key, equals, text = token.partition("=")
        if not equals or not all(key.split(".")):
            problems.append(f"{token!r}: write group=choice or dotted.key=value")
        elif key in GROUPS:
            choices[key] = text
        else:
            try:
                overrides.append(nest(key, _value(text)))
            except YAMLError:
                problems.append(f"{token!r}: the value is not valid YAML; put it in quotes")
    return choices, overrides


def _value(text: str) -> Any:
    """A value of the command line: YAML, and numbers such as 1e9 that YAML takes for words."""
    if re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", text):
        number = float(text)
        return int(number) if number.is_integer() else number
    return safe_load(text)


def _file_layers(
    root: dict[str, Any], asked: dict[str, str], choices: Choices, problems: list[str]
) -> list[dict[str, Any]]:
    overlay: dict[str, Any] = {}
    experiment = asked.get("experiment")
    if experiment is not None:
        overlay = _read(choices.find("experiment", experiment, problems), problems) | {"experiment": experiment}
    chosen = _defaults(root, problems) | _defaults(overlay, problems) | asked
    if asked:
        _forget_replaced(root, chosen, asked)
    layers = [root]
    for group in GROUPS[:-1]:
        name = chosen.get("data") if chosen.get(group) == SAME_AS_DATA else chosen.get(group)
        if name is not None:
            layers.append({group: _read(choices.find(group, name, problems), problems)})
    return [*layers, overlay]


def _forget_replaced(root: dict[str, Any], chosen: dict[str, str], asked: dict[str, str]) -> None:
    """A base that is a resolved config has its groups filled in: what a choice replaces must go, and the name too."""
    if "data" in asked:
        chosen.setdefault("model", SAME_AS_DATA)
    for group in set(GROUPS) & set(chosen):
        root.pop(group, None)
    (root.get("run") or {}).pop("name", None)


def _defaults(layer: dict[str, Any], problems: list[str]) -> dict[str, str]:
    found = layer.pop("defaults", None) or {}
    if not isinstance(found, dict):
        problems.append(f"defaults: a mapping from group to choice is needed, not {found!r}")
        return {}
    return found


def _read(path: Path | None, problems: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        problems.append(f"{path}: cannot be read as a config ({str(error).splitlines()[0]})")
        return {}
    return content if isinstance(content, dict) else {}  # type: ignore[return-value]


def _schema(layers: list[dict[str, Any]], problems: list[str]) -> DictConfig:
    names = [layer["method"]["name"] for layer in layers if "name" in (layer.get("method") or {})]
    name = names[-1] if names else None
    if name in METHODS:
        return OmegaConf.structured(Config(method=METHODS[name]()))
    if not problems:
        problems.append(f"method.name={name}: no such method{nearest(str(name), METHODS)}")
    return OmegaConf.structured(Config())
