"""What the processor answers: tensors nested by modality, which transformers, accelerate and torch can carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BatchFeature

FORMS = ("pt", "np")


class MMPretrainInputs(BatchFeature):
    """Modality -> keyword tensors of its encoder; ``model(**inputs)`` takes it.

    The keys are the modalities. What a single modality has, or none, is reached by its own name too:
    ``inputs["pixel_values"]``, ``inputs.input_ids``, ``inputs["labels"] = ...``. KeyError (AttributeError with a dot)
    for what is not there, or belongs to several modalities.
    """

    skip_tensor_conversion = None

    # Any: what a batch holds besides tensors is its maker's.
    def __init__(self, data: Mapping[str, Any] | None = None, tensor_type: Any = None, **_: Any) -> None:
        # Not through setting each: names that stand beside the modalities must stay there.
        self.data = dict(data or {})
        self.convert_to_tensors(tensor_type)

    def __getitem__(self, key: str) -> Any:
        return self._holder(key)[key]

    def __setitem__(self, key: str, value: Any) -> None:
        try:
            self._holder(key)[key] = value
        except KeyError:
            self.data[key] = value

    def __delitem__(self, key: str) -> None:
        del self._holder(key)[key]

    def __contains__(self, key: object) -> bool:
        try:
            return key in self._holder(str(key))
        except KeyError:
            return False

    def __getattr__(self, name: str) -> Any:
        if name == "data" or name.startswith("__"):  # before there is any, while it is copied or unpickled
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def to(self, *args: Any, **kwargs: Any) -> MMPretrainInputs:
        """Move it, as ``Tensor.to``: a device, a dtype (floats only: token ids and masks stay whole), or both.

        Returns itself, changed, as transformers' own.
        """
        for name, value in self.data.items():
            nested = isinstance(value, Mapping)
            moved = BatchFeature(value if nested else {name: value}).to(*args, **kwargs)
            self.data[name] = moved.data if nested else moved.data[name]
        return self

    def flat(self) -> MMPretrainInputs:
        """The tensors of the only modality, not nested: every sample has it. Raises ValueError for several."""
        if len(self.data) != 1:
            raise ValueError(f"flat is for one modality at a time, and these are {', '.join(self.data) or 'none'}")
        (tensors,) = self.data.values()
        return MMPretrainInputs({key: tensor for key, tensor in tensors.items() if key != "present"})

    def convert_to_tensors(self, tensor_type: Any = None, *_: Any, **__: Any) -> MMPretrainInputs:
        """All tensors as torch's (``"pt"``) or numpy's (``"np"``); None: as they are. ValueError for anything else."""
        if tensor_type is not None:
            check_form(tensor_type)
            self.data = {
                name: {key: _converted(item, tensor_type) for key, item in value.items()}
                if isinstance(value, Mapping)
                else _converted(value, tensor_type)
                for name, value in self.data.items()
            }
        return self

    def _holder(self, key: str) -> dict[str, Any]:
        """Where ``key`` lies: here, or in the one modality that has it."""
        if key in self.data:
            return self.data
        holders = [name for name, value in self.data.items() if isinstance(value, dict) and key in value]
        if len(holders) == 1:
            found: dict[str, Any] = self.data[holders[0]]
            return found
        if holders:
            raise KeyError(f"{' and '.join(holders)} have {key!r}: say which, inputs[{holders[0]!r}][{key!r}]")
        raise KeyError(f"{key!r} is not there: the modalities are {', '.join(self.data)}")


def check_form(form: Any) -> None:
    """Raises ValueError unless ``form`` (``return_tensors``) is one of FORMS, or None."""
    if form is not None and getattr(form, "value", form) not in FORMS:
        raise ValueError(f"return_tensors is {form!r}: use 'pt' for torch's tensors or 'np' for numpy's arrays")


def collated(samples: Sequence[Mapping[str, Any]], fillers: Mapping[str, int]) -> MMPretrainInputs:
    """What the processor answered for single samples or small batches, as one batch.

    Texts and sequences that were padded to several lengths get the longest; fillers: modality -> its padding token.
    What stands beside the modalities, as ``labels``, becomes a tensor [b, ...]. Raises ValueError if the samples do not
    have the same modalities.
    """
    names = list(samples[0])
    if any(list(sample) != names for sample in samples):
        raise ValueError(f"every sample of a batch needs the same modalities in one order; the first has {names}")
    batch = MMPretrainInputs()
    for name in names:
        values = [sample[name] for sample in samples]
        if not isinstance(values[0], Mapping):
            batch.data[name] = torch.stack([torch.as_tensor(value) for value in values])
            continue
        batch.data[name] = {
            key: _joined([torch.as_tensor(value[key]) for value in values], fillers.get(name, 0) * (key == "input_ids"))
            for key in values[0]
        }
    return batch


def _joined(tensors: Sequence[Tensor], filler: int) -> Tensor:
    """[b_i, n_i, ...] each -> [sum of b_i, the greatest n_i, ...]; only texts and sequences have several lengths."""
    if tensors[0].ndim > 1 and len({len(tensor[0]) for tensor in tensors}) > 1:
        longest = max(tensor.shape[1] for tensor in tensors)
        tensors = [
            functional.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, longest - tensor.shape[1]), value=filler)
            for tensor in tensors
        ]
    return torch.cat(list(tensors))


def _converted(value: Any, form: Any) -> Any:
    if getattr(form, "value", form) == "np":
        return value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
