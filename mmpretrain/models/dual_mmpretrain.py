"""A model of transformers with a tower per kind (CLIP, SigLIP, CLAP), whole: a space that is connected to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Its Auto classes are looked up when used: loading them here would load the module that needs this one.
import transformers
from torch import Tensor, nn

from .intake_mmpretrain import MASK, PRESENT, Takes, takes
from .precision_mmpretrain import as_computed
from .recording_mmpretrain import Recorder

FEATURES = {"image": "get_image_features", "audio": "get_audio_features", "text": "get_text_features"}
CONFIGS = {"image": "vision_config", "audio": "audio_config", "text": "text_config"}
MAIN = {"image": "pixel_values", "audio": "input_features", "text": "input_ids"}


@dataclass
class DualOutput:
    """embeds: modality -> [b, d], not normalized."""

    embeds: dict[str, Tensor]


class DualModel(nn.Module):
    """architecture, config: the ``model_type`` of transformers, and its content. towers: modality -> its kind, which is
    one of ``FEATURES``. masked: whether texts come with a mask; some models were trained on padding without one.
    attention: which of transformers' implementations its layers use; None: its own choice.
    """

    def __init__(
        self,
        architecture: str,
        config: dict[str, Any],
        towers: Mapping[str, str],
        masked: bool,
        attention: str | None = None,
    ) -> None:
        super().__init__()
        self.towers, self.masked = dict(towers), masked
        of_model = transformers.CONFIG_MAPPING[architecture].from_dict(config)
        if attention is not None:
            of_model._attn_implementation = attention
        self.model: Any = transformers.AutoModel.from_config(of_model)

    def forward(self, /, *, _record: Recorder | None = None, **inputs: dict[str, Tensor]) -> DualOutput:
        """Modality -> keyword tensors of its tower, [b, ...] each -> what its ``get_..._features`` gives."""
        return DualOutput({name: self._features(name, tensors, _record) for name, tensors in inputs.items()})

    @property
    def takes(self) -> dict[str, Takes]:
        """Modality -> what its tower takes."""
        return {name: self._takes(kind) for name, kind in self.towers.items()}

    def vocabulary(self, name: str) -> int | None:
        """How many token ids a modality knows; None for others than texts."""
        if self.towers[name] != "text":
            return None
        found: int | None = getattr(self.model.config.get_text_config(), "vocab_size", None)
        return found

    def _takes(self, kind: str) -> Takes:
        config = getattr(self.model.config, CONFIGS[kind], None)
        found = takes(MAIN[kind], getattr(type(self.model), FEATURES[kind]), config)
        # A mask is dropped where the model was trained without one.
        return found._replace(keys=found.keys | {MASK}) if kind == "text" else found

    def _features(self, name: str, tensors: Mapping[str, Tensor], record: Recorder | None) -> Tensor:
        kind = self.towers[name]
        left_out = (PRESENT,) if self.masked or kind != "text" else (PRESENT, MASK)
        given = as_computed({key: t for key, t in tensors.items() if key not in left_out}, self.model)
        if record is None:
            return tower_features(self.model, kind, given)
        output = getattr(self.model, FEATURES[kind])(**given, **record.flags)
        record.add(name, output)
        return _pooled(output)


def tower_features(model: Any, kind: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """What ``model``'s own function for inputs of this kind gives: [b, d], not normalized."""
    return _pooled(getattr(model, FEATURES[kind])(**tensors))


def _pooled(output: Any) -> Tensor:
    # A tensor in transformers 4, an output object in 5.
    return output if isinstance(output, Tensor) else output.pooler_output
