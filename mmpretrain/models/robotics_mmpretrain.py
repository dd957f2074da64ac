"""Encoders of what a robot feels, as those of Vision & Touch (Lee et al. 2019, arXiv 1810.10191): forces over time by
causal convolutions, and the state of the arm by an MLP, both with leaky ReLUs.

Shape legend: b samples, T steps, C channels, k kernel, s stride.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init

from .heads_mmpretrain import check_vectors
from .pooling_mmpretrain import StateForm
from .precision_mmpretrain import as_weight

SLOPE = 0.1


@torch.no_grad()
def init_default(layer: nn.Linear | nn.Conv1d) -> None:
    """torch's own default: weights and bias uniform in +-fan_in^-1/2; weights that were just loaded stay."""
    bound = layer.weight[0].numel() ** -0.5
    init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        init.uniform_(layer.bias, -bound, bound)


class LeakyMLP(nn.Module):
    """Encoder of feature vectors: a linear layer to each of ``widths`` and a leaky ReLU behind every one, the last too.

    Raises ValueError for vectors of another length than input_size.
    """

    main_input_name = "values"
    form = StateForm.vector

    def __init__(self, input_size: int, widths: Sequence[int]) -> None:
        super().__init__()
        sizes = [input_size, *widths]
        self.input_size, self.state_size = input_size, sizes[-1]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            init_default(layer)

    def forward(self, values: Tensor) -> Tensor:
        """``values`` [b, input_size] -> [b, last of widths]."""
        check_vectors(values, self.input_size)
        layer: Any
        x = values
        for layer in self.layers:
            x = F.leaky_relu(layer(as_weight(x, layer.weight)), SLOPE)
        return x


class CausalConvolutions(nn.Module):
    """Encoder of sequences: convolutions over time that never look ahead, each to one of ``widths`` and ``stride``
    times fewer steps, a leaky ReLU behind every one. What it gives is the last step that counts, a vector.

    released: as the released code of Vision & Touch, of MultiBench and of CoMM has them, for kernel = stride: zeros
    stand on both ends and the end of the output is cut off, so that the last step of every window is never seen. Of 32
    steps in five layers of stride 2 this leaves the first one alone. By default windows end with the last step, and
    what is given depends on all of them.
    """

    main_input_name = "values"
    form = StateForm.vector

    def __init__(
        self, input_size: int, widths: Sequence[int], kernel: int = 2, stride: int = 2, released: bool = False
    ) -> None:
        super().__init__()
        if kernel < stride:
            raise ValueError(f"kernel is {kernel} and stride {stride}: steps between windows would be skipped")
        sizes = [input_size, *widths]
        self.input_size, self.state_size = input_size, sizes[-1]
        self.stride = stride
        # How many zeros stand before the first step: window i ends at step s i (released), or at s (i + 1) - 1.
        self.before = kernel - 1 if released else kernel - stride
        self.layers = nn.ModuleList(nn.Conv1d(*pair, kernel, stride) for pair in pairwise(sizes))
        for layer in self.layers:
            assert isinstance(layer, nn.Conv1d)
            init_default(layer)

    def forward(self, values: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """``values`` [b, T, input_size] -> [b, last of widths]; ``attention_mask`` [b, T]: 1 for steps that count,
        which come first. Padding behind them changes nothing.
        """
        if values.ndim != 3 or values.shape[2] != self.input_size or not values.shape[1]:
            raise ValueError(f"values has shape {list(values.shape)}, expected [batch, steps, {self.input_size}]")
        mask = values.new_ones(values.shape[:2]) if attention_mask is None else attention_mask
        counts, x = mask.to(values.dtype)[:, None], values.transpose(1, 2)
        layer: Any
        for layer in self.layers:
            x = as_weight(x, layer.weight) * counts.to(layer.weight.dtype)
            behind = -x.shape[2] % self.stride  # so that every step is in a window
            windows = F.leaky_relu(layer(F.pad(x, (self.before, behind))), SLOPE)
            counts = F.max_pool1d(F.pad(counts, (0, behind)), self.stride)
            x = windows[:, :, : counts.shape[2]]
        places = torch.arange(x.shape[2], device=x.device)
        last = torch.where(counts[:, 0] > 0, places, 0).argmax(dim=1)
        return x.gather(2, last[:, None, None].expand(-1, x.shape[1], 1)).squeeze(2)
