"""CoMM's supervised losses once more, on one process, in plain formulas."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmpretrain.config.methods.names import CommSupervisedConfig, SupervisedLoss
from mmpretrain.config.root import Config
from mmpretrain.data.step import Step
from mmpretrain.methods.base import Method
from mmpretrain.methods.comm import VIEWS
from tests.methods.dense_baselines import out_of_2n
from tests.methods.dense_comm import whole
from tests.methods.toys import make_batch
from tests.submodules import submodule


def total(method: Method, config: Config, step: Step) -> Tensor:
    """The loss of the whole batch."""
    assert isinstance(config.method, CommSupervisedConfig)
    loss, batch = config.method.loss, make_batch(config)
    labels = batch.labels
    assert labels is not None
    if loss is SupervisedLoss.contrastive:
        views = method.prepare(batch, step).views
        first, second = (whole(method, views[name]) for name in VIEWS)
        return out_of_2n(first, second, labels, config.method.temperature)
    fused = whole(method, batch.inputs)
    head = submodule(method.model, "classifier", nn.Linear) if loss.classifies else method.heads["value"]
    assert isinstance(head, nn.Linear)
    found = fused @ head.weight.T + head.bias
    if loss is SupervisedLoss.cross_entropy:
        return -torch.stack([row.log_softmax(0)[label] for row, label in zip(found, labels, strict=True)]).mean()
    if loss is SupervisedLoss.binary:
        shares = found.sigmoid()
        return -torch.where(labels.bool(), shares, 1 - shares).log().mean()
    error = found[:, 0] - labels
    return error.square().mean() if loss is SupervisedLoss.squared else error.abs().mean()
