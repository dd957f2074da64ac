"""Plain transformers models as spaces: a text tower beside one of images or of sounds, or a single encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

from mmpretrain.assembly.sounds import open_extractor, sound_form
from mmpretrain.assembly.tokenizers import text_positions
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.embedding.space import PixelStatistics, Space, load_model
from mmpretrain.models.audio_mmpretrain import PARTS, audio_class, audio_part, audio_tensors, frames_mask
from mmpretrain.models.dual_mmpretrain import FEATURES, tower_features
from mmpretrain.models.encoders_mmpretrain import pooling_arguments
from mmpretrain.models.images_mmpretrain import flat
from mmpretrain.models.pooling_mmpretrain import pool_states
from mmpretrain.problems import UnusableError

MAP = 4  # axes of a batch of feature maps
INPUTS = {kind: kind.row.tensors for kind in Kind if kind.row.transformers_models}


class TransformersSpace(Space):
    """Towers are named after the kind that they take, and so fit a data set's modality of any name. images,
    tokenizer, extractor: the model's own, None without such a tower. text_limit: tokens that texts are cut at."""

    def __init__(self, folder: Path, name: str, device: torch.device, model: nn.Module, kinds: Sequence[Kind]) -> None:
        super().__init__(folder, name, device)
        self.model: Any = model.to(device)
        # The processor sizes images; this size only says that there is one.
        readings = {kind: ModalityConfig(kind) for kind in map(Kind, FEATURES)} | {
            Kind.image: ModalityConfig(Kind.image, [1, 1])
        }
        self.towers = {kind.value: readings[kind] for kind in kinds}
        # False, not the default: left open, transformers asks on the terminal whether to run the folder's code.
        no_code: Any = {"trust_remote_code": False}
        self.images: Any = AutoImageProcessor.from_pretrained(folder, **no_code) if Kind.image in kinds else None
        self.tokenizer = _tokenizer(folder, name) if Kind.text in kinds else None
        self.extractor = open_extractor(name, str(folder), None) if Kind.audio in kinds else None

    @property
    def padding(self) -> str:
        """To the longest of a batch only where padding is masked: otherwise embeddings would hang on the others."""
        assert self.tokenizer is not None
        return "longest" if "attention_mask" in self.tokenizer.model_input_names else "max_length"

    def tower_for(self, modality: str, kinds: Sequence[Kind]) -> str | None:
        """The tower that takes what the files hold."""
        return next((kind.value for kind in kinds if kind.value in self.towers), None)

    def tensors(self, tower: str, items: list[Any]) -> dict[str, Tensor]:
        """``pixel_values``, what the feature extractor makes of sounds, or ``input_ids`` and what else the tokenizer
        gives; sounds and texts are cut at the model's limit."""
        if tower == Kind.audio.value:
            form = sound_form(tower, self.towers[tower], self.extractor)
            return audio_tensors(tower, items, form._asdict(), self.extractor)
        if tower == Kind.image.value:
            assert self.images is not None
            images = [flat(image, channels=3) if isinstance(image, Image.Image) else image for image in items]
            return {"pixel_values": self.images(images=images, return_tensors="pt")["pixel_values"]}
        assert self.tokenizer is not None
        # On the left, padding would shift the positions, and stand where the first token is looked for.
        cut: dict[str, Any] = {"truncation": True, "max_length": self.text_limit, "padding_side": "right"}
        return dict(self.tokenizer(items, padding=self.padding, **cut, return_tensors="pt"))

    @property
    def pixel_statistics(self) -> PixelStatistics:
        """What is taken from pixels of 0 to 1."""
        if not getattr(self.images, "do_normalize", False):
            return [0.0] * 3, [1.0] * 3
        return list(self.images.image_mean), list(self.images.image_std)

    @property
    def text_limit(self) -> int:
        """Of tokenizer and model the lesser."""
        assert self.tokenizer is not None
        return min(self.tokenizer.model_max_length, text_positions(self.model))


class DualSpace(TransformersSpace):
    """A model with ``get_text_features``, and ``get_image_features``, ``get_audio_features`` or a tower of another
    kind, which is not used."""

    def __init__(self, folder: Path, name: str, device: torch.device, model: nn.Module) -> None:
        kinds = [Kind(kind) for kind, function in FEATURES.items() if hasattr(model, function)]
        # Of a folder that says nothing of how sounds are prepared, the texts can still be used.
        if not any((folder / file).is_file() for file in ("preprocessor_config.json", "processor_config.json")):
            kinds = [kind for kind in kinds if kind is not Kind.audio]
        super().__init__(folder, name, device, model, kinds)

    @property
    def padding(self) -> str:
        """Beside images to the full length: some were trained with it and have no mask."""
        return "max_length" if Kind.image.value in self.towers else super().padding

    def features(self, tower: str, tensors: dict[str, Tensor]) -> Tensor:
        """What the tower's ``get_..._features`` gives."""
        with torch.inference_mode():
            return tower_features(self.model, tower, {key: tensor.to(self.device) for key, tensor in tensors.items()})


class SingleSpace(TransformersSpace):
    """One encoder of images, of texts or of sounds, its states pooled (``mean``, ``cls``, ``last``, ``pooler``)."""

    def __init__(self, folder: Path, name: str, device: torch.device, model: nn.Module, kind: Kind, pool: str) -> None:
        super().__init__(folder, name, device, model, (kind,))
        self._pool = pool
        self.choices = {"pool": pool}

    def features(self, tower: str, tensors: dict[str, Tensor]) -> Tensor:
        """The pooled states. Raises UnusableError if the model has no pooler and one is asked for."""
        inputs = {key: tensor.to(self.device) for key, tensor in tensors.items()}
        with torch.inference_mode():
            output = self.model(**inputs)
            if self._pool != "pooler":
                states = output.last_hidden_state
                if states.ndim == MAP and self._pool in ("cls", "last"):
                    raise UnusableError(
                        [f"{self.name} gives a feature map, which has no first and no last token: use --pool mean"]
                    )
                mask = frames_mask(self.model, inputs.get("attention_mask"), states.shape[1])
                return pool_states(states, mask, self._pool)
        if getattr(output, "pooler_output", None) is None:
            raise UnusableError([f"{self.name} has no pooler: use --pool mean, cls or last"])
        return output.pooler_output.flatten(1)


def _tokenizer(folder: Path, name: str) -> Any:
    """Raises UnusableError if it can pad with nothing."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token is None:
        if "attention_mask" not in tokenizer.model_input_names or tokenizer.eos_token is None:
            raise UnusableError([f"{name}: its tokenizer has no padding token: name one in its tokenizer_config.json"])
        tokenizer.pad_token = tokenizer.eos_token  # any one will do: it is masked
    return tokenizer


def open_transformers_space(folder: Path, name: str, device: torch.device, pool: str) -> Space:
    """The space of a transformers folder. Raises UnusableError for a model of neither form."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    # Many text encoders were published without the pooler that their class would add.
    arguments = pooling_arguments(config, pool) if type(config) in MODEL_MAPPING else {}
    model: Any = audio_part(load_model(folder, audio_class(config) or AutoModel, **arguments), config)
    if hasattr(model, "get_text_features"):
        return DualSpace(folder, name, device, model)
    kind = next((kind for kind, names in INPUTS.items() if model.main_input_name in names), None)
    whole = getattr(config, "is_encoder_decoder", False) and config.model_type not in PARTS
    if kind is None or whole:
        raise UnusableError(
            [
                f"{name} is a {type(model).__name__}, which is neither an encoder of images, texts or sounds nor a pair"
                " of them"
            ]
        )
    return SingleSpace(folder, name, device, model, kind, pool)
