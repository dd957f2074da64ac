"""What each method's release holds of its similarity, and that it says what the objective computes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from mmpretrain.config.methods.names import METHODS
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Features, Method, Shipped
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from tests.methods import toys

# What ships; the other methods compare what their heads make of embeddings, and heads do not ship.
FORMS = {"clip": "softmax", "siglip": "sigmoid", "m3col": "softmax"}
ROWS = slice(1, 5)  # of the toy batch, no two of them copies of a sample


def shipped(method: Method) -> tuple[MMPretrainModel, Shipped]:
    """What is released, as a model."""
    ship = method.ship(dict(method.model.state_dict()), MMPretrainProcessor({}))
    config: Any = ship.model.config
    model: Any = MMPretrainModel(config).eval().double()
    model.load_state_dict(dict(ship.state))
    return model, ship


def some(batch: Batch) -> Batch:
    inputs = {name: {key: rows[ROWS] for key, rows in given.items()} for name, given in batch.inputs.items()}
    assert batch.labels is not None
    return Batch(inputs, batch.labels[ROWS], batch.sample_ids[ROWS], batch.positions[ROWS])


@pytest.mark.parametrize("name", METHODS)
def test_a_release_holds_what_its_method_means_by_similarity(name: str) -> None:
    config = toys.make_config(name)
    method = toys.make_method(config)
    model, ship = shipped(method)
    assert (model.config.similarity or {}).get("form") == FORMS.get(name)
    assert ship.state.keys() == model.state_dict().keys()
    assert method.model.config.similarity is None and "logit_scale" not in method.model.state_dict()
    if config.parts.encoders:
        inputs = some(toys.make_batch(config)).inputs
        assert (model(**inputs).logits_per is not None) == (name in FORMS)


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize(("name", "term"), [("clip", "contrastive"), ("siglip", "sigmoid")])
def test_the_loss_of_a_release_is_the_objective(name: str, term: str, modalities: int) -> None:
    config = toys.make_config(name, modalities)
    method = toys.make_method(config)
    with torch.no_grad():
        for parameter in method.heads.parameters():
            parameter.add_(0.25)  # as after some steps
    batch = some(toys.make_batch(config))
    features = method.encode(method.model.eval(), batch)
    expected = method.objective(features, toys.make_step(), World.single()).terms[term]
    model, _ = shipped(method)
    assert torch.allclose(model(**batch.inputs, return_loss=True).loss, expected, rtol=1e-6)


def output_scale(model: MMPretrainModel) -> Tensor:
    assert model.logit_scale is not None
    return model.logit_scale.exp()


def soft_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """M3CoL's term of one pair, from the logits of a release."""
    return -(targets * (logits.log_softmax(dim=1) + logits.T.log_softmax(dim=1))).sum() / (2 * len(logits))


def test_logits_of_m3col_are_those_of_its_last_phase() -> None:
    config = toys.make_config("m3col")
    method = toys.make_method(config)
    batch = some(toys.make_batch(config))
    features = method.encode(method.model.eval(), batch)
    expected = method.objective(features, toys.make_step(epoch=9), World.single()).terms["soft"]
    model, _ = shipped(method)
    output = model(**batch.inputs, labels=batch.labels)
    losses = []
    for a, b in method.cycle:  # type: ignore[attr-defined]
        unit = torch.nn.functional.normalize(output.embeds[b], dim=1)
        targets = (output_scale(model) * unit @ unit.T).softmax(dim=1)
        losses.append(soft_loss(output.logits_per[a][b], targets))
    assert torch.allclose(torch.stack(losses).sum(), expected, rtol=1e-6)
    fusion = method.objective(features, toys.make_step(epoch=9), World.single()).terms["fusion"]
    assert torch.allclose(output.loss, fusion)


def test_m3col_without_a_contrastive_term_ships_no_similarity() -> None:
    config = toys.make_config("m3col", weight=0.0)
    assert shipped(toys.make_method(config))[0].config.similarity is None


def test_auto_model_opens_scale_and_bias_of_what_was_trained(tmp_path: Path) -> None:
    config = toys.make_config("siglip")
    method = toys.make_method(config, dtype=torch.float32)
    ship = method.ship(dict(method.model.state_dict()), MMPretrainProcessor({}))
    ship.model.save_pretrained(tmp_path, state_dict=dict(ship.state))
    model, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and model.dtype is torch.float32
    batch = some(toys.make_batch(config, dtype=torch.float32))
    features: Features = dataclasses.replace(method.encode(method.model.eval(), batch))
    expected = method.objective(features, toys.make_step(), World.single()).terms["sigmoid"]
    assert torch.allclose(model(**batch.inputs, return_loss=True).loss, expected, rtol=1e-5)
