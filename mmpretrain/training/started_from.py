"""``init_from``: which parts of a run's model and method come from another one, and the taking over itself.

What is taken is decided by names and shapes, which the preflight knows as well as the run: part by part, whole or not
at all. Adapters that were put into encoders in between change names; what they wrap is found by its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from mmpretrain.assembly.class_names import class_names
from mmpretrain.config.root import Config
from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Method
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError
from mmpretrain.training.start_preparation import preparation
from mmpretrain.training.start_sources import KEY, Sizes, Start, StartSource, names_run, open_source
from mmpretrain.words import listed

OF_A_MODALITY = ("encoders", "projections", "factors", "components")
CLASSIFIER = "classifier"
POOLER = ".pooler."
FIXES = {
    "encoders": "give it the same architecture, config and data.modalities.{name} as there (of a release:"
    " model.encoders.{name}.pretrained)",
    "projections": "set model.embed_dim to the width there, {rows}",
    "fusion": "set model.fusion as there",
    "factors": "set model.factors as there",
    "components": "set model.components as there",
}


@dataclass
class Comparison:
    """Of a new run with what it starts from.

    names: of the model's tensors that are taken -> their names there. heads: of the method's, by names as
    ``heads.temperature.logit_scale``. taken, new: parts. behind: parts there that this model has not.
    """

    names: dict[str, str] = field(default_factory=dict)
    heads: dict[str, Tensor] = field(default_factory=dict)
    taken: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def words(self, source: StartSource) -> str:
        """What is taken and what is new, for the plan."""
        text = f"{KEY}: from {source.called} come {listed(self.taken, most=20)}"
        text += f"; new: {listed(self.new, most=20)}" if self.new else "; nothing is new"
        return text + (f"; not needed of it: {listed(self.behind, most=20)}" if self.behind else "")


def findings(config: Config, method: Method, processor: MMPretrainProcessor | None) -> tuple[list[str], list[str]]:
    """(problems, notes) of ``config.init_from``, without its weights; nothing is raised.

    method: around a model that may be on the meta device. processor: the run's; None: it cannot be made yet.
    """
    if config.init_from is None:
        return [], []
    if names_run(config.init_from, Path(config.run.root) / str(config.run.name)):
        return [f"{KEY}={config.init_from} is this very run, which goes on by itself: leave {KEY} out"], []
    try:
        source = open_source(config.init_from)
        found = compare(config, method, source, processor)
    except UnusableError as error:
        return error.problems, []
    return found.problems, [found.words(source), *found.notes] if not found.problems else []


@dataclass(frozen=True)
class Begun:
    """start: where a run came from; without its sum on all ranks but 0. taken: the parts that were taken over."""

    start: Start
    taken: list[str]


def begin(config: Config, method: Method, processor: MMPretrainProcessor, world: World) -> Begun | None:
    """Take over what ``config.init_from`` names, at a run's first start; None if it names nothing.

    method: around the model, whole or kept in parts and in use. A collective if there is something. Raises
    UnusableError, on all ranks, for a source that is missing, damaged or does not fit.
    """
    if config.init_from is None:
        return None
    source, found, problems = None, Comparison(), list[str]()
    first = world.rank == 0  # hashing is for one of them
    try:
        source = open_source(config.init_from)
        found = compare(config, method, source, processor)
        problems = found.problems or (source.damage() if first else [])
    except UnusableError as error:
        problems = error.problems
    _agree(config, problems, world)  # before all of them touch a model that may be kept in parts
    assert source is not None
    try:
        take(found, method, source)
    except UnusableError as error:
        problems = error.problems
    _agree(config, problems, world)
    return Begun(source.start(hashed=first), found.taken)


def _agree(config: Config, problems: list[str], world: World) -> None:
    if world.max_flag(bool(problems)):
        raise UnusableError(problems or [f"{KEY}: another rank could not start from {config.init_from}"])


def compare(config: Config, method: Method, source: StartSource, processor: MMPretrainProcessor | None) -> Comparison:
    """What of ``source`` fits where. Raises UnusableError for files that cannot be read."""
    there, found = source.sizes(), Comparison()
    if adapters := [name for name in there if ".lora_" in name]:
        found.problems.append(
            f"{KEY}: {source.called} holds adapters beside its weights ({adapters[0]}): name a release of it, in which"
            " they are merged (RUN/release, or one that `mmpretrain export` makes)"
        )
        return found
    wanted, classes = _wanted(method.model, there), _other_classes(method, source)
    for part in dict.fromkeys(map(_part, wanted)):
        names = {name: tensor for name, tensor in wanted.items() if _part(name) == part}
        _compare_part(part, names, there, source, found, classes if part == CLASSIFIER else None)
    known = {_part(name) for name in wanted}
    found.behind = [part for part in dict.fromkeys(map(_part, there)) if part not in known and "." in part]
    found.behind += [p for p in dict.fromkeys(map(_part, there)) if p in ("fusion", CLASSIFIER) and p not in known]
    _compare_heads(config, method, source, found, renumbered=classes is not None)
    if not found.problems and not found.taken:
        found.problems.append(
            f"{KEY}: nothing of {source.called} fits: it has {listed(dict.fromkeys(map(_part, there)))}, and this model"
            f" {listed(known)}; give data.modalities the same names"
        )
    if not found.problems:
        problems, notes = preparation(config, source, processor, found.taken)
        found.problems += problems
        found.notes += notes
    return found


@torch.no_grad()
def take(found: Comparison, method: Method, source: StartSource) -> None:
    """Copy what was found into the model and the heads."""
    state = _named(method.model)
    back = {there: here for here, there in found.names.items()}
    for name, tensor in source.tensors(back):
        state[back[name]].copy_(tensor)
    heads = _named(nn.ModuleDict({"heads": method.heads, "critics": method.critics}))
    for name, tensor in found.heads.items():
        heads[name].copy_(tensor)
    method.clamp_()


def _compare_part(
    part: str,
    names: Mapping[str, Tensor],
    there: Sizes,
    source: StartSource,
    found: Comparison,
    classes: str | None,
) -> None:
    """Whether a part is taken, whole; else it is new, or a problem. classes: how its rows stand for other classes."""
    held = [name for name in there if _part(name) == part]
    missing = [name for name in names if name not in there]
    misfits = [name for name, tensor in names.items() if name in there and there[name] != tensor.shape]
    more = [name for name in held if name not in names and POOLER not in name and part.startswith("encoders.")]
    size = sum(tensor.numel() for tensor in names.values())
    if held and classes:
        found.new.append(f"{part} ({size:,} parameters, of other classes: {classes})")
    elif not held or (part == CLASSIFIER and (missing or misfits)):
        why = "" if not held else f", of another shape: {_shapes(misfits[0], names, there)}" if misfits else ""
        found.new.append(f"{part} ({size:,} parameters{why})")
    elif part.startswith("projections.") and not misfits and missing:
        found.new.append(f"{part} ({size:,} parameters; there it is an MLP)")
    elif misfits or missing or more:
        found.problems.append(_misfit(part, names, there, source, misfits, missing, more))
    else:
        found.names |= {tensor_name: tensor_name for tensor_name in names}
        found.taken.append(part)


def _misfit(
    part: str,
    names: Mapping[str, Tensor],
    there: Sizes,
    source: StartSource,
    misfits: Sequence[str],
    missing: Sequence[str],
    more: Sequence[str],
) -> str:
    kind, _, name = part.partition(".")
    if misfits:
        what = _shapes(misfits[0], names, there)
    else:
        what = f"{missing[0]} is not there" if missing else f"it also has {more[0]} there"
    rows = there[misfits[0]][0] if misfits and there[misfits[0]] else ""
    fix = FIXES.get(kind, "build it as there").format(name=name, rows=rows)
    return (
        f"{KEY}: {part} of {source.called} is another one ({what}): {fix}; or leave {KEY} out, and start"
        " single encoders by model.encoders.NAME.pretrained"
    )


def _shapes(name: str, names: Mapping[str, Tensor], there: Sizes) -> str:
    return f"{name} is {list(there[name])} there and {list(names[name].shape)} here"


def _other_classes(method: Method, source: StartSource) -> str | None:
    """Where the same numbers stand for other classes there, as their names say: both, in words."""
    here, there = class_names(method.model.config), source.classes
    if here is None or there is None or here == there:
        return None
    if sorted(here) == sorted(there):
        return f"the same in another order, {listed(there, most=3)} there and {listed(here, most=3)} here"
    return f"{listed(there, most=3)} there and {listed(here, most=3)} here"


def _compare_heads(config: Config, method: Method, source: StartSource, found: Comparison, *, renumbered: bool) -> None:
    """Heads and critics, each whole or not at all: only training needs them, so that a new one is never refused.
    renumbered: labels stand for other classes than there."""
    given = source.heads(config.method.name, type(method))
    own = _named(nn.ModuleDict({"heads": method.heads, "critics": method.critics}))
    for part in dict.fromkeys(".".join(name.split(".")[:2]) for name in own):
        names = [name for name in own if name.startswith(f"{part}.")]
        if renumbered and part.split(".")[1] in method.of_classes and any(name in given for name in names):
            found.new.append(f"{part} (there it is of other classes)")
        elif all(name in given and given[name].shape == own[name].shape for name in names):
            found.heads |= {name: given[name] for name in names}
            found.taken.append(part)
        else:
            here = any(name.startswith(f"{part}.") for name in given)
            found.new.append(f"{part}{' (there it has another shape)' if here else ''}")


def _wanted(model: nn.Module, there: Sizes) -> dict[str, Tensor]:
    """The model's tensors by the names that they have without adapters; of one with several names, the one there."""
    plain = _named(model)
    first: dict[int, str] = {}
    for name, tensor in plain.items():
        if id(tensor) not in first or (name in there and first[id(tensor)] not in there):
            first[id(tensor)] = name
    return {name: tensor for name, tensor in plain.items() if first[id(tensor)] == name}


def _named(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and stored buffers under every name that they have, without those of adapters."""
    stored = module.state_dict(keep_vars=True)
    return {name.replace(".base_layer.", "."): t for name, t in stored.items() if ".lora_" not in name}


def _part(name: str) -> str:
    """``encoders.image`` of ``encoders.image.backbone.norm.weight``; ``fusion``, and what it has of a modality."""
    words = name.split(".")
    if words[:2] == ["fusion", "converters"]:
        return ".".join(words[:3])
    return ".".join(words[:2]) if words[0] in OF_A_MODALITY else words[0]
