"""A transformer encoder of feature sequences, as those of MultiBench (Liang et al. 2021, arXiv 2107.07502)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from .attention_mmpretrain import Block
from .heads_mmpretrain import init_linear
from .pooling_mmpretrain import StateForm
from .precision_mmpretrain import as_weight


class SequenceTransformer(nn.Module):
    """Encoder of sequences: every step's features to ``width`` without bias, then transformer layers with ReLU.

    No code of positions, no norm behind the last layer. ff: hidden width of the layers' MLPs. pre_norm: as in
    :class:`Block`. Raises ValueError if heads do not divide width.
    """

    main_input_name = "values"
    form = StateForm.tokens

    def __init__(
        self,
        input_size: int,
        width: int,
        layers: int = 5,
        heads: int = 5,
        ff: int = 2048,
        dropout: float = 0.1,
        pre_norm: bool = True,
    ) -> None:
        super().__init__()
        self.input_size, self.state_size = input_size, width
        self.input = nn.Linear(input_size, width, bias=False)
        self.layers = nn.ModuleList(Block(width, heads, ff, F.relu, dropout, pre_norm) for _ in range(layers))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                init_linear(module)

    def forward(
        self, values: Tensor, attention_mask: Tensor | None = None, states: list[Tensor] | None = None
    ) -> Tensor:
        """``values`` [b, T, input_size] -> [b, T, width]; ``attention_mask`` [b, T]: 1 for steps that count.

        states: a list that gets what goes into the layers and comes out of each.
        """
        if values.ndim != 3 or values.shape[2] != self.input_size:
            raise ValueError(f"values has shape {list(values.shape)}, expected [batch, steps, {self.input_size}]")
        mask = None
        if attention_mask is not None:
            counts = attention_mask.bool()
            # A sequence without any step sees its padding, for there is no softmax over nothing.
            mask = (counts | ~counts.any(dim=1, keepdim=True))[:, None, None]
        x = self.input(as_weight(values, self.input.weight))
        for layer in self.layers:
            if states is not None:
                states.append(x)
            x = layer(x, mask)
        if states is not None:
            states.append(x)
        return x
