"""Sums of singular values and of eigenvalues in a fixed number of products, so that no host waits for the device.

A matrix A with the decomposition U diag(s) V^T has the polar factor P = U V^T: sum s = <P, A>, and P is the gradient of
this sum. Newton and Schulz's iteration takes singular values to 1,

    X <- 3/2 a X - 1/2 a^3 X X^T X,    a^2 = 3 / (1 + l + l^2)    (Chen and Chow 2014), from X = A / ||A||_F,

for values of at least l, which is known beforehand and moves along; smaller ones are off by no more than they count.
The sum of the w largest eigenvalues of a symmetric A is the smallest of w m + tr (A - m)_+ over all numbers m, where
|A - m| has the trace <P, A - m> and the trace of P says how many eigenvalues lie above m (Overton and Womersley 1993).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Of the search for m: at how many numbers at a time, on both sides of the gap, and how often.
POINTS, ROUNDS = 31, 9


def nuclear_norm(matrix: Tensor, least: float) -> Tensor:
    """The sum of the singular values of ``matrix`` [n, k], float64; what is not finite gives NaN.

    least: how small singular values may be, if the largest is about 1, for the gradient to be exact.
    """
    return (_polar(matrix.detach(), least) * matrix).sum()


def leading_sum(symmetric: Tensor, count: int, least: float = 1e-12) -> Tensor:
    """The sum of the ``count`` largest eigenvalues of ``symmetric`` [n, n], float64; what is not finite gives NaN.

    least: how near, as a part of the largest, the next eigenvalue may be for the gradient to be exact.
    """
    one = torch.eye(len(symmetric), dtype=symmetric.dtype, device=symmetric.device)
    between = _between(symmetric.detach(), count, least) * one
    apart = symmetric - between
    # Those above count twice in the sum of |A - m| and A - m, the others not at all.
    return count * between[0, 0] + (nuclear_norm(apart, least) + apart.diagonal().sum()) / 2


def _polar(matrix: Tensor, least: float) -> Tensor:
    """P of matrices [..., n, k]."""
    norm = matrix.square().sum((-2, -1), keepdim=True).sqrt()
    found = matrix / norm.clamp_min(torch.finfo(matrix.dtype).tiny)
    for factor in _factors(least / min(matrix.shape[-2:]) ** 0.5):
        found = 1.5 * factor * found - (0.5 * factor**3) * (found @ (found.mT @ found))
    return found


def _factors(low: float) -> list[float]:
    """a of every step, from singular values of at least ``low`` on."""
    found = []
    while low < 0.999:
        # 1 becomes as small as what is taken for the least value: of a tiny one rounding would be left.
        taken = max(low, 0.1)
        found.append((3 / (1 + taken + taken**2)) ** 0.5)
        low *= found[-1] * (3 - (found[-1] * low) ** 2) / 2
    return [*found, 1.0, 1.0, 1.0]  # what is left to 1 becomes 1.5 times its square


def _between(symmetric: Tensor, count: int, least: float) -> Tensor:
    """A number [1, 1] in the middle of the gap below the ``count`` largest eigenvalues, or within rounding of both."""
    size = len(symmetric)
    one = torch.eye(size, dtype=symmetric.dtype, device=symmetric.device)
    ends = symmetric.square().sum().sqrt() * torch.arange(-1, 2, 2, dtype=symmetric.dtype, device=symmetric.device)
    ends = ends.expand(2, 2)  # where the eigenvalue below the gap may lie, and that above it
    parts = torch.arange(POINTS + 2, dtype=symmetric.dtype, device=symmetric.device) / (POINTS + 1)
    wanted = count + 0.5 - torch.arange(2, dtype=symmetric.dtype, device=symmetric.device)[:, None]
    for _ in range(ROUNDS):
        points = torch.lerp(ends[:, :1], ends[:, 1:], parts)
        factors = _polar(symmetric - points[:, 1:-1, None, None] * one, least)
        above = (factors.diagonal(dim1=-2, dim2=-1).sum(-1) + size) / 2
        place = (above > wanted).sum(1, keepdim=True)
        ends = torch.cat([points.gather(1, place), points.gather(1, place + 1)], dim=1)
    return ends.mean().reshape(1, 1)
