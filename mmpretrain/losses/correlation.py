"""Losses that are functions of a covariance: canonical correlations of codes, and what codes explain.

For MUCMM (reconstruction), docs/methods/mucmm.md. With S the covariance of the codes of all modalities, S_ab that of
codes a and b, r the ridge, and L_a the Cholesky factor of S_aa + r I:

    K(a, b) = L_a^{-1} S_ab L_b^{-T}     has the singular values rho_i of (S_aa + rI)^{-1/2} S_ab (S_bb + rI)^{-1/2}

rho_1, rho_2, ... are the canonical correlations (Hotelling 1936). Sums of rho^2 are squares of entries of K: they need
no decomposition. Sums of rho only need eigenvalues, whose gradient does not divide by their distances. What is not
finite, or no covariance, gives NaN instead of an error, as in every other loss.

A library's decomposition looks at whether it has converged, for which a GPU's host waits. With ``ahead`` sums of
singular values come from polar.py, which takes as many products as it ever needs: the same to rounding.

Shape legend: D all columns, k width of a code, d of an embedding. Everything in float64, the same on all ranks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from mmpretrain.losses.polar import leading_sum, nuclear_norm

Name = tuple[str, str]  # of a group of columns: what it is, and of which modality
SMOOTHING = 1e-8
OFF_DIAGONAL = 0.005


@dataclass(frozen=True)
class Blocks:
    """A [D, D] matrix of covariances or correlations; widths: group of columns -> how many, in their order."""

    matrix: Tensor
    widths: Mapping[Name, int]

    def of(self, rows: Name, columns: Name) -> Tensor:
        """The block [width of rows, width of columns]."""
        return self.matrix[self._place(rows), self._place(columns)]

    def only(self, names: Sequence[Name]) -> Blocks:
        """These groups alone, in this order."""
        everything = torch.arange(self.matrix.shape[0], device=self.matrix.device)
        index = torch.cat([everything[self._place(name)] for name in names])
        return Blocks(self.matrix[index][:, index], {name: self.widths[name] for name in names})

    def _place(self, name: Name) -> slice:
        ends = accumulate(self.widths.values(), initial=0)
        places = dict(zip(self.widths, pairwise(ends), strict=True))
        return slice(*places[name])


def whiten(covariances: Blocks, ridge: float) -> Blocks:
    """Every group white: blocks K(a, b). ridge: in units of a group's mean variance."""
    factors = [_factor(covariances.of(name, name), ridge) for name in covariances.widths]
    inner = _solve(factors, covariances.matrix)
    return Blocks(_solve(factors, inner.mT).mT, covariances.widths)


def standardize(covariances: Blocks) -> Blocks:
    """Every column of variance 1: blocks R(a, b), plain correlations."""
    scale = covariances.matrix.diagonal().clamp_min(torch.finfo(torch.float64).tiny).rsqrt()
    return Blocks(scale[:, None] * covariances.matrix * scale, covariances.widths)


def correlations(cross: Tensor) -> Tensor:
    """rho, descending: the singular values of a ``cross`` = K(a, b) [k, l]; without gradient."""
    finite = cross.detach().isfinite().all()
    return torch.linalg.svdvals(torch.where(finite, cross.detach(), 0.0)).where(finite, torch.nan)


def mean_correlation(cross: Tensor, *, ahead: bool = False) -> Tensor:
    """The mean of :func:`correlations`."""
    return nuclear_norm(cross.detach(), least=1e-12) / min(cross.shape) if ahead else correlations(cross).mean()


def sum_of_correlations(cross: Tensor, *, ahead: bool = False) -> Tensor:
    """sum rho = tr (K^T K)^{1/2}, smooth at 0: eps = 1e-8 under the root adds at most sqrt(eps) for each rho."""
    narrow = cross if cross.shape[0] > cross.shape[1] else cross.mT
    one = torch.eye(narrow.shape[1], dtype=cross.dtype, device=cross.device)
    if ahead:
        # The singular values of [K; sqrt(eps) I] are the roots of K^T K + eps I.
        root = SMOOTHING**0.5
        return nuclear_norm(torch.cat([narrow, root * one]), least=root)
    return _eigenvalues(narrow.mT @ narrow + SMOOTHING * one).sqrt().sum()


def sum_of_squares(cross: Tensor) -> Tensor:
    """sum rho^2 = ||K||_F^2 = tr (S_aa + r)^{-1} S_ab (S_bb + r)^{-1} S_ba; 0 only without any correlation."""
    return cross.square().sum()


def agreement(white: Blocks, width: int, *, ahead: bool = False) -> Tensor:
    """MAXVAR (Kettenring 1971), in [1/M, 1]: the mean of the ``width`` largest eigenvalues of ``white``, over M groups.

    Of two codes of the same width: the mean of (1 + rho_i) / 2.
    """
    largest = leading_sum(white.matrix, width) if ahead else _eigenvalues(white.matrix)[-width:].sum()
    return largest / (width * len(white.widths))


def redundancy(standard: Tensor) -> Tensor:
    """Barlow Twins (Zbontar et al. 2021) of R(a, b) [k, k], over k: sum_i (1 - R_ii)^2 + 0.005 sum_{i != j} R_ij^2."""
    off = standard.square().sum() - standard.diagonal().square().sum()
    return ((1 - standard.diagonal()).square().sum() + OFF_DIAGONAL * off) / len(standard)


def unexplained(covariances: Blocks, target: Name, given: Sequence[Name], ridge: float) -> Tensor:
    """The share of the target's variance that the best linear decoder of the given codes leaves, in [0, 1]:

        min_D E||h - mean - D (z - mean)||^2 / E||h - mean||^2 = 1 - tr(S_hz S_zz^{-1} S_zh) / tr S_hh

    The decoder is a function of the moments, so nothing is trained for it. ridge: in units of each code's variance.
    """
    both = covariances.only([*given, target])
    codes = both.matrix.shape[0] - covariances.widths[target]
    inner, cross = both.matrix[:codes, :codes], both.matrix[:codes, codes:]
    scale = inner.diagonal().clamp_min(torch.finfo(torch.float64).tiny).rsqrt()
    factor = _factor(scale[:, None] * inner * scale, ridge)
    explained = torch.linalg.solve_triangular(factor, scale[:, None] * cross, upper=False).square().sum()
    return 1 - explained / both.matrix[codes:, codes:].diagonal().sum()


def _factor(covariance: Tensor, ridge: float) -> Tensor:
    """L [k, k] with L L^T = S + r I; NaN where there is none."""
    one = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    own = ridge * covariance.diagonal().mean() * one
    factor, info = torch.linalg.cholesky_ex(covariance + own)
    return factor.where(info == 0, torch.nan)


def _solve(factors: Sequence[Tensor], matrix: Tensor) -> Tensor:
    """L^{-1} M for the block-diagonal L of all ``factors``, [D, D]."""
    parts = matrix.split([len(factor) for factor in factors])
    solved = [torch.linalg.solve_triangular(f, rows, upper=False) for f, rows in zip(factors, parts, strict=True)]
    return torch.cat(solved)


def _eigenvalues(symmetric: Tensor) -> Tensor:
    """Ascending. LAPACK would raise for what is not finite, and on one machine sooner than on another."""
    finite = symmetric.isfinite().all()
    return torch.linalg.eigvalsh(symmetric.where(finite, 0.0)).where(finite, torch.nan)
