"""Linear layers with Xavier initialisation: the vector encoder and the classification head."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import initialization as init


def init_linear(layer: nn.Linear) -> None:
    """Xavier-normal weight, zero bias; weights that were just loaded from a checkpoint stay as they are."""
    init.xavier_normal_(layer.weight)
    if layer.bias is not None:
        init.zeros_(layer.bias)


class MLPHead(nn.Module):
    """Linear - ReLU - Linear: [b, input_size] -> [b, output_size]."""

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(input_size, hidden_size)
        self.output = nn.Linear(hidden_size, output_size)
        init_linear(self.hidden)
        init_linear(self.output)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [b, input_size], any float type -> [b, output_size]."""
        return self.output(self.hidden(x.to(self.hidden.weight.dtype)).relu())


class VectorMLP(MLPHead):
    """Encoder of feature vectors. Raises ValueError for vectors of another length than input_size."""

    main_input_name = "values"

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__(input_size, hidden_size, output_size)
        self.input_size = input_size

    def forward(self, values: Tensor) -> Tensor:
        """``values`` [b, input_size] -> [b, output_size]."""
        if values.ndim != 2 or values.shape[1] != self.input_size:
            raise ValueError(f"values has shape {list(values.shape)}, expected [batch, {self.input_size}]")
        return super().forward(values)
