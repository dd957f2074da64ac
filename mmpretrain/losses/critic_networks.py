"""Networks that score pairs of rows: what they do per sample, and what is left for each pair."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpretrain.losses.critic_passes import GraphPass, MlpPass, ProductPass, StripPass, Totals
from mmpretrain.losses.similarity import at_least_float32


class Critic(nn.Module, ABC):
    """f(a, b) for all pairs of rows: per-sample work once per sample, then what is left for each pair.

    pair_width: numbers that a strip holds per pair.
    """

    pair_width: int

    def travels_as_input(self, width: int) -> bool:
        """Whether candidates [c, width] go to other ranks as they are, since ``columns`` of them are wider and cheap to
        make there."""
        return False

    def strip_pass(self, pairs: int, dtype: torch.dtype, totals: Totals) -> StripPass:
        """What goes through strips of at most so many pairs, with units of this type where that is left open."""

        def score(rows: Tensor, columns: Tensor) -> Tensor:
            # Casts that autocast caches would outlive the graph of their strip.
            rounded = dtype is torch.bfloat16
            with torch.autocast(rows.device.type, torch.bfloat16, enabled=rounded, cache_enabled=False):
                return self.scores(rows, columns)

        return GraphPass(score, self.inner_parameters(), totals)

    @abstractmethod
    def columns(self, a: Tensor) -> Tensor:
        """[c, da] candidates -> [c, h], what their pairs need of them."""

    @abstractmethod
    def rows(self, b: Tensor) -> Tensor:
        """[t, db] anchors -> [t, h], what their pairs need of them."""

    @abstractmethod
    def scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """[t, h] anchors and [c, h] candidates -> [t, c] scores, in float32 at least."""

    @abstractmethod
    def inner_parameters(self) -> list[nn.Parameter]:
        """The parameters that ``scores`` uses."""


class PairwiseCritic(Critic):
    """An MLP on a concatenated pair: Linear(da + db, hidden), ReLU, ``layers`` times [Linear, ReLU], Linear to 1.

    The first layer is split, W [a; b] = Wa a + Wb b, so that a pair begins at a sum. ``network`` is the plain MLP:
    ``network(cat([a, b], dim=1))`` is the score of each pair (a_i, b_i).
    """

    def __init__(self, da: int, db: int, hidden: int = 512, layers: int = 1) -> None:
        super().__init__()
        self.da = da
        self.hidden = hidden
        self.pair_width = hidden * (layers + 1 + (layers > 1))
        self.network = _mlp(da + db, hidden, 1, layers)

    def columns(self, a: Tensor) -> Tensor:
        """[c, da] -> [c, hidden]."""
        return F.linear(a, self._linear(0).weight[:, : self.da])

    def rows(self, b: Tensor) -> Tensor:
        """[t, db] -> [t, hidden], the first layer's bias in it."""
        return F.linear(b, self._linear(0).weight[:, self.da :], self._linear(0).bias)

    def travels_as_input(self, width: int) -> bool:
        """Where that is fewer numbers: columns are one product."""
        return width < self.hidden

    def strip_pass(self, pairs: int, dtype: torch.dtype, totals: Totals) -> StripPass:
        """By hand; of a class that has scores of its own by its graph."""
        if type(self).scores is not PairwiseCritic.scores:
            return super().strip_pass(pairs, dtype, totals)
        parameters = self.inner_parameters()
        return MlpPass(parameters[0::2], parameters[1::2], pairs, dtype)

    def scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """[t, hidden], [c, hidden] -> [t, c]."""
        units = (rows[:, None] + columns).relu_()
        for index in range(2, len(self.network) - 1, 2):
            units = self._linear(index)(units).relu_()
        # The last product is cheap, and its result must not be rounded.
        with torch.autocast(units.device.type, enabled=False):
            return self._linear(-1)(at_least_float32(units)).squeeze(-1)

    def inner_parameters(self) -> list[nn.Parameter]:
        """All but the first layer's."""
        return list(self.network[1:].parameters())

    def _linear(self, index: int) -> nn.Linear:
        layer = self.network[index]
        assert isinstance(layer, nn.Linear)
        return layer


class SeparableCritic(Critic):
    """f(a, b) = g(a) . h(b), two MLPs to ``width`` with ``layers`` + 1 hidden layers of ``hidden`` units."""

    pair_width = 1

    def __init__(self, da: int, db: int, hidden: int = 512, width: int = 128, layers: int = 1) -> None:
        super().__init__()
        self.g, self.h = (_mlp(size, hidden, width, layers) for size in (da, db))

    def columns(self, a: Tensor) -> Tensor:
        """g: [c, da] -> [c, width]."""
        return self.g(a)

    def rows(self, b: Tensor) -> Tensor:
        """h: [t, db] -> [t, width]."""
        return self.h(b)

    def strip_pass(self, pairs: int, dtype: torch.dtype, totals: Totals) -> StripPass:
        """By hand; of a class that has scores of its own by its graph."""
        if type(self).scores is not SeparableCritic.scores:
            return super().strip_pass(pairs, dtype, totals)
        return ProductPass()

    def scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """[t, width], [c, width] -> [t, c]."""
        with torch.autocast(rows.device.type, enabled=False):
            return rows @ columns.T

    def inner_parameters(self) -> list[nn.Parameter]:
        """None: both sides are done before they meet."""
        return []


def _mlp(inputs: int, hidden: int, outputs: int, layers: int) -> nn.Sequential:
    inner = [module for _ in range(layers) for module in (nn.Linear(hidden, hidden), nn.ReLU())]
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), *inner, nn.Linear(hidden, outputs))
