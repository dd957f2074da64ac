"""Several connections to one space that stays as it is, as one release: the leaves around a base of Ex-MCR (Zhang et
al., NeurIPS 2024, arXiv 2310.08884), each trained on its own with ``model.projectors.unprojected``.

The base's embeddings are those of its own model in every one of them, so they need no training together: whatever was
brought into the base can be compared with everything else there. With a weight for each, what several of them bring is
the weighted sum of what they make of it (OmniBind: Wang et al., 2024, arXiv 2407.11895).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from mmpretrain.hub.card_facts import ConvertedFacts
from mmpretrain.hub.export import export_release
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError, cannot_open
from mmpretrain.release_folder import verify_release

BASE = "base"
ALIKE = ("form", "hidden", "width", "start")  # what one model has one of


@dataclass(frozen=True)
class Leaf:
    """One connection. base, own: what its two spaces are called there. state: all weights by name."""

    folder: Path
    connection: Mapping[str, Any]
    modalities: Sequence[str]
    base: str
    own: str
    state: Mapping[str, Tensor]
    processor: MMPretrainProcessor

    @classmethod
    def open(cls, folder: Path) -> Leaf:
        """Raises UnusableError for what is no release of a connection with an unprojected space."""
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # damaged files raise whatever their parser raises
            raise cannot_open("--leaf", str(folder), error) from error
        if problems := verify_release(folder) if isinstance(config, MMPretrainConfig) else [f"{folder} is no release"]:
            raise UnusableError(problems)
        base = (config.connection or {}).get("unprojected")
        if base is None:
            raise UnusableError(
                [f"{folder} keeps no space as it is: train its connection with model.projectors.unprojected=first"]
            )
        spaces = config.connection["spaces"]
        if len(spaces) != 2:
            raise UnusableError(
                [f"{folder} is joined already, of {len(spaces) - 1} connections: name these in its place"]
            )
        if not spaces[base].get("model"):
            raise UnusableError(
                [
                    f"{folder} keeps a space that is given by its embeddings alone, so that nothing tells which one it"
                    f" is: train its connection with method.{base} set to the release that makes them"
                ]
            )
        (own,) = set(spaces) - {base}
        model = MMPretrainModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        processor = MMPretrainProcessor.from_pretrained(folder)
        return cls(folder, config.connection, config.modalities, base, own, model.state_dict(), processor)

    def part(self, which: str, space: str) -> dict[str, Tensor]:
        """The weights of a space's ``spaces`` or ``projectors``, by their names inside of it."""
        prefix = f"connection.{which}.{space}."
        return {key.removeprefix(prefix): tensor for key, tensor in self.state.items() if key.startswith(prefix)}

    def names(self, space: str) -> list[str]:
        """Modalities that go through a space."""
        return [name for name in self.modalities if self.connection["inputs"][name] == space]


def join_leaves(folders: Sequence[Path], folder: Path, weights: Sequence[float] | None = None) -> MMPretrainModel:
    """Write ``folder``: one release of all connections in ``folders``. Returns its model, without weights.

    weights: one for each; what several bring is their weighted sum. None: no two may bring the same. Raises
    UnusableError unless all keep the same space as it is, their projectors are alike, and their leaves bring modalities
    of different names, or, with weights, those that several bring are read alike by all.
    """
    leaves = [Leaf.open(path) for path in folders]
    if problems := [*_problems(leaves), *_of_names(leaves, weights), *_of_weights(leaves, weights)]:
        raise UnusableError(problems)
    first, names = leaves[0], [f"leaf{number}" for number in range(1, len(leaves) + 1)]
    spaces = {BASE: first.connection["spaces"][first.base]}
    state = {f"connection.spaces.{BASE}.{key}": tensor for key, tensor in first.part("spaces", first.base).items()}
    inputs = dict.fromkeys(first.names(first.base), BASE)
    for name, leaf in zip(names, leaves, strict=True):
        spaces[name] = leaf.connection["spaces"][leaf.own]
        inputs = inputs | {m: inputs.get(m, name) for m in leaf.names(leaf.own)}  # of several leaves the first
        for which in ("spaces", "projectors"):
            state |= {f"connection.{which}.{name}.{key}": t for key, t in leaf.part(which, leaf.own).items()}
    kept = {key: first.connection[key] for key in ALIKE}
    connection = {**kept, "unprojected": BASE, "spaces": spaces, "inputs": inputs}
    if sums := _sums(leaves, names, weights or ()):
        connection["sums"] = sums
    with torch.device("meta"):
        model = MMPretrainModel(MMPretrainConfig(modalities=list(inputs), method="cmcr", connection=connection))
    origin = " and ".join(path.resolve().name for path in folders)
    by = "their own projectors" + "".join(f", {name} by a weighted sum of all that take it" for name in sums)
    card = ConvertedFacts(folder.resolve().name, origin, connected_by=by)
    export_release(model, state, _processor(leaves, inputs), folder, card, native=False)
    return model


def _problems(leaves: Sequence[Leaf]) -> Iterator[str]:
    first, *others = leaves
    if not others:
        yield "one connection alone has nothing to be joined with: name two or more"
    for leaf in others:
        if leaf.names(leaf.base) != first.names(first.base) or not _same_base(first, leaf):
            yield f"{leaf.folder} keeps another space than {first.folder}: connect both to the same release"
        for key in ALIKE:
            if leaf.connection[key] != first.connection[key]:
                yield (
                    f"{leaf.folder} has projectors with {key}={leaf.connection[key]}, {first.folder} with"
                    f" {key}={first.connection[key]}: train one of them again"
                )


def _of_names(leaves: Sequence[Leaf], weights: Sequence[float] | None) -> Iterator[str]:
    """A sentence for each modality that two leaves bring and that cannot be a sum."""
    for name, (first, *others) in _bringing(leaves).items():
        for other in others:
            both = f"{other.folder} and {first.folder} both bring {name!r}"
            if weights is None:
                yield f"{both}: only one thing can have this name, or give each connection a weight, for their sum"
            elif not all(leaf.connection["spaces"][leaf.own].get("model") for leaf in (first, other)):
                yield f"{both}, as embeddings of a model that is not there: nothing tells that they are the same"
            elif not read_alike(first, other, name):
                yield (
                    f"{both} and read it differently (size, statistics, tokenizer or feature extractor): one input"
                    " cannot be meant for both, so leave one of them out"
                )


def _of_weights(leaves: Sequence[Leaf], weights: Sequence[float] | None) -> Iterator[str]:
    """A sentence for each fault of the weights."""
    if weights is None:
        return
    if len(weights) != len(leaves):
        yield f"there are {len(weights)} weights for {len(leaves)} connections: give one for each, in their order"
    if wrong := [weight for weight in weights if not (math.isfinite(weight) and weight > 0)]:
        yield f"weights must be positive numbers, not {', '.join(map(str, wrong))}"
    if all(len(of) == 1 for of in _bringing(leaves).values()):
        yield "no modality is brought by two connections, so that weights would do nothing: leave them out"


def _bringing(leaves: Sequence[Leaf]) -> dict[str, list[Leaf]]:
    """Modality -> the leaves that bring it, in their order."""
    found: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        for name in leaf.names(leaf.own):
            found.setdefault(name, []).append(leaf)
    return found


def _sums(leaves: Sequence[Leaf], names: Sequence[str], weights: Sequence[float]) -> dict[str, dict[str, float]]:
    """Modality -> leaf -> weight, of those that several bring. names, weights: of the leaves, in their order."""
    found: dict[str, dict[str, float]] = {}
    for leaf, name, weight in zip(leaves, names, weights, strict=False):
        for modality in leaf.names(leaf.own):
            found.setdefault(modality, {})[name] = float(weight)
    return {modality: of for modality, of in found.items() if len(of) > 1}


def read_alike(first: Leaf, other: Leaf, name: str) -> bool:
    """Whether both make the same tensors of a modality's samples."""
    ours, theirs = (leaf.processor for leaf in (first, other))
    return ours.modalities[name] == theirs.modalities[name] and _read(ours.reader(name)) == _read(theirs.reader(name))


def _read(reader: Any | None) -> Any:
    """All that a tokenizer or feature extractor does, in a form that can be compared; None for none."""
    if reader is None:
        return None
    if not hasattr(reader, "get_vocab"):
        return reader.to_dict()
    rules = reader.backend_tokenizer.to_str() if reader.is_fast else reader.init_kwargs
    return type(reader).__name__, reader.get_vocab(), reader.pad_token_id, rules


def _same_base(first: Leaf, other: Leaf) -> bool:
    """Whether the space that is kept is the same model."""
    ours, theirs = first.part("spaces", first.base), other.part("spaces", other.base)
    if first.connection["spaces"][first.base] != other.connection["spaces"][other.base] or ours.keys() != theirs.keys():
        return False
    return all(torch.equal(ours[key], theirs[key]) for key in ours)


def _processor(leaves: Sequence[Leaf], inputs: Mapping[str, str]) -> MMPretrainProcessor:
    """Every modality as the first connection that has it."""
    held = {name: leaf.processor for leaf in reversed(leaves) for name in leaf.processor.modalities}
    return MMPretrainProcessor(
        {name: held[name].modalities[name] for name in inputs},
        {name: held[name].tokenizers[name] for name in inputs if name in held[name].tokenizers},
        {name: held[name].feature_extractors[name] for name in inputs if name in held[name].feature_extractors},
    )
