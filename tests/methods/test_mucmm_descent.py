"""Gradient descent on the linear world against the closed form; section 11 of MUCMM (reconstruction), check 7.

On the moments of the whole population, so that a step costs a few small matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmpretrain.config.methods.names import MucmmConfig
from mmpretrain.config.root import Config
from mmpretrain.distributed.moments import Moments
from mmpretrain.losses.canonical import canonical
from mmpretrain.losses.correlation import correlations, whiten
from mmpretrain.methods.build import build_method
from mmpretrain.methods.mucmm import Mucmm
from mmpretrain.methods.mucmm_closed_form import COMMON, columns, start
from shards.linear import NAMES, WIDTHS, population
from tests.models.test_components import vectors, weight_of

RHO = 0.6  # the second correlation


def config_of(common: int, first: int, second: int) -> Config:
    """Codes of these widths on the modalities of the linear world."""
    config = vectors(common=common, individual=first, individual_of={"second": second})
    for name, width in zip(NAMES, WIDTHS, strict=True):
        config.data.modalities[name].size = [width]
    assert isinstance(config.method, MucmmConfig)
    config.method.momentum = 0.0
    return config


def joint() -> Moments:
    """The moments of the linear world itself."""
    covariance = torch.from_numpy(population())
    return Moments(torch.tensor(1e6), torch.zeros(sum(WIDTHS), dtype=torch.float64), covariance)


def moments_of(method: Mucmm, whole: Moments) -> Moments:
    """Of embeddings and codes, as linear maps T of the embeddings: T S T^T."""
    identity = torch.eye(sum(WIDTHS), dtype=torch.float64)
    sides = dict(zip(NAMES, identity.split(list(WIDTHS)), strict=True))  # the embeddings of each modality, [d, D]
    maps = []
    for kind, name in method.widths:
        part = method.components[name]
        weight: Tensor = identity[: WIDTHS[NAMES.index(name)], : WIDTHS[NAMES.index(name)]]
        if kind != "embed":
            head = part.common if kind == COMMON else part.individual
            weight = weight_of(head) @ part.whitening.T
        maps.append(weight @ sides[name])
    t = torch.cat(maps)
    return Moments(whole.count, t @ whole.mean, t @ whole.covariance @ t.T)


def descend(config: Config, steps: int, whiten_first: float) -> tuple[Mucmm, dict[str, float]]:
    """The method after Adam at 1e-2 with a cosine schedule from a random start, and its terms."""
    torch.manual_seed(1)
    method, whole = build_method(config), joint()
    assert isinstance(method, Mucmm)
    method.model.double()
    start(method.components, *columns(whole, method.embeds), whiten_first, solve=False)
    parameters = list(method.model.parameters())
    adam = torch.optim.Adam(parameters, lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    for _ in range(steps):
        adam.zero_grad()
        method.losses(moments_of(method, whole)).total.backward()
        adam.step()
        schedule.step()
    terms = method.losses(moments_of(method, whole)).terms
    return method, {name: term.item() for name, term in terms.items()}


def common_rho(method: Mucmm) -> Tensor:
    """The canonical correlations of both common codes."""
    _, found = columns(moments_of(method, joint()), method.widths)
    return correlations(whiten(found, 1e-9).of((COMMON, "first"), (COMMON, "second")))


def angle(found: Tensor, right: Tensor) -> float:
    """Degrees between two spans, columns of [d, k]."""
    bases = [torch.linalg.qr(side)[0] for side in (found.detach(), right)]
    return float(torch.linalg.svdvals(bases[0].T @ bases[1]).clamp(max=1).min().acos().rad2deg())


def test_descent_arrives_at_the_closed_form() -> None:
    method, terms = descend(config_of(2, 3, 2), 1500, whiten_first=0.999)
    right = canonical(joint(), WIDTHS[0], ridge=0.0)
    assert common_rho(method).sum().item() == pytest.approx(right.rho[:2].sum().item(), rel=0.01)
    assert terms["individual"] + terms["own"] + terms["other"] <= 1e-3
    assert terms["reconstruction"] < 5e-3
    for side, name in enumerate(NAMES):
        covariance, part = right.covariances[side], method.components[name]
        widths = (3, 2)
        for head, maps in ((part.common, right.common(2)), (part.individual, right.individual(2, widths))):
            # Weights of directions that hardly vary are free; what codes say of the features is not.
            assert angle(covariance @ part.whitening @ weight_of(head).T, covariance @ maps[side]) < 5


@pytest.mark.slow
@pytest.mark.parametrize(("widths", "left"), [((7, 5), RHO**2 / 5), ((3, 2), 0.0)])
def test_a_common_code_too_narrow_shows_in_full_individual_codes_alone(widths: tuple[int, int], left: float) -> None:
    _, terms = descend(config_of(1, *widths), 1500, whiten_first=1.0)
    assert terms["individual"] == pytest.approx(left, abs=5e-3)
