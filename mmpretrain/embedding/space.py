"""What a frozen space is: a model, the modalities that it embeds, and how samples of them are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import weights_sha256
from mmpretrain.words import listed

PixelStatistics = tuple[Sequence[float], Sequence[float]]  # mean and standard deviation of each channel


class Space(ABC):
    """A frozen model. towers: name of each modality that it embeds -> how samples of it are read.

    name: of the release. sha256: of its weights (see :func:`weights_sha256`). choices: what else decides about
    embeddings, by name.
    """

    towers: dict[str, ModalityConfig]

    def __init__(self, folder: Path, name: str, device: torch.device) -> None:
        self.name, self.device = name, device
        self.choices: dict[str, str] = {}
        self.sha256 = weights_sha256(folder)

    @abstractmethod
    def tower_for(self, modality: str, kinds: Sequence[Kind]) -> str | None:
        """The tower that embeds a modality of a data set, by its name or by what its files may hold."""

    @abstractmethod
    def tensors(self, tower: str, items: list[Any]) -> dict[str, Tensor]:
        """b raw samples -> what :meth:`features` takes."""

    @abstractmethod
    def features(self, tower: str, tensors: dict[str, Tensor]) -> Tensor:
        """float [b, d] on the device, not normalized; evaluation mode, no gradient."""


def load_model(folder: Path, model_class: Any = AutoModel, **arguments: Any) -> nn.Module:
    """The model in float32 and evaluation mode. model_class: an Auto class or its own. arguments: of its class.

    Raises UnusableError for missing weights, and what transformers raises.
    """
    arguments |= {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    model, info = model_class.from_pretrained(folder, output_loading_info=True, **arguments)
    if info["missing_keys"]:
        raise UnusableError([f"{folder} has no weights for {listed(sorted(map(str, info['missing_keys'])), 5)}"])
    return model.eval().requires_grad_(False)
