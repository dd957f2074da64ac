"""Canonical correlation analysis in closed form: what two modalities have in common, and what is left of each.

Section by section of MUCMM (reconstruction), docs/methods/mucmm.md. For centered features h_1 and h_2 with covariances
S11, S22, S12 (a ridge r on the diagonals) the whitened cross-correlation has the singular value decomposition

    K = S11^{-1/2} S12 S22^{-1/2} = U diag(rho) V^T,    rho_1 >= rho_2 >= ... in [0, 1]     (Hotelling 1936)
    A_1 = S11^{-1/2} U,    A_2 = S22^{-1/2} V,          codes A_m^T (h_m - mean_m)

The first k columns are the common maps, the further ones, up to the rank of S_mm, the individual maps: white, not
correlated with any common code, and with one another only by rho_{k+1}, ... Everything is float64, on one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.distributed.moments import Moments, moments
from mmpretrain.distributed.world import World
from mmpretrain.losses.correlation import Blocks

# Of the largest eigenvalue: what is below it is rounding, not a direction.
RANK_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Canonical:
    """The closed form of a pair of modalities; all float64.

    means: [d_m]. maps: [d_m, r_m], white canonical directions in the order of ``rho``, then the complement; r_m is the
    rank of the covariance with its ridge: d_m as soon as there is a ridge. rho: [min(r_1, r_2)], descending.
    covariances: [d_m, d_m], ridge included, so that maps^T covariance maps = I exactly.
    """

    means: tuple[Tensor, Tensor]
    maps: tuple[Tensor, Tensor]
    rho: Tensor
    covariances: tuple[Tensor, Tensor]

    def common(self, k: int) -> tuple[Tensor, Tensor]:
        """The common maps A_m, [d_m, k]. Raises ValueError for a k that is negative or above the length of rho."""
        self._check(k)
        return self.maps[0][:, :k], self.maps[1][:, :k]

    def individual(self, k: int, widths: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """The individual maps B_m, white, not correlated with the first ``k`` common codes of either modality.

        widths: None for the whole complement, [d_m, r_m - k], in canonical order; otherwise a width for each modality:
        [d_m, width], the leading principal components of what the common code leaves of h_m (AJIVE's individual part).
        Raises ValueError for a k as in :meth:`common`, and for widths beyond the complement.
        """
        self._check(k)
        rest = (self.maps[0][:, k:], self.maps[1][:, k:])
        if widths is None:
            return rest
        first, second = (
            _leading(covariance, complement, width)
            for covariance, complement, width in zip(self.covariances, rest, widths, strict=True)
        )
        return first, second

    def _check(self, k: int) -> None:
        if not 0 <= k <= len(self.rho):
            raise ValueError(f"{k} common dimensions were asked for: there are between 0 and {len(self.rho)}")


def canonical(joint: Moments, width: int, ridge: float = 1e-4) -> Canonical:
    """The closed form from the moments of rows [h_1; h_2].

    joint: of D = d_1 + d_2 columns, of which the first ``width`` (d_1) are the first modality's. ridge: added to the
    diagonal of each modality's covariance, in units of its mean variance; 0 uses the directions that vary at all.
    Raises ValueError for a negative ridge, a width that leaves a modality without columns, or one that is constant.
    """
    if not 0 < width < len(joint.mean):
        raise ValueError(f"the first {width} of {len(joint.mean)} columns leave a modality without any")
    covariance = joint.covariance.double()
    first, second = _regular(covariance[:width, :width], ridge), _regular(covariance[width:, width:], ridge)
    roots = _inverse_root(first), _inverse_root(second)
    left, rho, right = torch.linalg.svd(roots[0].T @ covariance[:width, width:] @ roots[1], full_matrices=True)
    mean = joint.mean.double()
    return Canonical((mean[:width], mean[width:]), (roots[0] @ left, roots[1] @ right.T), rho, (first, second))


def canonical_of_rows(first: Tensor, second: Tensor, ridge: float = 1e-4) -> Canonical:
    """The closed form of samples: first [n, d_1], second [n, d_2], any float type; ridge as in :func:`canonical`.

    Raises ValueError for other shapes, and for less than two samples.
    """
    _check_rows(first, second)
    rows = torch.cat([first.detach().double(), second.detach().double()], dim=1)
    return canonical(moments(rows, world=World(device=rows.device)), first.shape[1], ridge)


def permutation_null(
    first: Tensor, second: Tensor, *, draws: int = 100, quantile: float = 0.95, seed: int = 0, ridge: float = 1e-4
) -> float:
    """The ``quantile`` of the largest canonical correlation when rows of ``second`` are shuffled.

    A rho above it is not explained by chance at this number of samples. Arguments as in :func:`canonical_of_rows`.
    draws: how many shuffles, drawn from ``seed``. Cost: one product [d_1, n] x [n, d_2] and its singular values each.
    """
    found = canonical_of_rows(first, second, ridge)
    # Shuffling leaves both covariances as they are, so that rows are whitened once.
    left, right = (
        (rows.detach().double() - mean) @ maps
        for rows, mean, maps in zip((first, second), found.means, found.maps, strict=True)
    )
    generator = torch.Generator().manual_seed(seed)
    orders = (torch.randperm(len(left), generator=generator).to(left.device) for _ in range(draws))
    largest = [torch.linalg.matrix_norm(left.T @ right[order], ord=2) / (len(left) - 1) for order in orders]
    return float(torch.stack(largest).quantile(quantile))


def common_dimension(rho: Tensor, threshold: float) -> int:
    """How many canonical correlations are above ``threshold`` (of :func:`permutation_null`)."""
    return int((rho > threshold).sum())


def shared_directions(white: Blocks, width: int) -> list[Tensor]:
    """Orthonormal directions [d_m, width] of every group of white columns, along which the groups agree most.

    The leading eigenvectors of ``white`` (MAXVAR, Kettenring 1971), cut into a part for each group, of which each is
    replaced by the nearest orthonormal matrix. Of two groups: U and V of the module's docstring, in order.
    Raises ValueError for a width above that of a group.
    """
    if width > min(white.widths.values()):
        raise ValueError(f"{width} common dimensions were asked for: a modality has only {min(white.widths.values())}")
    _, vectors = torch.linalg.eigh(white.matrix)
    parts = vectors[:, -width:].flip(1).split(list(white.widths.values()))
    return [left @ right for left, _, right in (torch.linalg.svd(part, full_matrices=False) for part in parts)]


def principal_whitening(covariance: Tensor, share: float = 1.0) -> Tensor:
    """W [d, p] with W^T S W = I, along the fewest principal components that hold this ``share`` of the variance, the
    largest first. Raises ValueError if nothing varies."""
    root = _inverse_root(covariance.double()).flip(1)
    held = root.square().sum(0).reciprocal()  # the eigenvalues
    before = held.cumsum(0) - held
    return root[:, before < share * held.sum()]


def _check_rows(first: Tensor, second: Tensor) -> None:
    if first.dim() != 2 or second.dim() != 2 or len(first) != len(second) or len(first) < 2:
        raise ValueError(
            f"canonical correlations need rows [n, d_1] and [n, d_2] of the same n >= 2 samples, got"
            f" {list(first.shape)} and {list(second.shape)}"
        )


def _regular(covariance: Tensor, ridge: float) -> Tensor:
    """``covariance`` with the ridge on its diagonal."""
    if ridge < 0:
        raise ValueError(f"ridge is {ridge}: it must be 0 or more")
    return covariance + ridge * covariance.diagonal().mean() * torch.eye(len(covariance)).to(covariance)


def _inverse_root(covariance: Tensor) -> Tensor:
    """R [d, r] with R^T S R = I, along the r eigenvectors of S that carry variance."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > RANK_TOLERANCE * values[-1]
    if not kept.any():
        raise ValueError("a modality has the same features in every sample: nothing can correlate with it")
    root: Tensor = vectors[:, kept] * values[kept].rsqrt()
    return root


def _leading(covariance: Tensor, complement: Tensor, width: int) -> Tensor:
    """[d, width]: the leading principal components within a white complement [d, r], white again."""
    if not 0 <= width <= complement.shape[1]:
        raise ValueError(f"{width} individual dimensions were asked for: at most {complement.shape[1]} are left")
    # S B = E sqrt(lambda) Q^T holds the components E of what the common code leaves; a rotation keeps B Q white.
    _, _, rotation = torch.linalg.svd(covariance @ complement, full_matrices=False)
    return complement @ rotation[:width].T
