"""How long texts may be, and those for encoders that see padding: always of the length that they were trained with.

The processor pads them so. Whoever calls the tokenizer alone (transformers' pipelines do) pads to the longest text of
a call, from which such an encoder would make other embeddings: what is missing is added here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .contents_mmpretrain import tracing
from .inputs_mmpretrain import MULTIPLE
from .intake_mmpretrain import MASK, Tensors

# Of a text in ``places`` of the config: how many tokens it has at most, and, where its encoder sees padding, the token
# that fills up to so many.
LENGTH, FILLER = "length", "filler"


def places_of(modality: Mapping[str, Any], tokenizer: Any) -> dict[str, int]:
    """What the config says of a text, from the processor's entry and its tokenizer."""
    length = {LENGTH: modality["max_length"]}
    return length if MULTIPLE in modality else {**length, FILLER: tokenizer.pad_token_id}


def filled(name: str, tensors: Tensors, wanted: Mapping[str, int] | None) -> Tensors:
    """The tensors of a text with padding behind up to its length in the config, where that says so; else as they are.

    In graphs, too, of any length. Raises ValueError for texts that are longer, and for position ids, which nobody can
    add, of those to be filled.
    """
    ids = tensors.get("input_ids")
    if ids is None or wanted is None:
        return tensors
    count, length = ids.shape[1], wanted[LENGTH]
    if not torch.jit.is_tracing():  # whose shapes are tensors
        check_length(name, count, length)
    # Graphs of any length have no branch here, which would fix on which side of it they are.
    if FILLER not in wanted or (not tracing() and count == length):
        return tensors
    if "position_ids" in tensors and count != length:
        raise ValueError(
            f"modality {name!r} needs texts of {length} places, got {count}: pad them with padding='max_length', or"
            " leave position_ids out"
        )
    along = {key: _up_to(tensors[key], length) for key in (MASK, "token_type_ids") if key in tensors}
    if MASK not in along:
        along[MASK] = _up_to(torch.ones_like(ids), length)
    return {**tensors, **along, "input_ids": _up_to(ids, length, wanted[FILLER])}


def check_length(name: str, count: int, length: int) -> None:
    """Raises ValueError for texts of more tokens than the processor leaves them, by which embeddings are others."""
    if count > length:
        raise ValueError(
            f"modality {name!r} has texts of {count} tokens, and this model was trained on at most {length}: cut them,"
            " tokenizer(..., truncation=True), or let the processor do it"
        )


def _up_to(tensor: Tensor, length: int, value: int = 0) -> Tensor:
    """[b, n] -> [b, length]. A size is fixed this way, whether n is a number or a symbol of a graph."""
    return functional.pad(tensor, (0, length), value=value)[:, :length]
