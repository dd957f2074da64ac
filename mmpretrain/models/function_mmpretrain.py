"""A model as a function from tensors to tensors, without dicts and keywords: what graphs are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .intake_mmpretrain import MASK, Takes

# Of each modality, in this order, where the model has them.
OUTPUTS = ("embeds", "shared_embeds", "unique_embeds")


class ModalityFunction(nn.Module):
    """``function(*function.arguments(inputs))`` -> ``function.outputs``: embeddings, and codes if the model has them.

    For tools that make graphs of functions: torch.export, ONNX, TorchScript. inputs: ``(modality, tensor's name)`` of
    every argument. outputs: ``(modality, output's name)`` of every answer, [b, d] each, embeddings not normalized.
    keys: modality -> the names of its tensors; default: what its encoder cannot do without, and a mask for token ids
    and for steps. Raises ValueError for an unknown modality.
    """

    def __init__(self, model: Any, modalities: Sequence[str], keys: Mapping[str, Sequence[str]] | None = None) -> None:
        super().__init__()
        takes: dict[str, Takes] = model.takes
        for name in modalities:
            if name not in takes:
                raise ValueError(f"unknown modality {name!r}: this model has {', '.join(takes)}")
        self.model = model
        used = {name: (keys or {}).get(name) or _keys(takes[name]) for name in modalities}
        self.inputs = [(name, key) for name, keys_of in used.items() for key in keys_of]
        made = OUTPUTS if len(model.factors) or len(model.components) else OUTPUTS[:1]
        self.outputs = [(name, output) for name in modalities for output in made]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Tensors [b, ...] in the order of ``inputs`` -> [b, d] each, in the order of ``outputs``."""
        given: dict[str, dict[str, Tensor]] = {}
        for (name, key), tensor in zip(self.inputs, tensors, strict=True):
            given.setdefault(name, {})[key] = tensor
        output = self.model(**given, return_dict=True)
        return tuple(getattr(output, key)[name] for name, key in self.outputs)

    def arguments(self, inputs: Mapping[str, Mapping[str, Tensor]]) -> tuple[Tensor, ...]:
        """What a processor made, in the order of ``inputs``. Raises KeyError for what it did not make."""
        return tuple(inputs[name][key] for name, key in self.inputs)


def _keys(takes: Takes) -> list[str]:
    masked = takes.main in ("input_ids", "values") and MASK in takes.keys
    return [takes.main, MASK] if masked else [takes.main]
