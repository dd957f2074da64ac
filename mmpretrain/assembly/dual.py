"""A model of transformers with a tower per kind (CLIP, SigLIP, CLAP), as it lies, for a connection that ships it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedConfig

from mmpretrain.assembly.preprocessing import image_entry
from mmpretrain.assembly.sounds import open_extractor, sound_form
from mmpretrain.assembly.tokenizers import text_positions
from mmpretrain.config.data import ModalityConfig
from mmpretrain.config.kind import Kind
from mmpretrain.models.dual_mmpretrain import FEATURES, DualModel
from mmpretrain.models.inputs_mmpretrain import KINDS
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError, one_line

# Where a model lay and what wrote it: nothing of the model.
_INCIDENTAL = ("_name_or_path", "architectures", "dtype", "transformers_version")


@dataclass(frozen=True)
class Dual:
    """Towers are called after their kinds: image, text, audio. content: what ``DualModel`` is built from. sizes: width
    of the embeddings of each tower. weights: of the whole model, float32, by name."""

    content: dict[str, Any]
    processor: MMPretrainProcessor
    sizes: dict[str, int]
    weights: dict[str, Tensor]


def is_dual(config: PreTrainedConfig) -> bool:
    """Whether transformers has a model of this config that has several towers."""
    model_class = AutoModel._model_mapping.get(type(config), None)
    return sum(hasattr(model_class, function) for function in FEATURES.values()) > 1


def open_dual(key: str, folder: Path) -> Dual:
    """key: where the config names the folder. Raises UnusableError for what cannot be opened, or prepares its inputs in
    a way that a release's processor cannot say."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    try:
        model, info = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        processor, masked = _processor(key, folder, model)
    except UnusableError:
        raise
    except Exception as error:  # damaged files raise whatever their parsers raise
        raise UnusableError([f"{key}: {folder} cannot be opened ({one_line(error)})"]) from error
    if info["missing_keys"]:
        raise UnusableError([f"{key}: {folder} has no weights for {min(map(str, info['missing_keys']))}"])
    settings = {name: value for name, value in config.to_dict().items() if name not in _INCIDENTAL}
    towers = {name: entry["kind"] for name, entry in processor.modalities.items()}
    dual = {"architecture": config.model_type, "config": settings, "towers": towers, "masked": masked}
    with torch.device("meta"):
        whole = DualModel(**dual)
    whole.model = model.eval()
    return Dual({"dual": dual}, processor, _sizes(whole, processor), whole.state_dict())


def _processor(key: str, folder: Path, model: Any) -> tuple[MMPretrainProcessor, bool]:
    """The processor, and whether the texts come with a mask."""
    kinds = [Kind(kind) for kind, function in FEATURES.items() if hasattr(model, function)]
    modalities: dict[str, dict[str, Any]] = {}
    tokenizers, extractors, masked = {}, {}, True
    if Kind.image in kinds:
        images = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
        modalities["image"] = {"kind": "image", **image_entry(f"{key}: {folder}", images)}
    if Kind.audio in kinds:
        extractor = extractors["audio"] = open_extractor(key, str(folder), None)
        modalities["audio"] = {"kind": "audio", **sound_form("audio", ModalityConfig(Kind.audio), extractor)._asdict()}
    if Kind.text in kinds:
        tokenizer = tokenizers["text"] = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        limit = min(tokenizer.model_max_length, text_positions(model))
        modalities["text"] = {"kind": "text", "max_length": limit}
        masked = "attention_mask" in tokenizer.model_input_names
    return MMPretrainProcessor(modalities, tokenizers, extractors), masked


@torch.inference_mode()
def _sizes(model: DualModel, processor: MMPretrainProcessor) -> dict[str, int]:
    found = {}
    for name, entry in processor.modalities.items():
        sample = KINDS[entry["kind"]].empty(entry)
        found[name] = model(**processor(**{name: sample})).embeds[name].shape[1]
    return found
