"""Raw samples of one modality -> the keyword tensors of its encoder: one function per kind, and a row in KINDS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .audio_mmpretrain import audio_tensors, empty_sound
from .images_mmpretrain import Image
from .reading_mmpretrain import as_array, as_image
from .resizing_mmpretrain import Pictures, fitted, normalized
from .texts_mmpretrain import clean

MULTIPLE = "pad_to_multiple_of"  # the key of an entry whose samples are padded to the longest of a call
# Keys of an entry for a single call (calls_mmpretrain.py): how many tokens of a text count, whether longer ones are
# refused, and whether nothing is padded.
CUT, WHOLE, UNPADDED = "cut", "whole", "unpadded"


def image_tensors(name: str, images: Any, modality: dict[str, Any], tokenizer: Any = None) -> dict[str, Tensor]:
    """Images (one or a list; see :func:`as_image`), or :class:`Pictures` -> ``pixels`` uint8 [b, height, width,
    channels].

    As a viewer shows them, on the ``background`` of the entry, in grey or RGB, brought to ``size`` as ``resize`` says
    (see :func:`fitted`). What an encoder takes :func:`normalized` makes of it, under another name: it cannot be
    forgotten. Raises ValueError for anything else, and for modes that cannot be scaled honestly.
    """
    if isinstance(images, Pictures):
        return {"pixels": torch.from_numpy(images.pixels)}
    if getattr(images, "ndim", 0) == 4:
        images = list(images)
    items = _as_list(name, images)
    if Image is None:
        raise ValueError(f"modality {name!r} is an image, and Pillow is not installed: pip install pillow")
    pixels = np.empty((len(items), *modality["size"], modality["channels"]), np.uint8)
    for image, row in zip(items, pixels, strict=True):
        try:
            fitted(as_image(image), modality, row)
        except ValueError as error:
            raise ValueError(f"modality {name!r} has {error}") from error
    return {"pixels": torch.from_numpy(pixels)}


def text_tensors(name: str, texts: Any, modality: dict[str, Any], tokenizer: Any) -> dict[str, Tensor]:
    """Strings (one or a list) -> ``input_ids`` and ``attention_mask``, int64 [b, n].

    Cleaned as in training (see :func:`clean`), cut to ``max_length`` and padded on the right to n (see
    :func:`padded_length`). Raises ValueError for anything but strings, for those that are none, and, if the call
    forbids to cut, for longer ones.
    """
    items = _as_list(name, texts)
    for text in items:
        if not isinstance(text, str):
            raise ValueError(
                f"modality {name!r} needs strings, got a {type(text).__name__}; token ids go to the model itself, as"
                " input_ids and attention_mask"
            )
    longest, cut = modality["max_length"], modality.get(CUT, modality["max_length"])
    cleaned = [_cleaned(name, text) for text in items]
    if modality.get(WHOLE):
        _check_whole(name, cleaned, cut, tokenizer)
    tokens = tokenizer(
        cleaned,
        padding="max_length",
        truncation=True,
        max_length=cut,
        padding_side="right",
        return_attention_mask=True,
    )
    # Through numpy: transformers' own way to tensors walks over all numbers in Python and takes longer than tokenizing.
    ids, mask = (np.array(tokens[key], dtype=np.int64) for key in ("input_ids", "attention_mask"))
    if cut < longest:
        more = ((0, 0), (0, longest - cut))
        ids, mask = np.pad(ids, more, constant_values=tokenizer.pad_token_id), np.pad(mask, more)
    length = _text_length(name, mask.sum(axis=1).tolist(), longest, modality)
    # Copies: a view would carry what it does not show from one process to another.
    return {
        "input_ids": torch.from_numpy(ids[:, :length].copy()),
        "attention_mask": torch.from_numpy(mask[:, :length].copy()),
    }


def vector_tensors(name: str, vectors: Any, modality: dict[str, Any], tokenizer: Any = None) -> dict[str, Tensor]:
    """Vectors (one, a list, or the rows of a matrix) -> ``values`` float32 [b, features].

    Scaled by ``minimum`` and ``maximum`` if the modality has them. Raises ValueError for vectors of another length
    than ``size``, and for values that are no finite numbers.
    """
    (features,) = modality["size"]
    matrix = isinstance(vectors, np.ndarray) and vectors.dtype == np.float32 and vectors.shape[1:] == (features,)
    # The rows of a matrix need not be looked at one by one.
    values = vectors if matrix and len(vectors) else _stacked_vectors(name, vectors, features)
    if "minimum" in modality:
        low, high = np.asarray(modality["minimum"]), np.asarray(modality["maximum"])
        # The small constant keeps features that never vary in training finite.
        values = (values - low) / (high - low + 1e-10)
    return {"values": torch.from_numpy(_finite(name, values))}


def _stacked_vectors(name: str, vectors: Any, features: int) -> np.ndarray:
    """float64 [b, features]. Raises ValueError for vectors of another length."""
    if hasattr(vectors, "ndim"):
        vectors = list(vectors) if vectors.ndim == 2 else [vectors]
    rows = [_numbers(row).astype(np.float64) for row in _as_list(name, vectors)]
    for row in rows:
        if row.shape != (features,):
            raise ValueError(f"modality {name!r} needs vectors of {features} features, got shape {list(row.shape)}")
    return np.stack(rows)


def sequence_tensors(name: str, sequences: Any, modality: dict[str, Any], tokenizer: Any = None) -> dict[str, Tensor]:
    """Sequences [t, features] (one, a list, or the rows of an array of three dimensions) -> ``values`` float32
    [b, T, features] and ``attention_mask`` int64 [b, T], T at most the number of time steps in ``size``.

    Longer ones are cut, shorter ones padded with zeros at the end (to T, see :func:`padded_length`). Raises ValueError
    for sequences without time steps or with another number of features than ``size``, and for values that are no finite
    numbers.
    """
    if hasattr(sequences, "ndim"):
        sequences = list(sequences) if sequences.ndim == 3 else [sequences]
    steps, features = modality["size"]
    items = _as_list(name, sequences)
    arrays = [_numbers(item) for item in items]
    for array in arrays:
        if array.ndim != 2 or not len(array) or array.shape[1] != features:
            raise ValueError(
                f"modality {name!r} needs sequences of shape [time steps, {features}], got shape {list(array.shape)}"
            )
    lengths = [min(len(array), steps) for array in arrays]
    padded = padded_length(lengths, steps, modality)
    values = np.zeros((len(arrays), padded, features), dtype=np.float32)
    mask = np.zeros((len(arrays), padded), dtype=np.int64)
    for row, (array, length) in enumerate(zip(arrays, lengths, strict=True)):
        values[row, :length] = _finite(name, array[:length])
        mask[row, :length] = 1
    return {"values": torch.from_numpy(values), "attention_mask": torch.from_numpy(mask)}


def padded_length(lengths: Sequence[int], longest: int, modality: dict[str, Any]) -> int:
    """To how many places samples of these lengths are padded together; no sample may have more than ``longest``.

    With ``pad_to_multiple_of`` in their entry: to a multiple of that which holds them all, and is at most ``longest``;
    without it, as in releases from before there was a choice, to ``longest``. So are samples of which one has no place
    of its own: attention over padding alone sees how much of it there is.
    """
    multiple = modality.get(MULTIPLE)
    if multiple is None or not all(lengths):
        return longest
    return min(-(-max(lengths) // multiple) * multiple, longest)


def encoded_tensors(name: str, items: Any, modality: dict[str, Any], reader: Any) -> dict[str, Tensor]:
    """Samples of modality ``name`` by its entry, tokenizer or feature extractor: images as ``pixels``, all else
    finished. Some may be None if it is optional; ``present`` says which were there."""
    tensors = KINDS[modality["kind"]].tensors
    if not modality.get("optional"):
        return tensors(name, items, modality, reader)
    filled, present = optional_samples(name, items, modality)
    return mark_absent(tensors(name, filled, modality, reader), present)


def finished_tensors(tensors: dict[str, Tensor], modality: dict[str, Any]) -> dict[str, Tensor]:
    """What :func:`encoded_tensors` made, as the encoder takes it. What is finished stays so."""
    finished = KINDS[modality["kind"]].finished
    return tensors if finished is None else finished(tensors, modality)


def tensor_names(modality: Mapping[str, Any], reader: Any) -> list[str]:
    """How the tensors of a modality are called."""
    names = {
        "image": ["pixel_values"],
        "text": ["input_ids", "attention_mask"],
        "vector": ["values"],
        "sequence": ["values", "attention_mask"],
        "audio": ["waveform", "length"] if reader is None else list(reader.model_input_names),
    }[modality["kind"]]
    return [*names, "present"] if modality.get("optional") else names


def optional_samples(name: str, items: Any, modality: dict[str, Any]) -> tuple[Any, Tensor]:
    """Samples of which some may be None -> a list with an empty sample in the place of each None, and bool [b], whether
    each was there. :class:`Pictures` know it themselves."""
    if isinstance(items, Pictures):
        return items, torch.from_numpy(items.present)
    if hasattr(items, "ndim"):
        several = items.ndim == 4 if modality["kind"] == "image" else items.ndim > len(modality.get("size", ()))
        items = list(items) if several else [items]
    found = _as_list(name, items)
    present = torch.tensor([item is not None for item in found])
    empty = KINDS[modality["kind"]].empty
    return [empty(modality) if item is None else item for item in found], present


def mark_absent(tensors: dict[str, Tensor], present: Tensor) -> dict[str, Tensor]:
    """``tensors`` with zeros for what is absent (bool [b]), and ``present`` among them.

    Token ids and masks keep those of an empty sample, so that attention always has something to attend to.
    """
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor[~present] = 0
    return {**tensors, "present": present}


def _numbers(item: Any) -> np.ndarray:
    """One vector or sequence as an array."""
    try:
        array = as_array(item)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        # What is missing or no number has no shape, either.
        return np.full((), np.nan)
    return array


def _finite(name: str, values: np.ndarray) -> np.ndarray:
    """float32. Raises ValueError for values that are no finite numbers."""
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"modality {name!r} has values that are no finite numbers (of float32)")
    return values


def _cleaned(name: str, text: str) -> str:
    try:
        return clean(text)
    except ValueError as error:
        raise ValueError(f"modality {name!r} has {error}") from error


def _check_whole(name: str, texts: Sequence[str], most: int, tokenizer: Any) -> None:
    """Raises ValueError for a text of more than ``most`` tokens."""
    longest = max(len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"])
    if longest > most:
        raise ValueError(
            f"modality {name!r} has a text of {longest} tokens, and {most} count: leave truncation out to cut it there"
        )


def _text_length(name: str, lengths: list[int], longest: int, modality: dict[str, Any]) -> int:
    if not modality.get(UNPADDED):
        return padded_length(lengths, longest, modality)
    if len(set(lengths)) > 1:
        raise ValueError(
            f"modality {name!r} has texts of {min(lengths)} to {max(lengths)} tokens, which make no tensor without"
            " padding: leave it out"
        )
    return lengths[0] or longest


def _as_list(name: str, items: Any) -> list[Any]:
    several = isinstance(items, Sequence) and not isinstance(items, (str, bytes))
    found = list(items) if several else [items]
    if not found:
        raise ValueError(f"modality {name!r} got an empty list")
    return found


def _empty_image(modality: dict[str, Any]) -> Any:
    return Image.new("L", (1, 1)) if Image is not None else None


def _empty_text(modality: dict[str, Any]) -> str:
    return ""


def _empty_vector(modality: dict[str, Any]) -> np.ndarray:
    return np.zeros(modality["size"])


def _empty_sequence(modality: dict[str, Any]) -> np.ndarray:
    return np.zeros([1, modality["size"][1]])


@dataclass(frozen=True)
class InputKind:
    """How samples of a kind become tensors.

    tensors: (modality's name, samples, its entry, its tokenizer) -> keyword -> [b, ...]. empty: its entry -> a sample
    without content: a text without words, one time step, or zeros. statistics: keys of its entry that hold one number
    per channel or feature; both of a pair or none, if paired. folder: what the folder of its tokenizer or feature
    extractor is called, before the modality's name; empty: it has none.
    """

    tensors: Callable[..., dict[str, Tensor]]
    empty: Callable[[dict[str, Any]], Any]
    statistics: tuple[str, ...] = ()
    paired: bool = False
    folder: str = ""
    finished: Callable[[dict[str, Tensor], dict[str, Any]], dict[str, Tensor]] | None = None


KINDS = {
    "image": InputKind(image_tensors, _empty_image, ("mean", "std"), finished=normalized),
    "text": InputKind(text_tensors, _empty_text, folder="tokenizer"),
    "vector": InputKind(vector_tensors, _empty_vector, ("minimum", "maximum"), paired=True),
    "sequence": InputKind(sequence_tensors, _empty_sequence),
    "audio": InputKind(audio_tensors, empty_sound, folder="feature_extractor"),
}
