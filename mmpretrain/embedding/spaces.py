"""A release as a space: raw samples of its modalities -> embeddings; nothing is trained.

Four kinds of releases are opened, from a local folder or the Hub, always with classes of this installation and from
safetensors: those of this project, models with an image and a text tower (CLIP or like it), single encoders of images
or texts, and models of sentence-transformers where that is installed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpretrain.assembly.fetched import fetched_model
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.data.decode import Raw
from mmpretrain.embedding.space import Space, load_model
from mmpretrain.models.processing_mmpretrain import FILE_NAME, MMPretrainProcessor
from mmpretrain.problems import UnusableError, missing_folder, one_line
from mmpretrain.release_folder import CHECKSUMS, WEIGHTS, release_name, verify_release

# The last three belong to a release of this project, which is verified as a whole: they are hashed, code is never run.
FILES = (WEIGHTS, "*.json", "*.txt", "*.model", CHECKSUMS, "README.md", "*.py")


class OwnSpace(Space):
    """A release of this project; towers have the names of its modalities. processor: as it ships."""

    def __init__(self, folder: Path, name: str, device: torch.device) -> None:
        if problems := verify_release(folder):
            raise UnusableError(problems)
        super().__init__(folder, name, device)
        self.model = load_model(folder).to(device)
        self.processor = MMPretrainProcessor.from_pretrained(folder)
        entries = self.processor.modalities
        self.towers = {name: _reading(entry) for name, entry in entries.items()}
        # What a sample lacks never comes as far as a tower.
        required = {name: {k: v for k, v in entry.items() if k != "optional"} for name, entry in entries.items()}
        self._required = MMPretrainProcessor(required, self.processor.tokenizers, self.processor.feature_extractors)

    def tower_for(self, modality: str, kinds: Sequence[Kind]) -> str | None:
        """The tower of the same name, if it takes what the files hold."""
        return modality if modality in self.towers and self.towers[modality].kind in kinds else None

    def tensors(self, tower: str, items: list[Raw]) -> dict[str, Tensor]:
        """As the release's processor makes them."""
        return self._required(**{tower: items})[tower]

    def features(self, tower: str, tensors: dict[str, Tensor]) -> Tensor:
        """The ``embeds`` of this modality alone."""
        with torch.inference_mode():
            return self.model(**{tower: {key: t.to(self.device) for key, t in tensors.items()}}).embeds[tower]


def open_space(release: str, device: torch.device, pool: str | None = None, revision: str | None = None) -> Space:
    """The space of a release. release: local folder, or a repository on the Hub, at ``revision``. pool: for single
    encoders, None for ``mean``; given for a model of sentence-transformers, its encoder alone is taken.

    Raises:
        UnusableError: it cannot be opened, is damaged or incomplete, or has no safetensors; one sentence each.
    """
    # The other kinds derive from Space.
    from mmpretrain.embedding.sentence_transformers_spaces import SentenceTransformersSpace, is_sentence_transformers
    from mmpretrain.embedding.transformers_spaces import open_transformers_space

    folder, name = _local(release, revision), release_name(release)
    modular = pool is None and is_sentence_transformers(folder) and not _is_ours(folder)
    if not modular and not (folder / "config.json").is_file():
        raise UnusableError([f"{release} is no release: it has no config.json; name the folder that AutoModel opens"])
    if not any(folder.rglob(WEIGHTS) if modular else folder.glob(WEIGHTS)):
        raise UnusableError(
            [
                f"{release} has no .safetensors file, and other formats are never loaded: export it again, or name a"
                " folder or revision that has one"
            ]
        )
    try:
        if _is_ours(folder):
            return OwnSpace(folder, name, device)
        if modular:
            return SentenceTransformersSpace(folder, name, device)
        return open_transformers_space(folder, name, device, pool or "mean")
    except UnusableError:
        raise
    except Exception as error:  # damaged files raise whatever their parsers raise
        raise UnusableError([f"{release} cannot be opened ({one_line(error)}): export or download it again"]) from error


def _local(release: str, revision: str | None) -> Path:
    if Path(release).is_dir():
        return Path(release)
    if missing := missing_folder(release):
        raise UnusableError([f"cannot open {release!r}: {missing}"])
    try:
        return fetched_model(release, revision, list(FILES))
    except Exception as error:  # no such repository, no network, no valid name
        raise UnusableError(
            [f"{release} is neither a folder nor can be fetched from the Hub ({one_line(error)})"]
        ) from error


def _is_ours(folder: Path) -> bool:
    path = folder / FILE_NAME
    if not path.is_file():
        # Without its processor a release of this project is incomplete, and its checksums say so.
        config = folder / "config.json"
        return config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("model_type") == "mmpretrain"
    return "modalities" in json.loads(path.read_text(encoding="utf-8"))


def _reading(entry: dict[str, Any]) -> ModalityConfig:
    """A modality of a release's processor, as the stream reads it."""
    known = {key: entry[key] for key in Kind(entry["kind"]).row.described_by if key in entry}
    return ModalityConfig(Kind(entry["kind"]), **known)
