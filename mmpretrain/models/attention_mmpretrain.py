"""This project's transformer layers: what the fusion and the sequence encoder are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, arXiv 1706.03762). Raises ValueError if heads do not divide width."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} attention heads cannot share a width of {width}: choose a divisor of it")
        self.heads = heads
        self.dropout = dropout
        # Not one layer for all three: ZeRO-3 holds weights together only while the layer that owns them is called.
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """queries [b, q, w], context [b, s, w] -> [b, q, w].

        mask: bool, broadcasts to [b, heads, q, s], False where the weight is exactly 0; None: attend to everything.
        """
        (query,) = self._heads(self.query(queries), 1)
        key, value = self._heads(self.key_value(context), 2)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return self.output(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[b, n, parts * w] -> ``parts`` tensors [b, heads, n, w / heads]."""
        return x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


class Block(nn.Module):
    """One transformer layer, its norms before (pre_norm) or after what they belong to:

    pre   x += Attention(LN(x));    x += MLP(LN(x))
    post  x = LN(x + Attention(x)); x = LN(x + MLP(x))

    activation: of the MLP, w -> hidden -> w. dropout: of attention weights, of hidden units, and of what is added.
    gradient_checkpointing: whether training keeps its inputs alone and computes the rest again in the backward pass;
    transformers switches it, and sets the function that does so beside it.
    """

    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Tensor]

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: Callable[[Tensor], Tensor],
        dropout: float = 0.0,
        pre_norm: bool = True,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.dropout = dropout
        self.pre_norm = pre_norm
        self.attention = Attention(width, heads, dropout)
        self.attention_norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, hidden)
        self.output = nn.Linear(hidden, width)
        self.mlp_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None, first: int | None = None) -> Tensor:
        """x [b, n, w] -> [b, n, w]; mask: as in :class:`Attention`.

        first: how many tokens are wanted; only they ask, and [b, first, w] is returned (default: all).
        """
        if self.gradient_checkpointing and self.training:
            return self._gradient_checkpointing_func(self._layer, x, mask, first)
        return self._layer(x, mask, first)

    def _layer(self, x: Tensor, mask: Tensor | None, first: int | None) -> Tensor:
        context = self.attention_norm(x) if self.pre_norm else x
        x = x[:, :first] + self._drop(self.attention(context[:, :first], context, mask))
        if self.pre_norm:
            return x + self._mlp(self.mlp_norm(x))
        x = self.attention_norm(x)
        return self.mlp_norm(x + self._mlp(x))

    def _mlp(self, x: Tensor) -> Tensor:
        return self._drop(self.output(self._drop(self.activation(self.hidden(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x), any shape (Hendrycks and Gimpel 2016, arXiv 1606.08415, section 2)."""
    return x * torch.sigmoid(1.702 * x)


@contextmanager
def attention_errors(name: str) -> Iterator[None]:
    """What transformers says of an implementation of attention that a backbone cannot have names the modality."""
    try:
        yield
    except (ValueError, ImportError) as error:
        if "attention" not in str(error) and "attn" not in str(error):
            raise
        raise type(error)(
            f"modality {name!r}: {error} Others keep theirs when you name it alone,"
            f' attn_implementation={{{name!r}: "eager"}}.'
        ) from error
