"""How a released model is called and what it answers: as users of transformers' own CLIP write it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BatchFeature

from mmpretrain.config.data import RESERVED
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.models.small import small_model
from tests.models.test_modeling import INPUTS, MLP_SPEC

PICTURES, CAPTIONS, GENES = INPUTS["picture"], INPUTS["caption"], INPUTS["genes"]


def two_vectors(**arguments: Any) -> MMPretrainModel:
    """Modalities ``a`` and ``b`` of the same kind."""
    torch.manual_seed(0)
    return MMPretrainModel(MMPretrainConfig(encoders={"a": MLP_SPEC, "b": MLP_SPEC}, **arguments)).eval()


def dual_encoder(form: str = "softmax") -> MMPretrainModel:
    """Picture and caption with a similarity, without a classifier."""
    config: Any = copy.deepcopy(small_model().config)
    config.classifier_hidden, config.similarity = None, {"form": form}
    torch.manual_seed(0)
    return MMPretrainModel(config).eval()


def test_flat_tensors_go_to_the_modality_that_takes_them() -> None:
    model = small_model()
    nested = model(**INPUTS)
    flat = model(**PICTURES, **CAPTIONS, **GENES)
    mixed = model(genes=BatchFeature(GENES), picture=PICTURES, **CAPTIONS, position_ids=None)
    for other in (flat, mixed):
        assert all(torch.equal(other.embeds[name], rows) for name, rows in nested.embeds.items())
        assert torch.equal(other.logits, nested.logits)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"values": torch.zeros(2, 7)}, r"values may be of a or b: say which, as a=\{'values'"),
        (
            {"pixels": torch.zeros(2, 7)},
            "unknown input 'pixels': this model has the modalities a, b, which take values",
        ),
        ({"a": {"values": torch.zeros(2, 7), "foo": 1}}, "modality 'a' takes no 'foo': it knows present, values"),
        ({"a": {"values": [[0.0] * 7]}}, "modality 'a': values is a list: pass a tensor"),
        ({"a": {"values": torch.zeros(0, 7)}}, "'a': values has no samples"),
        ({"a": {"values": torch.zeros(2, 7), "present": torch.ones(3).bool()}}, "present has 3 samples and values 2"),
    ],
)
def test_a_wrong_call_is_one_error_that_names_what_to_do(inputs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        two_vectors()(**inputs)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"pixel_values": torch.zeros(1, 8, 4)}, "4 dimensions are needed: the batch comes first, one sample is unsq"),
        ({"pixel_values": torch.zeros(2, 3, 8, 4)}, r"expected \[batch, 1, height, width\]"),
        ({"pixel_values": torch.zeros(2, 1, 8, 4).byte()}, "pixel_values is torch.uint8: floats are needed"),
        ({"input_ids": torch.zeros(2, 4)}, "input_ids is torch.float32: token ids are whole numbers"),
        ({"input_ids": torch.zeros(4).long()}, "2 dimensions are needed: the batch comes first"),
        ({"input_ids": torch.zeros(2, 0).long()}, "a text without a token has no embedding"),
        ({"input_ids": torch.full((2, 4), 999)}, "input_ids has 999, and the encoder knows 0 to"),
        ({"input_ids": torch.full((2, 4), -1)}, "input_ids has -1, and the encoder knows 0 to"),
        ({"input_ids": torch.ones(2, 4).long(), "attention_mask": torch.ones(2, 3)}, "has 3 places and input_ids 4"),
        ({"input_ids": torch.ones(2, 4).long(), "attention_mask": torch.ones(2, 1, 4, 4)}, r"\[2, 1, 4, 4\]: \[batch"),
        ({"input_ids": torch.ones(2, 4).long(), "token_type_ids": torch.ones(1, 4)}, "has 1 samples and input_ids 2"),
        ({"input_ids": torch.ones(2, 4).long(), "token_type_ids": torch.full((2, 4), 7)}, "modality 'caption': index"),
    ],
)
def test_tensors_that_an_encoder_cannot_take_are_named(inputs: dict[str, Tensor], message: str) -> None:
    name = "picture" if "pixel_values" in inputs else "caption"
    with pytest.raises(ValueError, match=message) as error:
        small_model()(**{name: inputs})
    assert f"modality {name!r}" in str(error.value)


def test_features_are_those_of_a_call_with_the_states_of_the_encoder() -> None:
    model = small_model()
    found = model.get_picture_features(**PICTURES)
    assert list(found) == ["last_hidden_state", "pooler_output"] and found.last_hidden_state.shape[::2] == (2, 16)
    assert torch.equal(found.pooler_output, model(**INPUTS).embeds["picture"])
    assert "last_hidden_state" not in model.get_genes_features(GENES)  # a vector has no states
    ways = [
        model.get_image_features(PICTURES["pixel_values"]),
        model.get_image_features(PICTURES),
        model.get_image_features(picture=PICTURES),
        model.get_features("image", pixel_values=PICTURES["pixel_values"]),
    ]
    assert all(torch.equal(way.pooler_output, found.pooler_output) for way in ways)
    assert [part.shape for part in model.get_image_features(**PICTURES, return_dict=False)] == [
        found.last_hidden_state.shape,
        found.pooler_output.shape,
    ]
    assert hasattr(model, "get_text_features") and not hasattr(model, "get_audio_features")
    with pytest.raises(AttributeError, match=r"it has get_picture_features, .*get_image_features"):
        model.get_sound_features(CAPTIONS)
    with pytest.raises(ValueError, match="features of 'picture' need that modality alone, got picture, caption"):
        model.get_image_features(picture=PICTURES, caption=CAPTIONS)


def test_states_and_attention_weights_of_every_layer() -> None:
    model = small_model()
    for name in ("picture", "caption"):
        backbone: Any = model.encoders[name].backbone
        backbone.set_attn_implementation("eager")
    output = model(**INPUTS, output_hidden_states=True, output_attentions=True)
    assert {name: len(layers) for name, layers in output.hidden_states.items()} == {"picture": 2, "caption": 2}
    assert output.attentions["caption"][0].shape == (2, 2, 6, 6)
    assert torch.equal(output.logits, model(**INPUTS).logits)
    features = model.get_text_features(**CAPTIONS, output_hidden_states=True)
    assert torch.equal(features.hidden_states[-1], features.last_hidden_state)
    model.config.output_hidden_states = True
    assert model(**INPUTS).hidden_states is not None and model(**INPUTS).attentions is None


def test_a_tuple_has_what_is_not_none_in_the_order_of_fields() -> None:
    loss, logits, embeds = small_model()(**INPUTS, labels=torch.tensor([0, 2]), return_dict=False)
    assert loss.ndim == 0 and logits.shape == (2, 3) and list(embeds) == ["picture", "caption", "genes"]


def test_outputs_answer_by_modality_and_by_kind() -> None:
    output = dual_encoder()(**PICTURES, **{key: tensor[:1] for key, tensor in CAPTIONS.items()})
    for again in (output, copy.copy(output), pickle.loads(pickle.dumps(output))):
        assert again.logits_per_image is again.logits_per["picture"]["caption"]
        assert again.logits_per_picture.shape == (2, 1) and torch.equal(again.logits_per_text, again.logits_per_image.T)
        for found, name in ((again.image_embeds, "picture"), (again.caption_embeds, "caption")):
            assert torch.allclose(found, torch.nn.functional.normalize(again.embeds[name]))
    with pytest.raises(AttributeError, match="there is no audio_embeds: embeds has picture, caption"):
        _ = output.audio_embeds
    with pytest.raises(AttributeError, match=r"as logits_per\['picture'\]\[...\]; it has caption, genes"):
        _ = dual_encoder()(**INPUTS).logits_per_image
    with pytest.raises(AttributeError, match="a method that ships a temperature"):
        _ = small_model()(**INPUTS).logits_per_text


def test_modalities_need_as_many_samples_only_where_they_are_joined() -> None:
    one = {key: tensor[:1] for key, tensor in CAPTIONS.items()}
    assert dual_encoder()(picture=PICTURES, caption=one).logits_per_text.shape == (1, 2)
    with pytest.raises(ValueError, match=r"\(picture 2, caption 1, genes 2\): the classifier needs them side by side"):
        small_model()(picture=PICTURES, caption=one, genes=GENES)
    with pytest.raises(ValueError, match=r"\(picture 2, caption 1\): the loss needs"):
        dual_encoder()(picture=PICTURES, caption=one, return_loss=True)
    for fusion in ({"width": 8, "heads": 2}, {"form": "linear", "width": 8}):
        with pytest.raises(ValueError, match=r"\(a 2, b 3\): the fusion needs"):
            two_vectors(fusion=fusion)(a={"values": torch.ones(2, 7)}, b={"values": torch.ones(3, 7)})


def test_labels_give_the_loss_of_the_classifier() -> None:
    model, labels = small_model(), torch.tensor([2, -100])
    output = model(**INPUTS, labels=labels)
    assert (
        torch.equal(output.loss, torch.nn.functional.cross_entropy(output.logits, labels)) and output[0] is output.loss
    )
    for wrong, message in (
        (torch.tensor([0, 3]), "labels has 3, and the classifier knows 0 to 2"),
        (torch.tensor([0.0, 1.0]), "one class number for each of the 2 samples"),
        (torch.tensor([0]), "one class number for each of the 2 samples"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**INPUTS, labels=wrong)
    with pytest.raises(ValueError, match="needs all of picture, caption, genes"):
        model(genes=GENES, labels=labels)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (small_model(), {"return_loss": True}, "has no contrastive loss of its embeddings: pass labels"),
        (
            dual_encoder(),
            {"labels": torch.zeros(2)},
            "has no classifier, .*return_loss=True gives its contrastive loss",
        ),
    ],
)
def test_a_loss_that_a_model_has_not_is_refused(model: MMPretrainModel, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**INPUTS, **arguments)


def test_a_model_with_neither_loss_says_so() -> None:
    inputs = {name: {"values": torch.ones(2, 7)} for name in "ab"}
    for asked in ({"labels": torch.zeros(2).long()}, {"return_loss": True}):
        with pytest.raises(ValueError, match=r"take one of mmpretrain\.losses"):
            two_vectors(method="comm")(**inputs, **asked)
    with pytest.raises(ValueError, match="pass two of them"):
        dual_encoder()(**PICTURES, return_loss=True)


def test_names_that_calls_need_are_no_modalities() -> None:
    assert {"labels", "return_loss", "return_dict", "output_hidden_states", "output_attentions"} <= {*RESERVED}
