"""Composition of the config: base file -> chosen groups -> experiment overlay -> command line, strictly (no torch).

    compose(["method=m3col", "experiment=digits", "optim.lr=1e-3"])

A token ``group=choice`` takes ``GROUP/CHOICE.yaml`` of the user's own folder or else of ``configs/``; every other
``dotted.key=value`` sets one key. What a value means is its key's to say (config/scalars.py): a text is taken
literally, a list or mapping is written as in YAML; null empties a mapping or removes an entry of one
(``data.modalities.caption=null``). Unknown keys, wrong types and impossible combinations are collected and reported
together. A resolved config, as a run folder holds it, needs none of these files any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mmpretrain.config.changes import changes
from mmpretrain.config.choices import Choices
from mmpretrain.config.filling import Look, fill_in, usual_metrics, usual_pools, usual_warmup
from mmpretrain.config.merging import merge_all, nearest
from mmpretrain.config.methods.base import MethodConfig
from mmpretrain.config.methods.names import METHODS
from mmpretrain.config.root import Config
from mmpretrain.config.scalars import Scalar
from mmpretrain.config.shipped import CONFIGS
from mmpretrain.config.typed import Typing
from mmpretrain.config.yaml_files import Table, YamlError, parse, read_table, to_yaml
from mmpretrain.words import listed

OWN, OWN_OPTIM = "own", "adamw_warmup"  # data, model and optimizer of whoever gives nothing but a folder
SECTIONS = ("method", "data", "model", "optim", "engine")  # a choice is a file of that section
GROUPS = (*SECTIONS, "recipe", "experiment")
SAME_AS_DATA = "@data"
ALSO = "also"  # in the file of a choice: keys of other sections


class ConfigError(ValueError):
    """Everything that is wrong with a config; ``problems`` holds one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Layer:
    """Some keys and their raw values, and the file that they are from; None: the command line."""

    file: Path | None
    table: Table


def compose(
    tokens: Sequence[str] = (),
    base: Path | None = None,
    choices: Choices | None = None,
    look: Look | None = None,
) -> Config:
    """The config that ``tokens`` describe on top of ``base`` (default: the shipped configs/pretrain.yaml).

    choices: where the files of ``group=choice`` are looked for; None: among the shipped ones alone. look: what looks
    into the folders of the data where nobody described their modalities; None: nothing does. Raises ConfigError with
    every problem found.
    """
    problems: list[str] = []
    chosen, overrides = _parse(tokens, problems)
    own = base is None and not {"data", "experiment"} & chosen.keys() and any(_says_path(layer) for layer in overrides)
    if own:
        chosen = {"data": OWN, "optim": OWN_OPTIM, **chosen}
    root = _read(base or CONFIGS / "pretrain.yaml", problems)
    files, model = _file_layers(root, chosen, choices or Choices(), problems)
    layers = [*files, *overrides]
    method = _method(layers, problems)
    typed = [_typed(layer, method, problems) for layer in layers]
    # What a folder or a kind says comes after the files, so that the command line can still change it.
    fill_in(typed, len(files), look, problems, small=model == OWN)
    tree = merge_all(_nothing_said(method), typed, problems)  # type: ignore[arg-type]
    # Further checks on a half-merged tree would only report consequences of what is already known.
    problems += (
        [_no_value(key, list(tree.data.modalities)) for key in sorted(OmegaConf.missing_keys(tree))]
        if not problems
        else []
    )
    if problems:
        raise ConfigError(problems)
    config: Config = OmegaConf.to_object(tree)  # type: ignore[assignment]
    config.run.name = config.run.name or f"{config.method.name}-{config.experiment or config.data.name}"
    if not any("final" in (layer.get("evaluation") or {}) for layer in typed):
        usual_metrics(config, look)
    if own and not any("warmup_samples" in (layer.get("optim") or {}) for layer in typed[len(files) :]):
        usual_warmup(config)
    usual_pools(config, [*typed[: len(files)], *typed[len(files) + 1 :]])
    if found := config.problems():
        raise ConfigError(found)
    return config


@cache
def _nothing_said(method: Any) -> DictConfig:
    """A config before anything is said, to lay layers over, which copies it: making it takes as long as all layers."""
    tree: DictConfig = OmegaConf.structured(Config(method=method()))
    return tree


def _no_value(key: str, modalities: list[str]) -> str:
    """A sentence for a key that nobody set; an entry of a modality that is not there may be a slip."""
    way = key.split(".")
    if way[:2] != ["data", "modalities"] or way[3:] != ["kind"]:
        return f"{key} has no value"
    others = [name for name in modalities if name != way[2]]
    known = f"; the others are {listed(others)}" if others else ""
    return f"{key} has no value{nearest(way[2], others)}: a modality that the data does not show needs one{known}"


def load_config(path: Path) -> Config:
    """The config saved in a run folder."""
    return compose(base=path)


def save_config(config: Config, path: Path) -> None:
    """Write the resolved config; ``compose(base=path)`` gives it back."""
    path.write_text(config_text(config), encoding="utf-8")


def config_text(config: Config) -> str:
    """The resolved config as YAML."""
    return to_yaml(OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))


def diff_configs(old: Config, new: Config) -> list[str]:
    """The keys in which two configs differ, as ``key: old -> new``."""
    return [str(change) for change in changes(old, new)]


def _parse(tokens: Sequence[str], problems: list[str]) -> tuple[dict[str, str], list[Layer]]:
    choices: dict[str, str] = {}
    overrides: list[Layer] = []
    for token in tokens:
        key, equals, text = token.partition("=")
        if not equals or not all(key.split(".")):
            problems.append(f"{token!r}: write group=choice or dotted.key=value")
        elif key in GROUPS:
            choices[key] = text
        else:
            overrides.append(Layer(None, _nested(key, text)))
    return choices, overrides


def _says_path(layer: Layer) -> bool:
    data = layer.table.get("data")
    return isinstance(data, Table) and ("path" in data or "sources" in data)


def _nested(key: str, text: str) -> Table:
    """``a.b=text`` as ``{a: {b: text}}``; quotes around the whole text make a text of it and fall away."""
    value: Any = Scalar(text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        try:
            quoted = parse(text, key)
        except YamlError:
            quoted = None  # no quotes of YAML: they belong to the text
        if isinstance(quoted, Scalar) and not quoted.plain:
            value = Scalar(quoted.text, plain=False)
    for part in reversed(key.split(".")):
        value = Table({part: value})
    return value


def _file_layers(
    root: Layer, asked: dict[str, str], choices: Choices, problems: list[str]
) -> tuple[list[Layer], str | None]:
    """The files' layers, and the choice of a model that they come with."""
    overlay = Layer(None, Table())
    experiment = asked.get("experiment")
    if experiment is not None:
        overlay = _read(choices.find("experiment", experiment, problems), problems)
    chosen = _defaults(root, problems) | _defaults(overlay, problems) | asked
    if asked:
        _forget_replaced(root.table, chosen, asked)
    if chosen.get("model") == SAME_AS_DATA:
        data = chosen.get("data", OWN)
        chosen["model"] = data if choices.has("model", data) else OWN
    layers = [root]
    for group in SECTIONS:
        if (name := chosen.get(group)) is not None:
            found = _read(choices.find(group, name, problems), problems)
            if isinstance(also := found.table.pop(ALSO, None), Table):  # what goes with it in other sections
                layers.append(Layer(found.file, also))
            layers.append(Layer(found.file, Table({group: found.table})))
    if (recipe := chosen.get("recipe")) is not None:  # of several sections, over what was chosen for them
        layers.append(_read(choices.find("recipe", recipe, problems), problems))
        if "optim" in layers[-1].table and asked.get("optim", OWN_OPTIM) != OWN_OPTIM:
            problems.append(
                f"optim={asked['optim']} has no effect beside recipe={recipe}, which sets the optimizer and its rates:"
                " leave it out, and set what shall be another by its key, such as optim.name=adam"
            )
    named = [] if experiment is None else [Layer(None, Table({"experiment": Scalar(experiment, plain=False)}))]
    return [*layers, overlay, *named], chosen.get("model")


def _forget_replaced(root: Table, chosen: dict[str, str], asked: dict[str, str]) -> None:
    """A base that is a resolved config has its groups filled in: what a choice replaces must go, and the name too."""
    if "data" in asked:
        chosen.setdefault("model", SAME_AS_DATA)
    for group in set(GROUPS) & set(chosen):
        root.pop(group, None)
    if isinstance(run := root.get("run"), Table):
        run.pop("name", None)


def _defaults(layer: Layer, problems: list[str]) -> dict[str, str]:
    found = layer.table.pop("defaults", None)
    if found is None or (isinstance(found, Scalar) and found.is_null):
        return {}
    if not isinstance(found, Table) or not all(isinstance(name, Scalar) for name in found.values()):
        problems.append(f"{layer.file}: defaults: a mapping from group to choice is needed, such as {{method: clip}}")
        return {}
    problems += [
        f"{layer.file}:{found.lines[group]}: defaults.{group}: there is no such group{nearest(group, GROUPS)};"
        f" there are {', '.join(GROUPS[:-1])}"
        for group in found
        if group not in GROUPS
    ]
    return {group: name.text for group, name in found.items() if not name.is_null}


def _read(path: Path | None, problems: list[str]) -> Layer:
    if path is None:
        return Layer(None, Table())
    try:
        return Layer(path, read_table(path))
    except YamlError as error:
        problems.append(str(error))
        return Layer(path, Table())


def _method(layers: Sequence[Layer], problems: list[str]) -> type[MethodConfig]:
    """The settings of the method that the last layer names."""
    sections = [layer.table.get("method") for layer in layers]
    names = [section["name"] for section in sections if isinstance(section, Table) and "name" in section]
    name = names[-1].text if names and isinstance(names[-1], Scalar) else None
    if name in METHODS:
        return METHODS[name]
    if not problems:
        problems.append(f"method.name={name}: no such method{nearest(str(name), METHODS)}")
    return MethodConfig


def _typed(layer: Layer, method: type[MethodConfig], problems: list[str]) -> dict[str, Any]:
    table = layer.table
    if method is MethodConfig:  # of an unknown method, which is a problem already, the keys are not known
        table = Table({key: value for key, value in table.items() if key != "method"})
        table.lines = layer.table.lines
    return Typing(layer.file, problems, {MethodConfig: method}).section(Config, table)
