"""MLPs with Xavier initialization: the vector encoder, the classification head and those of factors; and no MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init

from .pooling_mmpretrain import StateForm
from .precision_mmpretrain import as_weight


def init_linear(layer: nn.Linear) -> None:
    """Xavier-normal weight, zero bias; weights that were just loaded from a checkpoint stay as they are."""
    init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        init.zeros_(layer.bias)


def side_by_side(embeds: Mapping[str, Tensor]) -> Tensor:
    """Modality -> [b, d] as [b, all of d], on the device of the first, for a model may be spread over several."""
    first = next(iter(embeds.values()))
    return torch.cat([rows.to(first.device) for rows in embeds.values()], dim=1)


class MLPHead(nn.Module):
    """Linear - ReLU - Linear: [b, input_size] -> [b, output_size]. layers: further hidden layers, with ReLU. dropout:
    share of each hidden layer's units that are set to 0 while training."""

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, layers: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.hidden = nn.Linear(input_size, hidden_size)
        self.further = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(layers))
        self.output = nn.Linear(hidden_size, output_size)
        for layer in (self.hidden, *self.further, self.output):
            init_linear(layer)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [b, input_size], any float type -> [b, output_size]."""
        x = self._dropped(self.hidden(as_weight(x, self.hidden.weight)).relu())
        for layer in self.further:
            x = self._dropped(layer(x).relu())
        return self.output(x)

    def _dropped(self, x: Tensor) -> Tensor:
        # No module: heads without dropout stay what they were, in their names and in the random numbers they draw.
        return functional.dropout(x, self.dropout) if self.training and self.dropout else x


class MLPProjection(MLPHead):
    """As :class:`MLPHead`; normalized: whether what it gives has unit length."""

    def __init__(self, input_size: int, output_size: int, hidden: int, normalized: bool = False) -> None:
        super().__init__(input_size, hidden, output_size)
        self.normalized = normalized

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [b, input_size], any float type -> [b, output_size]."""
        found = super().forward(x)
        return functional.normalize(found, dim=-1) if self.normalized else found


def projection(input_size: int, output_size: int, form: Mapping[str, Any] | None) -> nn.Module:
    """What makes embeddings of pooled states, [b, input_size] -> [b, output_size]: linear without bias, or what
    ``form``, an entry of ``projections`` of :class:`MMPretrainConfig`, says."""
    return (
        nn.Linear(input_size, output_size, bias=False)
        if form is None
        else MLPProjection(input_size, output_size, **form)
    )


class VectorIdentity(nn.Module):
    """Feature vectors as they are, such as embeddings that another model made. Raises as :class:`VectorMLP` does."""

    main_input_name = "values"
    form = StateForm.vector

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.input_size = self.state_size = input_size

    def forward(self, values: Tensor) -> Tensor:
        """``values`` [b, input_size] -> the same."""
        check_vectors(values, self.input_size)
        return values


class VectorMLP(MLPHead):
    """Encoder of feature vectors. Raises ValueError for vectors of another length than input_size."""

    main_input_name = "values"
    form = StateForm.vector

    def __init__(self, input_size: int, hidden_size: int, output_size: int, layers: int = 0) -> None:
        super().__init__(input_size, hidden_size, output_size, layers)
        self.input_size, self.state_size = input_size, output_size

    def forward(self, values: Tensor) -> Tensor:
        """``values`` [b, input_size] -> [b, output_size]."""
        check_vectors(values, self.input_size)
        return super().forward(values)


def check_vectors(values: Tensor, size: int) -> None:
    """Raises ValueError for anything but [b, size]."""
    if values.ndim != 2 or values.shape[1] != size:
        raise ValueError(f"values has shape {list(values.shape)}, expected [batch, {size}]")
