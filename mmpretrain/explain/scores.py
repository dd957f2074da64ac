"""How much two samples share, and how much each is its own: scores of common and individual codes.

MUCMM (Shi and Niethammer 2023, arXiv 2305.03125) sums up what two modalities share by such scores. Of the
paper, only title, abstract and the first lines of the introduction were read: the formulas are a reconstruction from
canonical correlation analysis. Codes are white and centered over
the data that they were fitted on, so that over this data

    s_c = sum_i c1_i c2_i      has the mean sum_i rho_i, the total correlation, and 0 over unrelated pairs
    s_u = |u|^2                has the mean k_u, the number of individual directions

Shapes: b samples, d width of the embedding, k common and u individual directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.explain.settings import CommonScore, IndividualScore

SMALLEST = 1e-12


@dataclass(frozen=True)
class Codes:
    """One modality's codes of b samples. common: [b, k]. individual: [b, u]."""

    common: Tensor
    individual: Tensor


def common_score(
    first: Tensor, second: Tensor, form: CommonScore = CommonScore.product, weights: Tensor | None = None
) -> Tensor:
    """[b]: what the common codes [b, k] of two modalities have in common, sample by sample.

    weights: [k], of the directions (rho makes those that hardly correlate count little); None: 1 each.
    """
    product = first * second if weights is None else first * second * weights
    if form is CommonScore.product:
        return product.sum(dim=1)
    return product.sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1)).clamp(min=SMALLEST)


def individual_score(
    codes: Codes, loadings: tuple[Tensor, Tensor], form: IndividualScore = IndividualScore.norm
) -> Tensor:
    """[b]: how much of a sample is its modality's own.

    loadings: [d, k] and [d, u], covariances of the embedding and both codes, which take codes back to embeddings.
    """
    return own_energy(codes.individual) if form is IndividualScore.norm else individual_energy(codes, loadings)


def individual_energy(codes: Codes, loadings: tuple[Tensor, Tensor]) -> Tensor:
    """[b], in [0, 1]: the individual part's share of the squared lengths of both parts of the embedding.

    The parts are uncorrelated over samples, not at right angles in each: as a share of the embedding's own length the
    individual part's could exceed 1. loadings: as in :func:`individual_score`.
    """
    common = own_energy(codes.common @ loadings[0].T)
    individual = own_energy(codes.individual @ loadings[1].T)
    return individual / (common + individual).clamp(min=SMALLEST)


def own_energy(code: Tensor) -> Tensor:
    """[b]: |c|^2 of a code [b, k], how far a sample lies out in these directions, its counterpart unseen."""
    return torch.square(code).sum(dim=1)
