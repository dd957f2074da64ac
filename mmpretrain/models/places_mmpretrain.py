"""Texts for encoders that see how much padding there is: always of the length that they were trained with.

The processor pads them so. Whoever calls the tokenizer alone (transformers' pipelines do) pads to the longest text of
a call, from which such an encoder would make other embeddings: what is missing is added here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from .intake_mmpretrain import MASK, Tensors

# Of a modality in ``places`` of the config: how many its texts have, and the token that fills them.
LENGTH, FILLER = "length", "filler"


def whole_length(modality: Mapping[str, Any], tokenizer: Any) -> dict[str, int]:
    """What the config says of a text, from the processor's entry and its tokenizer."""
    return {LENGTH: modality["max_length"], FILLER: tokenizer.pad_token_id}


def filled(name: str, tensors: Tensors, wanted: Mapping[str, int] | None) -> Tensors:
    """The tensors of a text with padding behind up to its length in the config; without one as they are.

    Raises ValueError for position ids, which nobody can add, of shorter texts.
    """
    ids = tensors.get("input_ids")
    if ids is None or wanted is None or ids.shape[1] >= wanted[LENGTH]:
        return tensors
    if "position_ids" in tensors:
        raise ValueError(
            f"modality {name!r} needs texts of {wanted[LENGTH]} places, got {ids.shape[1]}: pad them with"
            " padding='max_length', or leave position_ids out"
        )
    missing = (0, wanted[LENGTH] - ids.shape[1])
    along = {key: functional.pad(tensors[key], missing) for key in (MASK, "token_type_ids") if key in tensors}
    if MASK not in along:
        along[MASK] = functional.pad(torch.ones_like(ids), missing)
    return {**tensors, **along, "input_ids": functional.pad(ids, missing, value=wanted[FILLER])}
