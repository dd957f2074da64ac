"""Several connections to one space that stays as it is, as one release: the leaves around a base of Ex-MCR (Zhang et
al., NeurIPS 2024, arXiv 2310.08884), each trained on its own with ``model.projectors.unprojected``.

The base's embeddings are those of its own model in every one of them, so they need no training together: whatever was
brought into the base can be compared with everything else there.
"""

from __future__ import annotations

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


def join_leaves(folders: Sequence[Path], folder: Path) -> MMPretrainModel:
    """Write ``folder``: one release of all connections in ``folders``. Returns its model, without weights.

    Raises UnusableError unless all keep the same space as it is, their projectors are alike, and their leaves bring
    modalities of different names.
    """
    leaves = [Leaf.open(path) for path in folders]
    if problems := list(_problems(leaves)):
        raise UnusableError(problems)
    first, names = leaves[0], [f"leaf{number}" for number in range(1, len(leaves) + 1)]
    spaces = {BASE: first.connection["spaces"][first.base]}
    state = {f"connection.spaces.{BASE}.{key}": tensor for key, tensor in first.part("spaces", first.base).items()}
    inputs = dict.fromkeys(first.names(first.base), BASE)
    for name, leaf in zip(names, leaves, strict=True):
        spaces[name] = leaf.connection["spaces"][leaf.own]
        inputs |= dict.fromkeys(leaf.names(leaf.own), name)
        for which in ("spaces", "projectors"):
            state |= {f"connection.{which}.{name}.{key}": t for key, t in leaf.part(which, leaf.own).items()}
    kept = {key: first.connection[key] for key in ALIKE}
    connection = {**kept, "unprojected": BASE, "spaces": spaces, "inputs": inputs}
    with torch.device("meta"):
        model = MMPretrainModel(MMPretrainConfig(modalities=list(inputs), method="cmcr", connection=connection))
    origin = " and ".join(path.resolve().name for path in folders)
    card = ConvertedFacts(folder.resolve().name, origin, connected_by="their own projectors")
    export_release(model, state, _processor(leaves, inputs), folder, card, native=False)
    return model


def _problems(leaves: Sequence[Leaf]) -> Iterator[str]:
    first, *others = leaves
    if not others:
        yield "one connection alone has nothing to be joined with: name two or more"
    taken = {name: first.folder for name in (*first.names(first.base), *first.names(first.own))}
    for leaf in others:
        if leaf.names(leaf.base) != first.names(first.base) or not _same_base(first, leaf):
            yield f"{leaf.folder} keeps another space than {first.folder}: connect both to the same release"
        for key in ALIKE:
            if leaf.connection[key] != first.connection[key]:
                yield (
                    f"{leaf.folder} has projectors with {key}={leaf.connection[key]}, {first.folder} with"
                    f" {key}={first.connection[key]}: train one of them again"
                )
        for name in leaf.names(leaf.own):
            if name in taken:
                yield f"{leaf.folder} and {taken[name]} both bring {name!r}: only one thing can have this name"
            taken.setdefault(name, leaf.folder)


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
