"""Of what parts an embedding's variance consists: shared with the other modality, and not, in four fractions.

For one modality of a pair: embedding h [d], its mean m, common code c [k], individual code u, and the *other*
modality's common code c'. Three predictions are fitted by least squares on the split that the codes are from:

    h_c  = m + B c          what the common directions carry of h
    h_cu = m + D [c; u]     what common and individual directions carry together
    h_s  = m + P c'         h_c, predicted from what the other modality says along the common directions alone

and, on any split, with V = sum |h - m|^2 and sums over its samples,

    common        = 1 - sum |h - h_c|^2 / V
    explained     = 1 - sum |h_c - h_s|^2 / sum |h_c - m|^2       how much of the common part the other side predicts

    shared        = common * explained                the other modality predicts it
    unshared      = common * (1 - explained)          in common directions, but the other modality does not predict it
    own           = (sum |h - h_c|^2 - sum |h - h_cu|^2) / V      in the individual directions
    left out      = the rest: directions that hardly vary (--dimensions) or that no code holds

These four sum to 1. In closed form, on the samples of the fit, explained is rho_i^2 along direction i, so that shared
is sum_i rho_i^2 |l_i|^2 / V (l_i: the covariances of h and c_i): a correlation of 0.33 shares 0.11 of its direction.
There shared is too large, because both sides were turned towards one another on these very samples; what counts is a
split that nothing was fitted on. A prediction that does worse than the mean on it explains nothing: 0; likewise common
and own. Shapes: n samples, d width of the embedding; all float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.explain.scores import Codes

TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class VarianceParts:
    """Fractions of the variance, [] of all of it or [d] of every coordinate; they sum to 1."""

    shared: Tensor
    unshared: Tensor
    own: Tensor
    left_out: Tensor

    def named(self) -> dict[str, Tensor]:
        """By the names that files and pictures use."""
        return {"shared": self.shared, "unshared": self.unshared, "own": self.own, "left_out": self.left_out}


@dataclass(frozen=True)
class PartsFit:
    """The three predictions of one modality. mean: [d], codes: [k], both: [k + u], other: [k], means of h and of the
    codes; common: B^T [k, d]; joint: D^T [k + u, d]; crossed: P^T [k, d]."""

    mean: Tensor
    both: Tensor
    other: Tensor
    common: Tensor
    joint: Tensor
    crossed: Tensor

    @classmethod
    def of(cls, rows: Tensor, codes: Codes, other: Codes) -> PartsFit:
        """By the samples themselves. rows: [n, d], codes: of the same modality, other: of the other one."""
        both = torch.cat([codes.common, codes.individual], dim=1)
        mean = rows.mean(dim=0)
        centered, joint = rows - mean, both - both.mean(dim=0)
        k = codes.common.shape[1]
        common = _least_squares(joint[:, :k], centered)
        carried = joint[:, :k] @ common
        crossed = _least_squares(other.common - other.common.mean(dim=0), carried)
        return cls(mean, both.mean(dim=0), other.common.mean(dim=0), common, _least_squares(joint, centered), crossed)

    def parts(self, rows: Tensor, codes: Codes, other: Codes, *, coordinates: bool = False) -> VarianceParts:
        """Of any samples, arguments as in :meth:`of`; coordinates: of each coordinate [d] instead of all together."""
        k = len(self.common)
        centered = rows - self.mean
        joint = torch.cat([codes.common, codes.individual], dim=1) - self.both
        carried, both = joint[:, :k] @ self.common, joint @ self.joint
        predicted = (other.common - self.other) @ self.crossed
        sums = [
            part.square().sum(dim=0) if coordinates else part.square().sum()
            for part in (centered, centered - carried, centered - both, carried, carried - predicted)
        ]
        whole, uncommon, rest, common_sum, unpredicted = sums
        varies, whole = whole > 0, whole.clamp(min=TINY)
        common = torch.where(varies, 1 - uncommon / whole, 0.0).clamp(0, 1)  # a constant coordinate carries nothing
        explained = (1 - unpredicted / common_sum.clamp(min=TINY)).clamp(0, 1)
        own = torch.minimum(((uncommon - rest) / whole).clamp(min=0), 1 - common)
        return VarianceParts(common * explained, common * (1 - explained), own, 1 - common - own)

    def own_share(self, codes: Codes) -> Tensor:
        """[n], 0 to 1: of each sample, how much of what both parts carry (squared lengths) the individual codes add to
        the common ones."""
        k = len(self.common)
        joint = torch.cat([codes.common, codes.individual], dim=1) - self.both
        common = joint[:, :k] @ self.common
        own = (joint @ self.joint - common).square().sum(dim=1)
        return own / (own + common.square().sum(dim=1)).clamp(min=TINY)


def _least_squares(codes: Tensor, rows: Tensor) -> Tensor:
    """[k, d]: what takes centered codes [n, k] to centered rows [n, d]; constant or repeated codes get nothing."""
    if not codes.shape[1]:
        return rows.new_zeros(0, rows.shape[1])
    return torch.linalg.pinv(codes.T @ codes, rtol=1e-10, hermitian=True) @ (codes.T @ rows)
