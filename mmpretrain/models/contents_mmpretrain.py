"""What the tensors of a call hold: token ids out of range, samples without a token, texts padded on the left.

Looking at numbers makes a GPU wait, so that a training step there does not: only the first one looks at masks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .intake_mmpretrain import MASK, PRESENT, Takes, Tensors

# What encoders of texts take beside ids and mask, place by place.
_ALONG = ("token_type_ids", "position_ids")


def tracing() -> bool:
    """Whether a graph is being made (compile, export, trace), in which nothing can depend on numbers."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def can_look(tensor: Tensor) -> bool:
    """Whether numbers can be looked at: not of shapes without content, nor while CUDA records a graph."""
    if type(tensor) is not Tensor or tensor.device.type == "meta":
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def check_ids(name: str, ids: Tensor, vocabulary: int | None) -> None:
    """Raises ValueError for token ids outside a table of ``vocabulary`` rows."""
    low, high = torch.stack(torch.aminmax(ids)).tolist()
    if low < 0 or (vocabulary is not None and high >= vocabulary):
        bound = "" if vocabulary is None else f" to {vocabulary - 1}"
        raise ValueError(
            f"modality {name!r}: input_ids has {low if low < 0 else high}, and the encoder knows 0{bound}: use the"
            " tokenizer of the release"
        )


def padded_on_the_left(name: str, tensors: Mapping[str, Any]) -> bool:
    """Whether some sample starts behind padding. Raises ValueError for samples of which nothing counts."""
    mask: Tensor = tensors[MASK]
    if bool(mask[:, 0].all()):
        return False
    counts = mask.bool().any(dim=1)
    there = tensors.get(PRESENT)
    nothing = ~counts if there is None else ~counts & there.bool().to(counts.device)
    if nothing.any():
        raise ValueError(
            f"modality {name!r}: the {MASK} of sample {int(nothing.int().argmax())} is 0 everywhere, so that there is"
            " nothing to embed: leave the sample out"
        )
    return bool((counts & ~mask[:, 0].bool()).any())


class Contents:
    """Looks at the contents of calls, and remembers how the first training step on a GPU was padded."""

    def __init__(self) -> None:
        self.first: dict[str, bool] = {}

    def left(
        self,
        name: str,
        tensors: Mapping[str, Any],
        wanted: Takes,
        training: bool,
        vocabulary: Callable[[str], int | None],
    ) -> bool:
        """Whether a modality is padded on the left. Raises ValueError for contents that its encoder cannot take."""
        main: Tensor = tensors[wanted.main]
        if not can_look(main):
            return False
        if wanted.main == "input_ids" and not training:
            check_ids(name, main, vocabulary(name))
        if MASK not in tensors:
            return False
        if not training or main.device.type == "cpu":
            return padded_on_the_left(name, tensors)
        if name not in self.first:
            self.first[name] = padded_on_the_left(name, tensors)
        return self.first[name]


def moved_left(name: str, tensors: Mapping[str, Any], wanted: Takes) -> tuple[Tensors, Tensor]:
    """The tensors with the padding before the first place that counts moved behind the last one, as encoders were
    trained; and [b, n], which place each came from.

    Positions, the first and the last token are thus the right ones, whatever the architecture. Raises ValueError where
    the mask is not place by place that of the input.
    """
    if not wanted.placed:
        raise ValueError(f"modality {name!r} is padded on the left, and its encoder reads from there: pad on the right")
    mask: Tensor = tensors[MASK]
    rows, places = mask.shape
    # In int32, of which every runtime of exported graphs finds the largest.
    first = mask.bool().int().argmax(dim=1, keepdim=True)
    # No remainder: exporters to ONNX know none by a number of places that changes.
    onward = torch.arange(places, device=mask.device) + first
    source = torch.where(onward < places, onward, onward - places)
    moved = dict(tensors)
    for key in (wanted.main, MASK, *_ALONG):
        if isinstance(tensor := tensors.get(key), Tensor):
            moved[key] = taken(tensor.expand(rows, *tensor.shape[1:]), source.to(tensor.device))
    return moved, source


def taken(tensor: Tensor, source: Tensor) -> Tensor:
    """[b, n, ...] at the places ``source`` [b, n]."""
    further = tensor.shape[2:]
    index = source.reshape(*source.shape, *(1 for _ in further)).expand(-1, -1, *further)
    return tensor.gather(1, index)
