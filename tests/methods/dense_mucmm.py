"""MUCMM (reconstruction) once more: symmetric roots, singular values and a fitted decoder, on one process."""

from __future__ import annotations

from functools import partial
from itertools import combinations, permutations

import torch
from torch import Tensor

from mmpretrain.config.methods.names import Among, Corr, MucmmConfig
from mmpretrain.config.root import Config
from mmpretrain.data.step import Step
from mmpretrain.losses.correlation import OFF_DIAGONAL, SMOOTHING
from mmpretrain.methods.base import Method
from mmpretrain.models.modeling_mmpretrain import MMPretrainOutput
from tests.methods.toys import make_batch


def mucmm_total(method: Method, config: Config, step: Step) -> Tensor:
    """The weighted sum of all terms on the whole batch."""
    settings = config.method
    assert isinstance(settings, MucmmConfig)
    output = method.model(**make_batch(config).inputs)
    h, c, u = ({n: rows - rows.mean(0) for n, rows in part.items()} for part in (output.embeds, *codes(output)))
    cross = soft_cross if settings.corr is Corr.soft else partial(cca_cross, ridge=settings.ridge)
    names = list(method.modalities)

    def minimized(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        found = [cross(a, b) for a, b in pairs]
        return torch.stack([(k**2).sum() / min(k.shape) for k in found]).sum()

    individual = minimized([(u[m], u[n]) for m, n in combinations(names, 2)])
    own = minimized([(u[m], c[m]) for m in names])
    other = minimized([(u[m], c[n]) for m, n in permutations(names, 2)])
    left = torch.stack([decoder_error(h[m], torch.cat([c[m], u[m]], dim=1), settings.ridge) for m in names]).sum()
    lowest = settings.w_individual * individual + settings.w_own * own + settings.w_other * other
    return common(c, settings) + settings.alpha * lowest + settings.gamma * left


def codes(output: MMPretrainOutput) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Common and individual codes of every modality."""
    assert output.shared_embeds is not None and output.unique_embeds is not None
    return output.shared_embeds, output.unique_embeds


def common(c: dict[str, Tensor], settings: MucmmConfig) -> Tensor:
    """What is maximized, with its sign."""
    width = next(iter(c.values())).shape[1]
    if settings.among is Among.maxvar:
        white = torch.cat([rows @ inverse_root(covariance(rows, rows), settings.ridge) for rows in c.values()], dim=1)
        return -torch.linalg.svdvals(covariance(white, white))[:width].sum() / (len(c) * width)
    terms = []
    for a, b in combinations(c.values(), 2):
        if settings.corr is Corr.soft:
            r = soft_cross(a, b)
            off = r - r.diagonal().diag()
            terms.append(((1 - r.diagonal()) ** 2).sum() + OFF_DIAGONAL * (off**2).sum())
        else:
            rho = torch.linalg.svdvals(cca_cross(a, b, settings.ridge))
            terms.append(-(rho**2).sum() if settings.max_power == 2 else -(rho**2 + SMOOTHING).sqrt().sum())
    return torch.stack(terms).mean() / width


def cca_cross(a: Tensor, b: Tensor, ridge: float) -> Tensor:
    """(S_aa + r)^{-1/2} S_ab (S_bb + r)^{-1/2} of centered rows."""
    left, right = (inverse_root(covariance(x, x), ridge) for x in (a, b))
    return left @ covariance(a, b) @ right


def soft_cross(a: Tensor, b: Tensor) -> Tensor:
    """The correlations of all columns of a with all of b."""
    return covariance(a / a.std(0), b / b.std(0))


def covariance(a: Tensor, b: Tensor) -> Tensor:
    """Of centered rows, divided by n - 1."""
    return a.T @ b / (len(a) - 1)


def inverse_root(matrix: Tensor, ridge: float) -> Tensor:
    """Symmetric."""
    values, vectors = torch.linalg.eigh(matrix + ridge * matrix.diagonal().mean() * torch.eye(len(matrix)).to(matrix))
    return vectors * values.rsqrt() @ vectors.T


def decoder_error(h: Tensor, z: Tensor, ridge: float) -> Tensor:
    """Least squares with ``ridge`` on standardized codes, over the variance of ``h``; the ridge's own cost included."""
    z = z / z.std(0)
    rows = torch.cat([z, (ridge * (len(z) - 1)) ** 0.5 * torch.eye(z.shape[1], dtype=z.dtype)])
    targets = torch.cat([h, h.new_zeros(z.shape[1], h.shape[1])])
    decoder = torch.linalg.solve(rows.T @ rows, rows.T @ targets)
    return (targets - rows @ decoder).square().sum() / h.square().sum()
