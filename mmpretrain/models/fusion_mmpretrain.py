"""The fusion of all modalities' tokens into one embedding (CoMM: Dufumier et al., ICLR 2025, arXiv 2409.07402).

The sequence is [CLS] and the tokens of every modality, in the order of modalities and without a code for which is
which; pre-norm transformer layers, layer norm, and the output at [CLS]. With l layers of width d:

    std of initial weights: queries, keys, values d^-1/2; both outputs (2 l d)^-1/2; hidden layer (2 d)^-1/2; [CLS] 1

One evaluation serves n modalities alone and all together: n + 1 masks with a [CLS] each, whose tokens they share in
the last layer, where [CLS] alone asks. With one layer, as published, keys and values are thus computed once. Before the
last of several layers every mask needs a copy of the tokens that it sees, 2 N for N tokens.

Shape legend: b samples, d width, n tokens of a modality, s tokens of all masks, [CLS] included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .attention_mmpretrain import Block, quick_gelu
from .heads_mmpretrain import init_linear
from .pooling_mmpretrain import StateForm, States
from .precision_mmpretrain import as_weight

TEMPERATURE = 1e4


class Fusion(nn.Module):
    """States of the encoders -> an embedding of each modality alone, and one of all together.

    encoders: modality -> (form, width) of its states, in the order of modalities. width, heads, layers: of the
    transformer, whose hidden width is 4 * width. vectors: what a vector becomes, a token per feature (``features``)
    or a single token (``one``). Raises ValueError for widths that do not fit.
    """

    def __init__(
        self,
        encoders: dict[str, tuple[StateForm, int]],
        width: int,
        heads: int,
        layers: int = 1,
        vectors: str = "features",
    ) -> None:
        super().__init__()
        self.width = width
        converters = {name: _converter(form, size, width, vectors) for name, (form, size) in encoders.items()}
        self.converters = nn.ModuleDict(converters)
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(Block(width, heads, 4 * width, quick_gelu) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.initialize_()

    @torch.no_grad()
    def initialize_(self) -> None:
        """Initial weights as in the module's docstring, zero biases; weights that were just loaded stay."""
        init.normal_(self.cls)
        for block in self.blocks:
            _initialize(block, self.width, len(self.blocks))

    def forward(self, states: dict[str, States], present: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """States of the modalities that were passed -> (modality -> [b, d], all of them together [b, d]).

        present: modality -> bool [b]; a modality that a sample lacks is masked in it, so that its own embedding is
        that of no token. Masked tokens have weight 0. Raises ValueError for a mask of another shape than the tokens.
        """
        masks = len(states) + 1
        # In the type of the weights: autocast leaves some modalities' tokens in half precision.
        tokens = [self.converters[name](given.values).to(self.cls.dtype) for name, given in states.items()]
        valid = [_valid(name, x, states[name].mask, present.get(name)) for name, x in zip(states, tokens, strict=True)]
        copies = self._copies(len(tokens))
        x = torch.cat([self.cls.expand(tokens[0].shape[0], masks, -1), *(tokens[i] for i, _ in copies)], dim=1)
        sees = _sees(masks, [(viewers, tokens[i].shape[1]) for i, viewers in copies], x.device)
        seen = sees[None, None]
        if any(rows is not None for rows in valid):
            seen = seen & _counted(masks, [(tokens[i], valid[i]) for i, _ in copies])[:, None, None]
        for block in self.blocks[:-1]:
            # A token is a copy for one mask here, and sees what that mask sees.
            x = block(x, seen[:, :, sees.int().argmax(dim=0)])
        x = self.norm(self.blocks[-1](x, seen, first=masks))
        *alone, fused = x.unbind(1)
        return dict(zip(states, alone, strict=True)), fused

    def _copies(self, count: int) -> list[tuple[int, list[int]]]:
        """The tokens side by side: number of the modality, and the masks that see this copy of its tokens.

        Masks are each of ``count`` modalities alone, in order, and all of them.
        """
        if len(self.blocks) == 1:
            return [(i, [i, count]) for i in range(count)]
        return [(i, [i]) for i in range(count)] + [(i, [count]) for i in range(count)]


class FeatureTokenizer(nn.Module):
    """A token per feature of a vector: token_j = x_j W_j + b_j, both from N(0, 1)."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features, width))
        self.bias = nn.Parameter(torch.empty(features, width))
        self.initialize_()

    @torch.no_grad()
    def initialize_(self) -> None:
        """Standard normal; weights that were just loaded stay."""
        init.normal_(self.weight)
        init.normal_(self.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """[b, features] -> [b, features, d]."""
        return torch.addcmul(self.bias, as_weight(vectors.unsqueeze(2), self.weight), self.weight)


class TokenConverter(nn.Module):
    """Tokens, a vector as one token, or a feature map and the code of its positions -> [b, n, d].

    linear: whether to change their width (of a map: a 1x1 convolution); they pass as they are otherwise.
    """

    def __init__(self, size: int, width: int, linear: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(size, width) if linear else None
        if self.linear is not None:
            init_linear(self.linear)

    def forward(self, values: Tensor) -> Tensor:
        """[b, size], [b, n, size] or [b, size, height, width] -> [b, n, d]."""
        shape = values.shape
        if values.ndim == 4:
            values = values.flatten(2).transpose(1, 2)
        elif values.ndim == 2:
            values = values.unsqueeze(1)
        if self.linear is not None:
            values = self.linear(as_weight(values, self.linear.weight))
        return values + position_code(shape[2], shape[3], values) if len(shape) == 4 else values


def position_code(height: int, width: int, tokens: Tensor) -> Tensor:
    """Fixed code of a map's places, row by row: float32 [height * width, d] for ``tokens`` of width d.

    Quarters as in MoCo v3 (arXiv 2104.02057): sine and cosine of the row, then of the column, each times
    1e4^(-4 k / d) for k < d / 4.
    """
    quarter, device = tokens.shape[-1] // 4, tokens.device
    frequency = TEMPERATURE ** -(torch.arange(quarter, device=device) / quarter)
    rows = torch.arange(height, device=device).repeat_interleave(width)[:, None] * frequency
    columns = torch.arange(width, device=device).repeat(height)[:, None] * frequency
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=1)


def _initialize(block: Any, width: int, blocks: int) -> None:
    inner, outer = width**-0.5, (2 * blocks * width) ** -0.5
    attention = block.attention
    stds = {attention.query: inner, attention.key_value: inner, attention.output: outer}
    for layer, std in {**stds, block.hidden: (2 * width) ** -0.5, block.output: outer}.items():
        init.normal_(layer.weight, std=std)
        init.zeros_(layer.bias)


def _converter(form: StateForm, size: int, width: int, vectors: str) -> nn.Module:
    if form is StateForm.vector and vectors == "features":
        return FeatureTokenizer(size, width)
    if form is StateForm.map and width % 4:
        raise ValueError(f"the code of a feature map's positions needs a width that 4 divides, not {width}")
    return TokenConverter(size, width, linear=form is StateForm.map or size != width)


def _valid(name: str, tokens: Tensor, mask: Tensor | None, present: Tensor | None) -> Tensor | None:
    """Which of the tokens [b, n, d] count: bool [b, n], or None for all."""
    if mask is not None and mask.shape != tokens.shape[:2]:
        raise ValueError(
            f"modality {name!r}: a mask of shape {list(mask.shape)} for tokens of shape {list(tokens.shape[:2])}"
        )
    valid = None if mask is None else mask.bool()
    if present is None:
        return valid
    there = present.bool()[:, None].expand(tokens.shape[:2])
    return there if valid is None else there & valid


def _sees(masks: int, copies: list[tuple[list[int], int]], device: torch.device) -> Tensor:
    """Which mask sees which token, bool [masks, s]: its own [CLS], and ``(masks that see them, tokens)`` in order.

    Made where it is needed: numbers of the host would have to travel, and a GPU's host would wait for them.
    """
    columns = [torch.eye(masks, dtype=torch.bool, device=device)]
    for viewers, length in copies:
        column = torch.zeros(masks, length, dtype=torch.bool, device=device)
        for viewer in viewers:
            column[viewer].fill_(True)
        columns.append(column)
    return torch.cat(columns, dim=1)


def _counted(masks: int, copies: list[tuple[Tensor, Tensor | None]]) -> Tensor:
    """[CLS] of every mask, and the valid ones among tokens: bool [b, s]."""
    first = copies[0][0]
    counted = [first.new_ones(first.shape[0], masks, dtype=torch.bool)]
    for tokens, valid in copies:
        counted.append(tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if valid is None else valid)
    return torch.cat(counted, dim=1)
