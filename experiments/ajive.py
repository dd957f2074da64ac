"""AJIVE (Feng, Jiang, Hannig and Marron 2018, arXiv 1704.02060) in closed form: a joint code, and a rest per block.

Of centered blocks X_m [n, d_m] of which the leading r_m principal components are kept, with orthonormal scores U_m,

    [U_1, ..., U_M] = J diag(s) W^T         joint scores: the first k columns of J, the same for all blocks
    X_m - J J^T X_m                         individual parts, of which the leading principal components are kept

For two blocks s_i^2 = 1 + rho_i with the canonical correlations of the kept components, and J holds the scaled sums of
both sides' canonical codes. Ranks are given, not estimated, and no joint component is dropped for being small in one of
the blocks.
Shapes: n samples, d_m width of a block, k joint and u individual directions; all float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.losses.canonical import principal_whitening


@dataclass(frozen=True)
class Ajive:
    """Of each block: means [d_m]; joint_maps [d_m, k], whose codes add up to the joint one; loadings [k, d_m], what the
    joint code explains of the block; individual_maps [d_m, u]. singular: [k], descending."""

    means: list[Tensor]
    joint_maps: list[Tensor]
    loadings: list[Tensor]
    individual_maps: list[Tensor]
    singular: Tensor

    def codes(self, blocks: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Joint code [n, k], which takes all blocks of a sample, and individual codes [n, u] each; white on the data of
        the fit."""
        centered = [block.double() - mean for block, mean in zip(blocks, self.means, strict=True)]
        joint = _sum(block @ own for block, own in zip(centered, self.joint_maps, strict=True))
        rests = [block - joint @ loading for block, loading in zip(centered, self.loadings, strict=True)]
        return joint, [rest @ own for rest, own in zip(rests, self.individual_maps, strict=True)]


def ajive(blocks: Sequence[Tensor], ranks: Sequence[int], joint: int, individual: int) -> Ajive:
    """The closed form of ``blocks`` [n, d_m] by ``ranks`` r_m. Raises ValueError for a block that does not vary."""
    means = [block.double().mean(dim=0) for block in blocks]
    centered = [block.double() - mean for block, mean in zip(blocks, means, strict=True)]
    roots = [_whitening(block, rank) for block, rank in zip(centered, ranks, strict=True)]
    # Scores are white here, of length sqrt(n - 1), where the paper's have length 1.
    stacked = torch.cat([block @ root for block, root in zip(centered, roots, strict=True)], dim=1)
    degrees = len(stacked) - 1
    values, vectors = torch.linalg.eigh(stacked.T @ stacked / degrees)
    singular = values.flip(0)[:joint].sqrt()
    parts = (vectors.flip(1)[:, :joint] / singular).split([root.shape[1] for root in roots])
    maps = [root @ part for root, part in zip(roots, parts, strict=True)]
    code = _sum(block @ own for block, own in zip(centered, maps, strict=True))
    loadings = [code.T @ block / degrees for block in centered]
    rests = [block - code @ loading for block, loading in zip(centered, loadings, strict=True)]
    return Ajive(means, maps, loadings, [_whitening(rest, individual) for rest in rests], singular)


def _whitening(centered: Tensor, rank: int) -> Tensor:
    """[d, rank] or narrower: white scores of the leading principal components."""
    return principal_whitening(centered.T @ centered / (len(centered) - 1))[:, :rank]


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(dim=0)
