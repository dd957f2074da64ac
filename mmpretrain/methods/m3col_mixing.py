"""Mixup of samples: who is mixed with whom, how much, and the mixing itself.

Per modality, independently: a random permutation gives the partners (a sample may meet itself), the weight
of the sample itself is lam ~ Beta(a, a), and each sample is left unmixed (lam = 1) with probability 1 -
select. Everything is a function of the run's seed and the stream position, never of the rank.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from mmpretrain.data.batch import Batch, Inputs, Mixing
from mmpretrain.data.step import Step
from mmpretrain.distributed.sending import sent
from mmpretrain.losses.contrastive import Mixup


class SelfPairs(Enum):
    """What becomes of lam where a sample meets itself.

    added: ``P_ii = lam + (1 - lam) = 1``. assigned: ``P_ii = 1 - lam``, as in the released code of M3CoL.
    """

    added = "added"
    assigned = "assigned"


@dataclass(frozen=True)
class Mixer:
    """beta: both parameters of the Beta distribution of lam. select: probability that a sample is mixed."""

    beta: float
    select: float

    def group(self, positions: Tensor, size: int, modality: str, step: Step) -> Mixing:
        """The mixing of b consecutive stream positions among themselves in groups of ``size``; on the CPU, if they are.

        Each group's draws depend on the seed, its first position and the modality. Raises ValueError when
        ``size`` does not divide b.
        """
        if len(positions) % size:
            raise ValueError(
                f"method.mix_group {size} does not divide the local batch {len(positions)}:"
                " change data.global_batch or the number of ranks"
            )
        first = positions[::size].tolist()
        parts = [self.draw(size, step.sub_seed(position, modality, "mix")) for position in first]
        partners = [part.partner + size * number for number, part in enumerate(parts)]
        weights = [part.weight for part in parts]
        return Mixing(torch.cat(weights).to(positions.device), torch.cat(partners).to(positions.device))

    def whole_batch(self, rows: int, own: Tensor, modality: str, step: Step) -> Mixing:
        """The mixing of all ``rows`` of the global batch among themselves, cut to the rows ``own`` (int64 [b]).

        ``partner`` counts rows of the global batch. Every rank draws the same.
        """
        mixing = self.draw(rows, step.sub_seed(step.index, modality, "mix the global batch"))
        return Mixing(sent(mixing.weight, own.device)[own], sent(mixing.partner, own.device)[own])

    def draw(self, rows: int, seed: int) -> Mixing:
        """``rows`` weights (float64, so that lam and 1 - lam keep their sum) and partners (int64)."""
        # NumPy: torch offers no Beta distribution that takes a generator.
        random = np.random.default_rng(seed)
        partner = random.permutation(rows)
        weight = random.beta(self.beta, self.beta, rows)
        weight[random.random(rows) >= self.select] = 1.0
        return Mixing(torch.from_numpy(weight), torch.from_numpy(partner))


def mix(rows: Tensor, mixing: Mixing, partners: Tensor | None = None) -> Tensor:
    """New rows ``weight[i] * rows[i] + (1 - weight[i]) * partners[partner[i]]``, in float32 at least.

    rows: [b, ...]. partners: [n, ...], what ``mixing.partner`` counts (default: ``rows``).
    """
    partners = rows if partners is None else partners
    dtype = torch.promote_types(rows.dtype, torch.float32)
    weight = mixing.weight.to(dtype).view(-1, *[1] * (rows.dim() - 1))
    return weight * rows + (1 - weight) * partners[mixing.partner]


def mixup_targets(mixing: Mixing, own: Tensor, self_pairs: SelfPairs) -> Mixup:
    """The targets of b mixed rows that stand at the rows ``own`` of the batch which ``mixing.partner`` counts."""
    weight = mixing.weight
    if self_pairs is SelfPairs.assigned:
        weight = weight.masked_fill(mixing.partner == own, 0.0)
    return Mixup(weight, 1 - mixing.weight, mixing.partner)


def with_mixed_view(batch: Batch, mixing: dict[str, Mixing], at_input: list[str]) -> Batch:
    """``batch`` with its mixing, and with a view ``mixed`` of mixed encoder inputs for ``at_input``.

    Raises ValueError for a modality whose inputs are not floating point.
    """
    view: Inputs = {}
    for modality in at_input:
        tensors = batch.inputs[modality]
        if integers := [name for name, tensor in tensors.items() if not tensor.is_floating_point()]:
            raise ValueError(
                f"inputs {', '.join(integers)} of {modality} are integers and cannot be mixed:"
                " set method.mix_level=embedding"
            )
        view[modality] = {name: mix(t, mixing[modality]).to(t.dtype) for name, t in tensors.items()}
    return replace(batch, mixing=mixing, views=batch.views | ({"mixed": view} if view else {}))
