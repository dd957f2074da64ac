"""What a call of the model may pass: tensors by modality, or flat as transformers' own models take them.

Everything here looks at names, types and shapes alone, so that no step waits for a GPU; what tensors hold is looked at
in contents_mmpretrain.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

# Among a modality's tensors: bool [b], which samples have it.
PRESENT = "present"
MASK = "attention_mask"
# The main input of an encoder -> the kind of the modality, as transformers' users call it.
KIND_OF = {"pixel_values": "image", "input_ids": "text", "input_values": "audio", "input_features": "audio"}
# Keywords of transformers' encoders that are no part of a sample.
_NOT_OF_SAMPLES = {
    "self",
    "kwargs",
    "inputs_embeds",
    "past_key_values",
    "use_cache",
    "encoder_hidden_states",
    "encoder_attention_mask",
    "output_hidden_states",
    "output_attentions",
    "return_dict",
    "states",
}
Tensors = dict[str, Any]


class Takes(NamedTuple):
    """What a modality's encoder takes. main: the keyword that it cannot do without. keys: all keywords. rank: how many
    dimensions main has, channels: of its pixels; None where the encoder itself says what is wrong."""

    main: str
    keys: frozenset[str]
    rank: int | None = None
    channels: int | None = None

    @property
    def flat(self) -> frozenset[str]:
        """Keywords that may stand outside a modality's dict: an ``attention_mask`` there is nobody's of pixels."""
        return self.keys - {PRESENT} - ({MASK} if self.main == "pixel_values" else frozenset())

    @property
    def looked_at(self) -> bool:
        """Whether there are token ids or a mask to look at."""
        return self.main != "pixel_values" and MASK in self.keys

    @property
    def placed(self) -> bool:
        """Whether its mask speaks of the places of main, [b, n, ...], one by one."""
        return self.main in ("input_ids", "values") or (self.main == "input_values" and self.rank == 2)


VECTOR = Takes("values", frozenset({"values", PRESENT}))


def takes(main: str, forward: Callable[..., Any], config: Any = None) -> Takes:
    """Of a module by the signature of its ``forward``. config: of transformers, if it is one of theirs."""
    parameters = inspect.signature(forward).parameters
    keys = {*parameters} - _NOT_OF_SAMPLES | {main, PRESENT}
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if free and main != "pixel_values":
        keys.add(MASK)  # which a processor always gives, and encoders without a use for one swallow
    return Takes(main, frozenset(keys), _rank(main, keys, config), getattr(config, "num_channels", None))


def _rank(main: str, keys: set[str], config: Any) -> int | None:
    kind = getattr(config, "model_type", None)
    if main == "pixel_values":
        # Patches of pictures of any size, and frames of videos, have other shapes.
        return None if "spatial_shapes" in keys or hasattr(config, "num_frames") else 4
    if main == "input_values":
        return 3 if kind == "audio-spectrogram-transformer" else 2
    return {"input_ids": 2, "input_features": 4 if kind == "clap_audio_model" else 3}.get(main)


def by_modality(inputs: Mapping[str, Any], known: Mapping[str, Takes]) -> dict[str, Tensors]:
    """Keywords of a call -> modality -> its tensors, in the order of ``known``.

    Raises ValueError for no modality, for unknown ones, and for flat tensors that belong to none or to several.
    """
    if not inputs:
        raise ValueError(f"no modality was passed: give at least one of {', '.join(known)}")
    given: dict[str, Tensors] = {}
    flat: Tensors = {}
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            if name not in known:
                raise ValueError(f"unknown modality {name!r}: this model has {', '.join(known)}")
            given[name] = dict(value)
        elif name in known:
            raise ValueError(f"modality {name!r} is a {type(value).__name__}: pass a dict of its tensors")
        elif value is not None:
            flat[name] = value
    for key in flat:
        given.setdefault(_owner(key, flat, given, known), {})[key] = flat[key]
    return {name: given[name] for name in known if name in given}


def _owner(key: str, flat: Tensors, given: Mapping[str, Tensors], known: Mapping[str, Takes]) -> str:
    """The modality that a flat tensor belongs to."""
    every = [name for name in known if key in known[name].flat]
    if not every:
        taken = ", ".join(sorted({one for name in known for one in known[name].flat}))
        raise ValueError(f"unknown input {key!r}: this model has the modalities {', '.join(known)}, which take {taken}")
    # A modality that came as a dict has all that belongs to it.
    candidates = [name for name in every if name not in given or key not in given[name]]
    if len(candidates) > 1:
        candidates = [name for name in candidates if known[name].main in flat] or candidates
    if len(candidates) != 1:
        names = " or ".join(every)
        raise ValueError(f"{key} may be of {names}: say which, as {every[0]}={{{key!r}: ...}}")
    return candidates[0]


def check_shapes(name: str, tensors: Mapping[str, Any], wanted: Takes) -> int:
    """The number of samples. Raises ValueError, which names the modality, for what its encoder cannot take."""
    main = tensors.get(wanted.main)
    if main is None:
        raise ValueError(f"modality {name!r} needs {wanted.main}, got {', '.join(sorted(tensors)) or 'nothing'}")
    if not tensors.keys() <= wanted.keys:
        unknown = min(tensors.keys() - wanted.keys)
        raise ValueError(f"modality {name!r} takes no {unknown!r}: it knows {', '.join(sorted(wanted.keys))}")
    if not isinstance(main, Tensor):
        raise ValueError(f"modality {name!r}: {wanted.main} is a {type(main).__name__}: pass a tensor, samples first")
    if problem := _main_problem(main, wanted):
        raise ValueError(f"modality {name!r}: {wanted.main} {problem}")
    rows = main.shape[0]
    for key, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.ndim and tensor.shape[0] != rows:
            if key == "position_ids" and tensor.shape[0] == 1:  # the same for all
                continue
            raise ValueError(
                f"modality {name!r}: {key} has {tensor.shape[0]} samples and {wanted.main} {rows}: each needs both"
            )
    mask = tensors.get(MASK)
    if mask is not None and wanted.main != "pixel_values":
        _check_mask(name, mask, main, wanted)
    return rows


def _main_problem(main: Tensor, wanted: Takes) -> str | None:
    """What is wrong with the main input."""
    shape = list(main.shape)
    if wanted.rank is not None and main.ndim != wanted.rank:
        missing = ": the batch comes first, one sample is unsqueeze(0)" if main.ndim == wanted.rank - 1 else ""
        return f"has shape {shape}, {wanted.rank} dimensions are needed{missing}"
    if main.ndim == 0:
        return "is a single number: the batch comes first"
    if not shape[0]:
        return "has no samples: an empty batch has no embeddings, leave the call out"
    if wanted.main == "input_ids":
        if main.is_floating_point() or main.is_complex() or main.dtype.itemsize < 4:
            return f"is {main.dtype}: token ids are whole numbers, int64"
        return None if shape[1] else f"has shape {shape}: a text without a token has no embedding"
    if wanted.main != "values" and not main.is_floating_point():
        return f"is {main.dtype}: floats are needed, as the processor makes them"
    if wanted.main == "pixel_values" and wanted.rank == 4 and wanted.channels not in (None, shape[1]):
        return f"has shape {shape}, expected [batch, {wanted.channels}, height, width]"
    return "is complex: real numbers are needed" if main.is_complex() else None


def _check_mask(name: str, mask: Any, main: Tensor, wanted: Takes) -> None:
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        found = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"modality {name!r}: {MASK} is {found}: [batch, places] is needed, 1 for those that count")
    if wanted.placed and main.ndim > 1 and mask.shape[1] != main.shape[1]:
        raise ValueError(
            f"modality {name!r}: {MASK} has {mask.shape[1]} places and {wanted.main} {main.shape[1]}: one for each is"
            " needed"
        )


def check_together(rows: Mapping[str, int], why: str) -> None:
    """Raises ValueError where modalities that are joined sample by sample have different numbers of samples."""
    if len(set(rows.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ValueError(f"modalities have different numbers of samples ({found}): {why} needs them side by side")


def aliases(known: Mapping[str, Takes]) -> dict[str, str]:
    """Kind (image, text, audio) -> the only modality of it."""
    kinds = {name: KIND_OF.get(wanted.main) for name, wanted in known.items()}
    found: Sequence[str | None] = list(kinds.values())
    return {kind: name for name, kind in kinds.items() if kind and found.count(kind) == 1 and kind not in known}
