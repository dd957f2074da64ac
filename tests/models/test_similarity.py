"""The similarity in a release: probabilities as the method means them, and the loss that training minimizes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.models.test_model_calls import dual_encoder
from tests.models.test_modeling import INPUTS

SCALE, BIAS = 7.0, -3.0


def scaled(form: str) -> MMPretrainModel:
    """With the numbers above, in float64."""
    model = dual_encoder(form)
    assert model.logit_scale is not None
    model.logit_scale.data.fill_(SCALE).log_()
    if model.logit_bias is not None:
        model.logit_bias.data.fill_(BIAS)
    return model


def expected_loss(model: MMPretrainModel, present: dict[str, torch.Tensor]) -> float:
    """By the functions that training calls, on one process: the mean over pairs of modalities."""
    embeds = model(**INPUTS).embeds
    pairs = []
    for a, b in (("picture", "caption"), ("picture", "genes"), ("caption", "genes")):
        masks = [present[name] for name in (a, b) if name in present]
        valid = torch.stack(masks).all(dim=0) if masks else None
        pairs.append(Pair(embeds[a], embeds[b], query_valid=valid, key_valid=valid))
    if model.logit_bias is None:
        results = contrastive(pairs, scale=SCALE, world=World.single())
    else:
        results = sigmoid_contrastive(pairs, scale=SCALE, bias=BIAS, world=World.single())
    return torch.stack([result.loss for result in results]).mean().item()


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_the_loss_is_the_one_of_training_on_one_process(form: str) -> None:
    model = scaled(form)
    assert model(**INPUTS, return_loss=True).loss.item() == pytest.approx(expected_loss(model, {}), rel=1e-5)
    present = {"caption": torch.tensor([True, False])}
    inputs = {**INPUTS, "caption": {**INPUTS["caption"], "present": present["caption"]}}
    loss = model(**inputs, return_loss=True).loss
    assert loss.item() == pytest.approx(expected_loss(model, present), rel=1e-5)
    loss.backward()
    gradients = [p.grad for p in (model.logit_scale, model.logit_bias) if p is not None]
    assert gradients and all(g is not None and g.isfinite().all() and g.any() for g in gradients)


def test_probabilities_are_of_candidates_with_softmax_and_of_pairs_with_sigmoid() -> None:
    model = scaled("softmax")
    output = model(**INPUTS)
    cosines = torch.nn.functional.cosine_similarity(
        output.embeds["picture"][:, None], output.embeds["caption"][None], -1
    )
    assert torch.allclose(output.logits_per["picture"]["caption"], SCALE * cosines, atol=1e-5)
    found = model.pair_probabilities(output, "image", "caption")
    assert torch.allclose(found, (SCALE * cosines).softmax(dim=1), atol=1e-6)
    back = model.pair_probabilities(output, "text", "image")
    assert torch.allclose(back, (SCALE * cosines.T).softmax(dim=1), atol=1e-6)
    model = scaled("sigmoid")
    output = model(**INPUTS)
    cosines = torch.nn.functional.cosine_similarity(
        output.embeds["picture"][:, None], output.embeds["caption"][None], -1
    )
    found = model.pair_probabilities(output, "picture", "caption")
    assert torch.allclose(found, torch.sigmoid(SCALE * cosines + BIAS), atol=1e-6)


def test_probabilities_that_there_are_not_are_refused() -> None:
    model = scaled("softmax")
    output = model(picture=INPUTS["picture"])
    assert output.logits_per is None
    with pytest.raises(ValueError, match="no 'picture' and 'caption' together: it had picture"):
        model.pair_probabilities(output, "image", "text")
    model.config.similarity = None
    with pytest.raises(ValueError, match="ships no similarity"):
        model.pair_probabilities(output, "image", "text")


def test_autocast_does_not_round_the_logits() -> None:
    model = scaled("softmax")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = model(**INPUTS)
    assert output.logits_per["picture"]["genes"].dtype is torch.float32


def test_scale_and_bias_are_saved_loaded_and_start_as_published(tmp_path: Path) -> None:
    model = scaled("sigmoid")
    model.save_pretrained(tmp_path)
    opened: Any = MMPretrainModel.from_pretrained(tmp_path, output_loading_info=True)
    again, info = opened
    assert not any(info.values())
    assert again.logit_scale.exp().item() == pytest.approx(SCALE) and again.logit_bias.item() == BIAS
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("logit_")}
    fresh: Any = MMPretrainModel.from_pretrained(None, config=copy.deepcopy(model.config), state_dict=state)
    assert fresh.logit_scale.exp().item() == pytest.approx(10) and fresh.logit_bias.item() == -10


def test_another_form_is_refused() -> None:
    config = dual_encoder().config.to_dict() | {"similarity": {"form": "cosine"}}
    with pytest.raises(ValueError, match="similarity: form is 'cosine', use one of softmax, sigmoid"):
        type(dual_encoder().config)(**config)
