"""Models of sentence-transformers as spaces: of texts, and of images where their first module reads them.

The package is optional, and opens the folder with its own classes and no code of the folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.embedding.space import Space
from mmpretrain.files import sha256_of
from mmpretrain.models.images_mmpretrain import flat
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import WEIGHTS

MODULES = "modules.json"
PACKAGE = "sentence_transformers."
PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.pkl")


class SentenceTransformersSpace(Space):
    """Towers are named after the kind that they take. Texts get the prompt that ``encode`` would give them."""

    def __init__(self, folder: Path, name: str, device: torch.device) -> None:
        _refuse_code_and_pickles(folder)
        super().__init__(folder, name, device)
        self.sha256 = _sha256(folder)
        self.model: Any = _opened(folder, device).eval().requires_grad_(False)
        readings = {"text": ModalityConfig(Kind.text), "image": ModalityConfig(Kind.image, [1, 1])}
        self.towers = {name: reading for name, reading in readings.items() if name in _modalities(self.model)}
        self._prompt = (getattr(self.model, "prompts", None) or {}).get(
            getattr(self.model, "default_prompt_name", None) or ""
        )
        self._width: int | None = getattr(self.model, "truncate_dim", None)
        self.choices = {"prompt": self._prompt} if self._prompt else {}
        self.choices |= {"truncate_dim": str(self._width)} if self._width else {}

    def tower_for(self, modality: str, kinds: Sequence[Kind]) -> str | None:
        """The tower that takes what the files hold."""
        return next((kind.value for kind in kinds if kind.value in self.towers), None)

    def tensors(self, tower: str, items: list[Any]) -> dict[str, Tensor]:
        """As the model's first module makes them; texts are cut at its limit."""
        if tower == Kind.image.value:
            items = [flat(image, channels=3) if isinstance(image, Image.Image) else image for image in items]
        prompt = self._prompt if tower == Kind.text.value else None
        prepare = getattr(self.model, "preprocess", None)
        # Before version 5.4 there was tokenize, which knows no prompts.
        made = prepare(items, prompt=prompt) if prepare else self.model.tokenize([(prompt or "") + x for x in items])
        if isinstance(length := made.get("prompt_length"), int):  # of a prompt that is not to be pooled
            made["prompt_length"] = torch.full((len(items),), length)
        return {key: tensor for key, tensor in made.items() if isinstance(tensor, Tensor)}

    def features(self, tower: str, tensors: dict[str, Tensor]) -> Tensor:
        """What all modules together make of them, cut to the width that the folder asks for."""
        # The first module reads from the inputs which of its towers is meant.
        inputs: dict[str, Any] = {key: tensor.to(self.device) for key, tensor in tensors.items()} | {"modality": tower}
        with torch.inference_mode():
            return self.model(inputs)["sentence_embedding"][:, : self._width]


def is_sentence_transformers(folder: Path) -> bool:
    """Whether a folder is meant for sentence-transformers."""
    return (folder / MODULES).is_file()


def _opened(folder: Path, device: torch.device) -> Any:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise UnusableError(
            [
                f"{folder} is a model of sentence-transformers, which is not installed: pip install"
                " sentence-transformers, or take its encoder alone by --pool mean, cls, last or pooler"
            ]
        ) from None
    arguments: dict[str, Any] = {"use_safetensors": True, "dtype": torch.float32}
    return SentenceTransformer(
        str(folder), device=str(device), trust_remote_code=False, local_files_only=True, model_kwargs=arguments
    )


def _modalities(model: Any) -> list[str]:
    """What it reads; versions before 5.4 do not say, and their models of images have a CLIPModel first."""
    said = getattr(model, "modalities", None)
    return said if said is not None else ["text", *(["image"] if type(model[0]).__name__ == "CLIPModel" else [])]


def _refuse_code_and_pickles(folder: Path) -> None:
    """Raises UnusableError for modules of other packages, which may be files of the folder, and for other formats of
    weights, which earlier versions of sentence-transformers would take without asking."""
    if strange := sorted({name for name in _classes(folder) if not name.startswith(PACKAGE)}):
        raise UnusableError(
            [f"{folder} needs the class {strange[0]}, which is not of sentence-transformers: such code is never run"]
        )
    for path in (path for pattern in PICKLES for path in folder.rglob(pattern)):
        if not any(path.parent.glob(WEIGHTS)):
            raise UnusableError([f"{path} is no safetensors file, and other formats are never loaded: convert it"])


def _classes(folder: Path) -> Iterator[str]:
    """Of all modules, those inside routers too."""
    try:
        for entry in json.loads((folder / MODULES).read_text(encoding="utf-8")):
            yield str(entry["type"])
        for file in folder.rglob("*config.json"):  # a router's, whose file had several names
            types = json.loads(file.read_text(encoding="utf-8")).get("types")
            yield from map(str, types.values() if isinstance(types, dict) else ())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnusableError([f"{folder} has damaged module files ({error}): download it again"]) from None


def _sha256(folder: Path) -> str:
    """Of the weights of all modules, as of sha256sum's lines; of a single file its own."""
    sums = {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob(WEIGHTS))}
    if len(sums) == 1:
        return next(iter(sums.values()))
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()).hexdigest()
