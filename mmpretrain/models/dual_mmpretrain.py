"""A model of transformers with a tower per kind (CLIP, SigLIP, CLAP), whole: a space that is connected to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Its Auto classes are looked up when used: loading them here would load the module that needs this one.
import transformers
from torch import Tensor, nn

from .precision_mmpretrain import as_computed

FEATURES = {"image": "get_image_features", "audio": "get_audio_features", "text": "get_text_features"}


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

    def forward(self, /, **inputs: dict[str, Tensor]) -> DualOutput:
        """Modality -> keyword tensors of its tower, [b, ...] each -> what its ``get_..._features`` gives."""
        return DualOutput({name: self._features(name, tensors) for name, tensors in inputs.items()})

    def _features(self, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
        kind = self.towers[name]
        left_out = ("present",) if self.masked or kind != "text" else ("present", "attention_mask")
        kept = {key: t for key, t in tensors.items() if key not in left_out}
        return tower_features(self.model, kind, as_computed(kept, self.model))


def tower_features(model: Any, kind: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """What ``model``'s own function for inputs of this kind gives: [b, d], not normalized."""
    output = getattr(model, FEATURES[kind])(**tensors)
    # A tensor in transformers 4, an output object in 5.
    return output if isinstance(output, Tensor) else output.pooler_output
