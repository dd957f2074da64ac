"""A strip of pairs through a critic and back: what is done once per strip, in few passes over memory.

Scores are needed before their derivative is known, so a pass goes forward (``scores``), waits, and goes back
(``back``), which adds to running totals. The activations between lie in buffers that all strips of a sweep share; the
way back overwrites them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.losses.similarity import at_least_float32

ScoreFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Totals:
    """Gradients of all strips so far, None for what needs none. rows [b, h], columns [N, h], parameters: in the order
    of the critic's inner ones."""

    rows: Tensor | None
    columns: Tensor | None
    parameters: Sequence[Tensor | None] = ()

    @property
    def found(self) -> list[Tensor]:
        """Those that there are: rows, columns, parameters."""
        return [total for total in (self.rows, self.columns, *self.parameters) if total is not None]


class StripPass(ABC):
    """One critic's strips, one after the other: ``scores``, then ``back`` if there are gradients to find."""

    @abstractmethod
    def scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """[t, h] anchors and [N, h] candidates -> [t, N] scores, without graph."""

    @abstractmethod
    def back(self, derivative: Tensor, strip: slice, totals: Totals) -> None:
        """Add what ``derivative`` [t, N], of the loss by the last scores, makes of the gradients; strip: its rows."""

    def finish(self, totals: Totals) -> None:  # noqa: B027 - most have added all they know
        """After the last strip."""


class GraphPass(StripPass):
    """Of any critic, by autograd. parameters: the critic's inner ones. score: [t, h], [N, h] -> [t, N]."""

    def __init__(self, score: ScoreFunction, parameters: Sequence[Tensor], totals: Totals) -> None:
        self._score = score
        self._parameters = [p for p, total in zip(parameters, totals.parameters, strict=True) if total is not None]
        self._by_rows, self._by_columns = totals.rows is not None, totals.columns is not None
        self._leaves: list[Tensor] = []
        self._scores = torch.empty(0)

    def scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Keeps the graph for the way back."""
        rows = rows.detach().requires_grad_(self._by_rows)
        columns = columns.detach().requires_grad_(self._by_columns)
        sides = [side for side in (rows, columns) if side.requires_grad]
        self._leaves = [*sides, *self._parameters]
        with torch.set_grad_enabled(bool(self._leaves)):
            self._scores = self._score(rows, columns)
        return self._scores.detach()

    def back(self, derivative: Tensor, strip: slice, totals: Totals) -> None:
        """Through the graph, which is gone then."""
        found = torch.autograd.grad(self._scores, self._leaves, derivative)
        self._scores, self._leaves = derivative.new_empty(0), []
        rows = [] if totals.rows is None else [totals.rows[strip]]
        of_sides = rows + ([] if totals.columns is None else [totals.columns])
        of_parameters = [total for total in totals.parameters if total is not None]
        for total, gradient in zip([*of_sides, *of_parameters], found, strict=True):
            total += gradient


class ProductPass(StripPass):
    """Of scores that are inner products of rows and columns."""

    def __init__(self) -> None:
        self._sides = (torch.empty(0), torch.empty(0))

    def scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """One product."""
        self._sides = (rows, columns)
        return rows @ columns.T

    def back(self, derivative: Tensor, strip: slice, totals: Totals) -> None:
        """One more for each side."""
        rows, columns = self._sides
        if totals.rows is not None:
            totals.rows[strip].addmm_(derivative, columns)
        if totals.columns is not None:
            totals.columns.addmm_(derivative.T, rows)


class MlpPass(StripPass):
    """Of an MLP that begins with a sum: ReLU(row + column), some times [Linear, ReLU], Linear to 1; by hand.

    Needs layers + 1 buffers of one strip's units (one more where there are two further layers or more), and in the
    backward direction no others: the first layer's units are made again where their sign is asked for, the last ones
    turn into their own gradient. The factor of the last layer is applied to sums, not to pairs.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor], pairs: int, dtype: torch.dtype) -> None:
        """Weights and biases of all layers behind the first, the last [1, h]. pairs: of the largest strip.

        dtype: of units and products between them.
        """
        *inner, last = weights
        self._last, self._last_bias = last.detach()[0], biases[-1].detach()
        self._weights = [weight.detach().to(dtype) for weight in inner]
        self._biases = [bias.detach().to(dtype) for bias in biases[:-1]]
        layers = len(self._weights)
        count = layers + 1 + (layers > 1)
        self._buffers = [last.new_empty(pairs, last.shape[1], dtype=dtype) for _ in range(count)]
        self._sides = (last, last)
        # What goes back through the last further layer: its weights times the last layer's.
        self._scaled = [*self._weights[:-1], *((w * self._last[:, None]).to(dtype) for w in inner[-1:])]

    def scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Keeps all units."""
        self._sides = (rows, columns)
        count = len(rows) * len(columns)
        units = self._first_units(0)
        for layer, (weight, bias) in enumerate(zip(self._weights, self._biases, strict=True), start=1):
            units = torch.addmm(bias, units, weight.T, out=self._buffers[layer][:count]).relu_()
        # The last product is cheap, and its result must not be rounded.
        scores = torch.addmv(self._last_bias, at_least_float32(units), self._last)
        return scores.view(len(rows), len(columns))

    def back(self, derivative: Tensor, strip: slice, totals: Totals) -> None:
        """From the last layer to the first, in the buffers."""
        flat = derivative.reshape(-1)
        count, layers = len(flat), len(self._weights)
        units = [buffer[:count] for buffer in self._buffers]
        *of_inner, of_last, of_last_bias = totals.parameters
        if of_last is not None:
            of_last[0].addmv_(at_least_float32(units[layers]).T, flat)
        if of_last_bias is not None:
            of_last_bias += flat.sum()
        # By each layer's sums, but for the last layer's factor.
        inner = _masked(flat.to(units[layers].dtype)[:, None].expand_as(units[layers]), units[layers], units[layers])
        if layers:
            inner = self._through_layers(inner, units, of_inner, totals)
        if totals.rows is not None:
            totals.rows[strip].add_(self._per_pair(inner, strip).sum(dim=1, dtype=totals.rows.dtype))
        if totals.columns is not None:
            totals.columns.add_(self._per_pair(inner, strip).sum(dim=0, dtype=totals.columns.dtype))

    def _through_layers(
        self, inner: Tensor, units: list[Tensor], of_inner: Sequence[Tensor | None], totals: Totals
    ) -> Tensor:
        """Gradients by a further layer's sums, from the last to the first; leaves those by the first layer's sums."""
        spare = units[-1]
        for layer in range(len(self._weights), 0, -1):
            below, weight = units[layer - 1], self._scaled[layer - 1]
            of_weight, of_bias = of_inner[2 * layer - 2 : 2 * layer]
            if of_weight is not None:
                _add_product(of_weight, inner.T, below)
            if of_bias is not None:
                of_bias += inner.sum(dim=0, dtype=of_bias.dtype)
            if layer > 1:
                torch.mm(inner, weight, out=spare)
                inner, spare = _masked(spare, below, spare), inner
            elif totals.rows is not None or totals.columns is not None:
                torch.mm(inner, weight, out=below)
                inner = _masked(below, self._first_units(len(self._weights)), below)
        return inner

    def finish(self, totals: Totals) -> None:
        """The last layer's factor, onto what was found behind it."""
        *of_inner, _, _ = totals.parameters
        if self._weights:
            of_weight, of_bias = of_inner[-2:]
            if of_weight is not None:
                of_weight *= self._last[:, None]
            if of_bias is not None:
                of_bias *= self._last
        else:
            for total in (totals.rows, totals.columns):
                if total is not None:
                    total *= self._last

    def _first_units(self, buffer: int) -> Tensor:
        """The first layer's units [t N, h], in that buffer."""
        rows, columns = self._sides
        units = self._buffers[buffer][: len(rows) * len(columns)]
        torch.add(rows[:, None], columns, out=units.view(len(rows), len(columns), -1))
        return units.relu_()

    def _per_pair(self, inner: Tensor, strip: slice) -> Tensor:
        return inner.view(strip.stop - strip.start, -1, inner.shape[1])


def _masked(gradient: Tensor, units: Tensor, out: Tensor) -> Tensor:
    """``gradient`` where ``units`` are above 0, else 0; into ``out``, which may be either."""
    return torch.ops.aten.threshold_backward.grad_input(gradient, units, 0, grad_input=out)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype is total.dtype:
        torch.addmm(total, left, right, out=total)
    else:
        total += left @ right
