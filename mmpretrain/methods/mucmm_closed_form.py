"""The frozen numbers of :class:`Components`: whitening and closed form before training, canonical codes after it.

Sections 3 and 8 of MUCMM (reconstruction), docs/methods/mucmm.md, for any number of modalities: common directions are
those of MAXVAR, which are the canonical ones for two. Everything is a function of moments that are the same on all
ranks. Shape legend: d width of an embedding, p of what whitening keeps, k of a code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from mmpretrain.distributed.moments import Moments
from mmpretrain.losses.canonical import principal_whitening, shared_directions
from mmpretrain.losses.correlation import Blocks, Name
from mmpretrain.models.components_mmpretrain import Code, Components

EMBED, COMMON, INDIVIDUAL = "embed", "common", "individual"
ByModality = Mapping[str, Components]


def columns(found: Moments, widths: Mapping[Name, int]) -> tuple[dict[Name, Tensor], Blocks]:
    """The mean of each group of columns, and their covariances."""
    parts = found.mean.split(list(widths.values()))
    return dict(zip(widths, parts, strict=True)), Blocks(found.covariance, widths)


@torch.no_grad()
def start(components: ByModality, means: Mapping[Name, Tensor], found: Blocks, share: float, *, solve: bool) -> None:
    """Set ``center`` and ``whitening`` by the moments of embeddings, and linear heads by the closed form.

    means, found: of (EMBED, modality). share: of the variance that whitening keeps. solve: whether heads are to be set.
    Raises ValueError, naming the key of the config, for codes wider than what was kept.
    """
    roots = {name: principal_whitening(found.of((EMBED, name), (EMBED, name)), share) for name in components}
    for name, part in components.items():
        part.center.copy_(means[EMBED, name])
        part.whitening.copy_(_padded(roots[name], part.whitening))
    if solve and all(isinstance(part.common.head, nn.Linear) for part in components.values()):
        _solve(components, found, roots)


@torch.no_grad()
def finish(components: ByModality, means: Mapping[Name, Tensor], found: Blocks) -> None:
    """Set the codes' ``mean`` and ``rotation``, and ``rho``, so that codes are canonical on what ``found`` describes.

    means, found: of (EMBED, m), (COMMON, m) and (INDIVIDUAL, m), codes as :func:`raw` leaves them. A code that lost
    dimensions (constant, or dependent on others) gets zeros in their place, as the last ones; if it lost all of them,
    nothing is common.
    """
    common = {name: _whitening(found.of((COMMON, name), (COMMON, name))) for name in components}
    width = min(root.shape[1] for root in common.values())
    white = _white(found, COMMON, common)
    directions = (
        shared_directions(white, width) if width else [root.new_zeros(root.shape[1], 0) for root in common.values()]
    )
    # Of more than two modalities MAXVAR's order is not that of these means.
    rho, order = _mean_correlations(white, directions).sort(descending=True, stable=True)
    directions = [direction[:, order] for direction in directions]
    for (name, part), direction in zip(components.items(), directions, strict=True):
        _freeze(part.common, means[COMMON, name], common[name] @ direction)
        part.rho.copy_(nn.functional.pad(rho, (0, part.common.width - width)))
        root = _whitening(found.of((INDIVIDUAL, name), (INDIVIDUAL, name)))
        loadings = found.of((EMBED, name), (INDIVIDUAL, name)) @ root
        _freeze(part.individual, means[INDIVIDUAL, name], root @ _leading(loadings, root.shape[1]))


@torch.no_grad()
def raw(components: Iterable[Components]) -> None:
    """Leave codes as the heads give them."""
    for part in components:
        for code in (part.common, part.individual):
            code.mean.zero_()
            nn.init.eye_(code.rotation)


def _solve(components: ByModality, found: Blocks, roots: Mapping[str, Tensor]) -> None:
    width = min(part.common.width for part in components.values())
    for name, part in components.items():
        kept, wanted = roots[name].shape[1], part.common.width + part.individual.width
        if wanted > kept:
            raise ValueError(
                f"model.components asks for {part.common.width} common and {part.individual.width} individual"
                f" dimensions of {name!r}, and whitening keeps {kept} of the dimensions of its embeddings: lower them"
                f" (model.components.individual_of.{name}), raise method.variance, or set method.start=orthogonal"
            )
    directions = shared_directions(_white(found, EMBED, roots), width)
    for (name, part), direction in zip(components.items(), directions, strict=True):
        # What the common code leaves of h, in white coordinates: S W (I - A A^T), the principal components first.
        loadings = found.of((EMBED, name), (EMBED, name)) @ roots[name]
        rest = loadings - loadings @ direction @ direction.T
        _set_weight(part.common, direction)
        _set_weight(part.individual, _leading(rest, part.individual.width))


def _whitening(covariance: Tensor) -> Tensor:
    """[k, p]; p is 0 for a code that is 0 in all samples: no reason to lose a run that is complete."""
    return principal_whitening(covariance) if covariance.any() else covariance.new_zeros(len(covariance), 0)


def _white(found: Blocks, kind: str, roots: Mapping[str, Tensor]) -> Blocks:
    """The correlations of the white columns that ``roots`` [k, r] make of each modality's (kind, modality)."""
    rows = [torch.cat([roots[a].T @ found.of((kind, a), (kind, b)) @ roots[b] for b in roots], dim=1) for a in roots]
    return Blocks(torch.cat(rows), {(kind, name): root.shape[1] for name, root in roots.items()})


def _mean_correlations(white: Blocks, directions: Sequence[Tensor]) -> Tensor:
    """[k]: of the codes along the directions, dimension by dimension, the mean over all pairs of modalities."""
    named = list(zip(white.widths, directions, strict=True))
    found = [(u.T @ white.of(a, b) @ v).diagonal() for (a, u), (b, v) in combinations(named, 2)]
    return torch.stack(found).mean(dim=0)


def _leading(loadings: Tensor, width: int) -> Tensor:
    """[k, width]: the orthonormal directions of white columns that explain most, by ``loadings`` [d, k] on them."""
    _, _, directions = torch.linalg.svd(loadings, full_matrices=loadings.shape[0] < loadings.shape[1])
    return directions[:width].T


def _freeze(code: Code, mean: Tensor, rotation: Tensor) -> None:
    code.mean.copy_(mean)
    code.rotation.copy_(_padded(rotation, code.rotation))


def _set_weight(code: Code, directions: Tensor) -> None:
    assert isinstance(code.head, nn.Linear)
    code.head.weight.copy_(_padded(directions.T, code.head.weight))


def _padded(matrix: Tensor, like: Tensor) -> Tensor:
    """``matrix`` in the upper left corner of zeros."""
    padded = torch.zeros_like(like, dtype=matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded
