"""A recurrent encoder of feature sequences, as MultiBench's of MIMIC (Liang et al. 2021, arXiv 2107.07502)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init

from .pooling_mmpretrain import StateForm
from .precision_mmpretrain import as_weight


class RecurrentSequence(nn.Module):
    """Encoder of sequences: a GRU (Cho et al. 2014) from the first step to the last, whose states are the tokens.

    steps: of the longest sequence, which is how many states ``pool=flatten`` puts side by side. dropout: between
    layers, of which there must be several. Raises ValueError for a dropout without a second layer.
    """

    main_input_name = "values"
    form = StateForm.tokens

    def __init__(self, input_size: int, steps: int, width: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        if dropout and layers < 2:
            raise ValueError("dropout lies between layers, and there is one: set layers, or leave dropout out")
        self.input_size, self.state_size, self.map_size = input_size, width, [steps]
        self.recurrent = nn.GRU(input_size, width, layers, batch_first=True, dropout=dropout)
        self.initialize_()

    @torch.no_grad()
    def initialize_(self) -> None:
        """torch's own default, with which MultiBench's were published; weights that were just loaded stay."""
        bound = self.state_size**-0.5
        for weight in self.recurrent.parameters():
            init.uniform_(weight, -bound, bound)

    def forward(self, values: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """``values`` [b, T, input_size] -> [b, T, width]; ``attention_mask`` [b, T]: 1 for steps that count, which come
        first. States of the others are 0.
        """
        if values.ndim != 3 or values.shape[2] != self.input_size:
            raise ValueError(f"values has shape {list(values.shape)}, expected [batch, steps, {self.input_size}]")
        states: Tensor = self.recurrent(as_weight(values, self.recurrent.all_weights[0][0]))[0]
        return states if attention_mask is None else states * attention_mask.unsqueeze(2).to(states.dtype)


def padded_states(states: Tensor, steps: int) -> Tensor:
    """[b, T, w] with zeros behind to [b, steps, w], as states that do not count. Raises ValueError for longer ones."""
    if states.shape[1] > steps:
        raise ValueError(f"a sequence has {states.shape[1]} steps, and {steps} fit side by side")
    return functional.pad(states, (0, 0, 0, steps - states.shape[1]))
