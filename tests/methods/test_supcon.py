"""SupCon as a method: its values where they are known, and what the labels decide."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpretrain.config.methods.names import SupconConfig
from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Method
from mmpretrain.models.heads_mmpretrain import MLPHead
from tests.methods.toys import make_batch, make_config, make_method, make_step
from tests.submodules import every


def total(method: Method, embeds: Tensor, labels: Tensor) -> float:
    """The loss of samples whose modalities all have ``embeds``."""
    features = method.encode(method.model, make_batch(make_config("supcon", 3)))
    alike = {name: embeds for name in features.embeds}
    features = replace(features, embeds=alike, labels=labels, sample_ids=torch.arange(len(labels)))
    return method.objective(features, make_step(), World.single()).total.item()


@pytest.fixture
def method() -> Method:
    """SupCon at temperature 0.5 on three modalities of width 4, whose heads pass positive embeddings on as they are."""
    made = make_method(make_config("supcon", 3, temperature=0.5, hidden=4, width=4))
    for head in every(made.heads.values(), MLPHead):
        for layer in (head.hidden, head.output):
            torch.nn.init.eye_(layer.weight)
    return made


def test_collapse_is_the_log_of_all_others(method: Method) -> None:
    labels = torch.arange(16) % 3
    assert total(method, torch.ones(16, 4, dtype=torch.float64), labels) == pytest.approx(math.log(31), rel=1e-12)


def test_classes_apart_leave_the_others_of_the_class(method: Method) -> None:
    """Equal within a class, orthogonal between: 7 others of the own class at similarity 1, 24 at 0."""
    labels = torch.arange(16) % 4
    embeds = 3 * torch.eye(4, dtype=torch.float64)[labels]  # their length must not matter
    expected = math.log(7 + 24 * math.exp(-1 / 0.5))
    assert total(method, embeds, labels) == pytest.approx(expected, rel=1e-12)
    # Classes across: only one of the 7 belonging rows is similar, the other modality of the sample.
    assert total(method, embeds, torch.arange(16) // 4) == pytest.approx(expected + 6 / 7 * 2, rel=1e-12)


def test_a_classless_dataset_is_refused_and_no_classifier_ships() -> None:
    config = make_config("supcon")
    assert not config.parts.classifier and not config.method.data_problems(config.data)
    config.data.classes = None
    assert "learns from labels, but data.classes is null" in config.method.data_problems(config.data)[0]


@pytest.mark.parametrize("key", ["temperature", "hidden", "width"])
def test_impossible_settings_are_named(key: str) -> None:
    impossible: dict[str, Any] = {key: 0}
    (found,) = SupconConfig(**impossible).problems()
    assert f"method.{key} is 0: it must be above 0" in found and not SupconConfig().problems()
