"""C-MCR once more: projectors layer by layer, N x N similarities and loops over samples, on one process."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmpretrain.config.methods.names import CmcrConfig, Passes
from mmpretrain.config.root import Config
from mmpretrain.data.step import Step
from mmpretrain.methods.base import Method
from tests.losses import oracle
from tests.methods.toys import make_batch
from tests.submodules import submodule


def cmcr_total(method: Method, config: Config, step: Step) -> Tensor:
    """Sections 3.2 and 4; only the noise comes from the method."""
    settings, batch = config.method, method.prepare(make_batch(config), step)
    assert isinstance(settings, CmcrConfig) and method.model.connection is not None
    projectors, rows = dict(method.model.connection.projectors), {}
    for space in ("first", "second"):
        projector = projectors.get(space)
        shared, partner = (batch.inputs[f"{space}_{role}"]["values"] for role in ("shared", "partner"))
        if settings.passes is Passes.joint:
            both = project(projector, torch.vstack([shared, partner]))
            rows[space] = both[: len(shared)], both[len(shared) :]
        else:
            rows[space] = project(projector, shared), project(projector, partner)
    (t1, v), (t2, a) = rows["first"], rows["second"]
    ids = batch.sample_ids
    total = oracle.contrast(t1, t2, 1 / settings.temperature, ids=ids).loss
    total = total + settings.partner_weight * oracle.contrast(v, a, 1 / settings.partner_temperature, ids=ids).loss
    couples = [*zip(t1, v, strict=True), *zip(t2, a, strict=True)]
    distances = [(x - y).pow(2).sum().add(1e-12).sqrt() for x, y in couples]
    return total + settings.intra * torch.stack(distances).sum() / (2 * len(batch))


def project(projector: nn.Module | None, x: Tensor) -> Tensor:
    """Unit rows -> unit rows, through linear layers, batch norms over these rows, and ReLUs."""
    for layer in submodule(projector, "layers", nn.Sequential) if projector is not None else ():
        if isinstance(layer, nn.Linear):
            x = x @ layer.weight.T + layer.bias
        elif isinstance(layer, nn.BatchNorm1d):
            centered = x - x.mean(dim=0)
            x = centered / (centered.pow(2).mean(dim=0) + layer.eps).sqrt() * layer.weight + layer.bias
        else:
            x = x.clamp(min=0)
    return oracle.unit(x)
