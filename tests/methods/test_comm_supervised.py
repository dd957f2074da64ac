"""CoMM's supervised fine-tuning: known values, what must fit the labels, and what ships."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.methods.names import SupervisedLoss
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Features, Losses, Method
from mmpretrain.methods.comm import FUSED, VIEWS
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.methods.toys import CLASSES, GLOBAL_BATCH, make_batch, make_config, make_method, make_step

HEADED = [loss for loss in SupervisedLoss if not loss.contrasts]


def start(loss: SupervisedLoss, **settings: Any) -> tuple[Method, Batch]:
    """The method on two modalities, and its prepared batch."""
    config = make_config("comm_supervised", 2, loss=loss, **settings)
    method = make_method(config)
    return method, method.prepare(make_batch(config), make_step())


def lose(method: Method, features: Features) -> Losses:
    """The losses on one process."""
    return method.objective(features, make_step(), World.single())


def test_collapse_is_the_log_of_all_others() -> None:
    method, batch = start(SupervisedLoss.contrastive)
    ones = torch.ones(GLOBAL_BATCH, 8, dtype=torch.float64)
    features = replace(method.encode(method.model, batch), fused=dict.fromkeys(VIEWS, ones))
    assert lose(method, features).total.item() == pytest.approx(math.log(2 * GLOBAL_BATCH - 1), rel=1e-12)


def test_views_of_one_class_belong_together_without_a_head() -> None:
    method, batch = start(SupervisedLoss.contrastive, temperature=0.1)
    assert not method.heads and method.model.classifier is None
    assert batch.labels is not None
    corners = nn.functional.one_hot(batch.labels, CLASSES).double()
    features = replace(method.encode(method.model, batch), fused=dict.fromkeys(VIEWS, corners))
    expected = [
        math.log((2 * n - 1) + (2 * GLOBAL_BATCH - 2 * n) * math.exp(-10))
        for n in torch.bincount(batch.labels)[batch.labels].tolist()
    ]
    assert lose(method, features).total.item() == pytest.approx(sum(expected) / GLOBAL_BATCH, rel=1e-9)


@pytest.mark.parametrize("loss", HEADED)
def test_a_linear_head_looks_at_the_whole(loss: SupervisedLoss) -> None:
    method, batch = start(loss)
    features = method.encode(method.model, batch)
    losses = lose(method, features)
    assert list(losses.terms) == [loss.value]
    losses.total.backward()
    trained = {name for name, p in method.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"encoders.mrna.backbone.hidden.weight", "encoders.methylation.backbone.hidden.weight"} <= trained
    head = method.model.classifier if loss.classifies else method.heads["value"]
    assert isinstance(head, nn.Linear) and head.weight.grad is not None
    assert head.weight.shape == (CLASSES if loss.classifies else 1, 8)


def test_right_predictions_cost_nothing() -> None:
    method, batch = start(SupervisedLoss.binary)
    assert batch.labels is not None
    features = replace(method.encode(method.model, batch), logits=batch.labels * 100.0 - 50)
    losses = lose(method, features)
    assert losses.total.item() < 1e-12
    assert losses.diagnostics["accuracy/binary"].item() == 1


@pytest.mark.parametrize(("loss", "expected"), [(SupervisedLoss.squared, 4.0), (SupervisedLoss.absolute, 2.0)])
def test_errors_of_values(loss: SupervisedLoss, expected: float) -> None:
    method, batch = start(loss)
    assert batch.labels is not None
    value = method.heads["value"]
    assert isinstance(value, nn.Linear)
    nn.init.zeros_(value.weight), nn.init.constant_(value.bias, 2)
    features = replace(method.encode(method.model, batch), labels=torch.zeros(GLOBAL_BATCH, dtype=torch.float32))
    assert FUSED in features.fused
    assert lose(method, features).total.item() == pytest.approx(expected)


def test_a_classifier_ships_and_is_called() -> None:
    method, batch = start(SupervisedLoss.cross_entropy)
    output = method.model.eval()(**batch.inputs, labels=batch.labels)
    classifier = method.model.classifier
    assert isinstance(classifier, nn.Linear)
    torch.testing.assert_close(output.logits, classifier(output.fused_embeds))
    assert output.loss.item() == pytest.approx(lose(method, method.encode(method.model, batch)).total.item())
    config = MMPretrainConfig.from_dict(method.model.config.to_dict())
    assert isinstance(config, MMPretrainConfig)
    copied = MMPretrainModel(config)
    copied.double().load_state_dict(method.model.state_dict())
    torch.testing.assert_close(copied.eval()(**batch.inputs).logits, output.logits)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["method.loss=binary"], "set method.loss to contrastive or cross_entropy"),
        (["data.label.form=several"], "set method.loss to binary"),
        (["data.label.form=value", "data.classes=null"], "set method.loss to squared or absolute"),
        (["data.classes=null", "evaluation.final=[retrieval]"], "learns from labels, but data.classes is null"),
    ],
)
def test_a_loss_that_does_not_fit_the_labels_is_refused(tokens: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["method=comm_supervised", "experiment=digits", "model.embed_dim=null", *tokens])
