"""From trained projectors to the release of a connection: both spaces around them (not shipped).

While it trains, the model is the projectors alone and takes embeddings: first_shared, second_shared, first_partner,
second_partner. What ships takes the modalities of both spaces' releases: image, text, sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig

from mmpretrain.assembly.dual import Dual, is_dual, open_dual
from mmpretrain.config.kind import Kind
from mmpretrain.config.methods.cmcr import SHARED
from mmpretrain.config.methods.names import CmcrConfig
from mmpretrain.config.model import ConnectedSpace
from mmpretrain.config.root import Config
from mmpretrain.data.info import source_infos
from mmpretrain.methods.base import Shipped
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError, cannot_open
from mmpretrain.release_folder import verify_release, weights_sha256

# Where a release lay and what wrote it: nothing of the model.
_INCIDENTAL = ("_name_or_path", "architectures", "auto_map", "dtype", "model_type", "transformers_version")


def with_spaces(config: Config, trained: MMPretrainModel, state: Mapping[str, Tensor]) -> Shipped:
    """The trained projectors around the releases ``method.first`` and ``method.second``; the model on the meta device.

    state: the whole weights of what trained. A space without a release is given by its embeddings, as a vector that is
    called like the space. Raises UnusableError for a release that is damaged or misfits.
    """
    assert isinstance(config.method, CmcrConfig) and trained.config.connection is not None
    releases = _open(config.method)
    if problems := _misfits(config, releases):  # a space may have been exported again since the preflight
        raise UnusableError(problems)
    inputs = _inputs(config.method, releases)
    spaces = {name: dict(entry) for name, entry in trained.config.connection["spaces"].items()}
    whole = dict(state)
    for space, release in releases.items():
        spaces[space]["model"] = release.content
        whole |= {f"connection.spaces.{space.value}.{key}": tensor for key, tensor in release.weights().items()}
    connection = {
        **trained.config.connection,
        "spaces": spaces,
        "inputs": {name: s.value for name, s in inputs.items()},
    }
    wanted = MMPretrainConfig(modalities=list(inputs), method=config.method.name, connection=connection)
    with torch.device("meta"):
        model = MMPretrainModel(wanted)
    return Shipped(model, whole, _processor(inputs, releases, {s: spaces[s]["width"] for s in ConnectedSpace}))


def release_problems(config: Config) -> list[str]:
    """What stands against the releases of both spaces, one sentence each; hashes their files."""
    assert isinstance(config.method, CmcrConfig)
    try:
        releases = _open(config.method)
        _inputs(config.method, releases)
    except UnusableError as error:
        return error.problems
    # The widths of the pairs come first: spaces are compared with those of the config.
    return list(_other_sizes(config)) or _misfits(config, releases)


@dataclass(frozen=True)
class Release:
    """The model of a space: a release of this project, or one of transformers with several towers, as it lies.

    key: where the config names it. content: its config, as one that is part of another. sizes: modality -> width of its
    embedding.
    """

    key: str
    folder: Path
    content: dict[str, Any]
    processor: MMPretrainProcessor
    sizes: dict[str, int]
    dual: Dual | None = None

    @classmethod
    def open(cls, key: str, folder: Path) -> Release:
        """Raises UnusableError if it is neither, or damaged."""
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # Damaged files raise whatever their parser raises.
            raise cannot_open(key, str(folder), error) from error
        if is_dual(config):
            dual = open_dual(key, folder)
            return cls(key, folder, dual.content, dual.processor, dual.sizes, dual)
        if not isinstance(config, MMPretrainConfig):
            known = f"{key}: {folder} is a {config.model_type}, neither a release of this project nor a model with a"
            raise UnusableError([f"{known} tower per kind, as CLIP, SigLIP and CLAP are: name one of these, or null"])
        if problems := verify_release(folder):
            raise UnusableError(f"{key}: {problem}" for problem in problems)
        with torch.device("meta"):
            model = MMPretrainModel(config)
        content = {key: value for key, value in model.config.to_dict().items() if key not in _INCIDENTAL}
        return cls(key, folder, content, MMPretrainProcessor.from_pretrained(folder), model.embed_sizes)

    @property
    def modalities(self) -> list[str]:
        """What it embeds."""
        return list(self.sizes)

    def weights(self) -> dict[str, Tensor]:
        """All of them, float32, by name."""
        if self.dual is not None:
            return self.dual.weights
        model = MMPretrainModel.from_pretrained(self.folder, dtype=torch.float32, use_safetensors=True)
        return model.state_dict()

    def misfits(self, width: int, made: Mapping[str, Any]) -> Iterator[str]:
        """A sentence if embeddings ``width`` wide, ``made`` so (their provenance), are not its own."""
        if set(self.sizes.values()) != {width}:
            found = ", ".join(f"{size} ({name})" for name, size in self.sizes.items())
            yield (
                f"{self.key}: its embeddings are {found} wide, and data.modalities says {width}: set the sizes there to"
                " those of the pairs, and name the release that the pairs were embedded by"
            )
        elif made.get("weights_sha256") not in (None, weights_sha256(self.folder)):
            yield (
                f"{self.key}: the data was embedded by {made.get('release')}, and {self.folder} is"
                " another release: embed the corpora by the release that is to ship"
            )


def _other_sizes(config: Config) -> Iterator[str]:
    """A sentence for each size of the config that is not that of the pairs."""
    infos = source_infos(config.data)
    for source, info in infos.items():
        for name, modality in config.data.modalities.items():
            found = info.modalities.get(name, {}).get("size")
            if found is not None and list(found) != list(modality.size):
                key, path = f"data.modalities.{name}.size", config.data.parts[source].path
                yield (
                    f"{key} is {list(modality.size)}, and the vectors in {path} have {list(found)}:"
                    f" set {key}={list(found)}"
                )


def _misfits(config: Config, releases: Mapping[ConnectedSpace, Release]) -> list[str]:
    """A sentence for each release that did not make the embeddings of the data."""
    made = [info.provenance for info in source_infos(config.data).values()] or [{}]
    return [
        problem
        for space, release in releases.items()
        for one in made
        for problem in release.misfits(config.data.modalities[SHARED[space]].size[0], one.get(space.value) or {})
    ]


def _open(settings: CmcrConfig) -> dict[ConnectedSpace, Release]:
    given = {ConnectedSpace.first: settings.first, ConnectedSpace.second: settings.second}
    return {space: Release.open(f"method.{space}", Path(folder)) for space, folder in given.items() if folder}


def _inputs(settings: CmcrConfig, releases: Mapping[ConnectedSpace, Release]) -> dict[str, ConnectedSpace]:
    """Modality -> the space that it goes through.

    Raises UnusableError for a name that means two things, and for a release that has nothing to be connected.
    """
    if len(releases) == len(ConnectedSpace) and (problems := list(_confused(*releases.values()))):
        raise UnusableError(problems)
    names = {space: releases[space].modalities if space in releases else [space.value] for space in ConnectedSpace}
    common = set(names[ConnectedSpace.first]) & set(names[ConnectedSpace.second])
    if common and len(releases) < len(ConnectedSpace):
        missing = next(space for space in ConnectedSpace if space not in releases)
        raise UnusableError(
            [
                f"method.{missing} is null, so that its embeddings are passed as {missing.value!r}, and the other"
                f" release calls a modality so: give method.{missing} a release too"
            ]
        )
    return {name: space for space in ConnectedSpace for name in names[space]} | dict.fromkeys(
        common, settings.shared_through
    )


def _confused(first: Release, second: Release) -> Iterator[str]:
    """A sentence for each name that means two things; if there are none, for a release without a name of its own."""
    ours, theirs = first.processor.modalities, second.processor.modalities
    common = [name for name in ours if name in theirs]
    others = [name for name in common if _form(ours[name]) != _form(theirs[name])]
    for name in others:
        yield (
            f"{second.key}: {second.folder} takes {name!r} as {_form(theirs[name])}, and {first.folder} ({first.key})"
            f" as {_form(ours[name])}: only one thing can have this name, so train one of them again with another name"
        )
    # One sentence where both know the same: the second is what the first is connected to.
    idle = next((release for release in (second, first) if set(release.processor.modalities) == {*common}), None)
    if idle is not None and not others:
        other = first if idle is second else second
        yield (
            f"{idle.key}: {idle.folder} has no modality that {other.folder} ({other.key}) has not"
            f" ({', '.join(common)}), so it adds nothing: choose a release with a further modality, or, where one name"
            " means two things, train one of them again with another name"
        )


def _form(entry: Mapping[str, Any]) -> str:
    """What a processor takes for a modality, to be compared and for messages; images and texts come in any size."""
    row = Kind(entry["kind"]).row
    return f"{entry['kind']} of size {entry['size']}" if row.size and not row.resized else entry["kind"]


def _processor(
    inputs: Mapping[str, ConnectedSpace],
    releases: Mapping[ConnectedSpace, Release],
    widths: Mapping[ConnectedSpace, int],
) -> MMPretrainProcessor:
    """Every modality as the processor of its release has it; embeddings of a space without one as vectors."""
    modalities: dict[str, dict[str, Any]] = {}
    tokenizers: dict[str, Any] = {}
    extractors: dict[str, Any] = {}
    for name, space in inputs.items():
        if space not in releases:
            modalities[name] = {"kind": "vector", "size": [widths[space]]}
            continue
        processor = releases[space].processor
        modalities[name] = processor.modalities[name]
        if name in processor.tokenizers:
            tokenizers[name] = processor.tokenizers[name]
        if name in processor.feature_extractors:
            extractors[name] = processor.feature_extractors[name]
    return MMPretrainProcessor(modalities, tokenizers, extractors)
