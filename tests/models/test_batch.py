"""The processor's answer is carried by transformers, accelerate and torch as their own are."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from accelerate.utils import find_batch_size, send_to_device
from torch.utils.data import DataLoader, default_collate
from transformers import BatchFeature

from mmpretrain.assembly.build import build_processor
from mmpretrain.models.inputs_mmpretrain import MULTIPLE
from mmpretrain.models.processing_mmpretrain import MMPretrainInputs
from tests.models.small import small_config, small_model, small_samples


def inputs() -> MMPretrainInputs:
    """Two samples of a picture, a caption and genes."""
    return build_processor(small_config())(**small_samples())


def two_images() -> MMPretrainInputs:
    """What two pictures of a sample have."""
    return MMPretrainInputs({name: {"pixel_values": torch.ones(1)} for name in ("left", "right")})


def test_keys_are_modalities_and_tensors_are_found_where_only_one_has_them() -> None:
    batch = inputs()
    assert isinstance(batch, BatchFeature) and list(batch) == list({**batch}) == ["picture", "caption", "genes"]
    assert batch["pixel_values"] is batch.pixel_values is batch["picture"]["pixel_values"]
    assert "input_ids" in batch and "labels" not in batch and batch.get("labels") is None
    with pytest.raises(KeyError, match="left and right have 'pixel_values': say which"):
        two_images()["pixel_values"]
    with pytest.raises(AttributeError, match="'foo' is not there: the modalities are picture, caption, genes"):
        batch.foo  # noqa: B018


def test_tensors_are_changed_where_they_lie_and_others_stand_beside() -> None:
    batch = inputs()
    batch["pixel_values"] = batch["pixel_values"] * 0
    batch["labels"] = torch.tensor([0, 1])
    assert not batch["picture"]["pixel_values"].any() and list(batch)[-1] == "labels"
    mask = batch.pop("attention_mask")
    assert mask.shape == (2, 8) and list(batch["caption"]) == ["input_ids"]
    assert batch.pop("token_type_ids", None) is None


@pytest.mark.parametrize("target", [(torch.bfloat16,), ("cpu", torch.bfloat16), (torch.device("cpu"), torch.bfloat16)])
def test_only_floats_are_cast(target: Any) -> None:
    batch = inputs()
    batch["genes"]["present"] = torch.tensor([True, False])
    batch["labels"] = torch.tensor([0, 1])
    assert batch.to(*target) is batch
    assert batch["pixel_values"].dtype is batch["values"].dtype is torch.bfloat16
    assert batch["input_ids"].dtype is batch["labels"].dtype is torch.int64 and batch["present"].dtype is torch.bool
    moved = batch.to(device="meta", non_blocking=True)
    assert moved["labels"].is_meta and moved["input_ids"].is_meta and moved["pixel_values"].is_meta


@pytest.mark.parametrize(
    "way",
    [copy.copy, copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch)), lambda b: send_to_device(b, "cpu")],
    ids=["copy", "deepcopy", "pickle", "accelerate"],
)
def test_a_copy_is_the_same_to_the_model(way: Any) -> None:
    batch, model = inputs(), small_model()
    expected = model(**batch).embeds
    found = way(batch)
    assert isinstance(found, MMPretrainInputs) and find_batch_size(found) == 2
    assert all(torch.equal(embed, expected[name]) for name, embed in model(**found).embeds.items())


def test_samples_become_a_batch_again() -> None:
    processor = build_processor(small_config())
    processor.modalities["caption"] |= {"max_length": 20, MULTIPLE: 2}
    whole = {name: [*items, *items] for name, items in small_samples().items()}
    whole["caption"][1] = "seven"
    rows = [{name: items[row] for name, items in whole.items()} for row in range(4)]
    samples = [dict(processor(**row)) | {"labels": number} for number, row in enumerate(rows)]
    (found,) = DataLoader(samples, batch_size=4, collate_fn=processor.collate)  # type: ignore[arg-type]
    assert found.pop("labels").tolist() == [0, 1, 2, 3]
    expected = processor(**whole)
    assert all(torch.equal(t, found[m][k]) for m, tensors in expected.items() for k, t in tensors.items())
    with pytest.raises(ValueError, match="needs the same modalities"):
        processor.collate([processor(**rows[0]), processor(genes=rows[1]["genes"])])


def test_torch_stacks_samples_as_those_of_transformers() -> None:
    processor = build_processor(small_config())
    row = {name: items[0] for name, items in small_samples().items()}
    found = default_collate([processor(**row), processor(**row)])
    assert isinstance(found, MMPretrainInputs) and found["pixel_values"].shape == (2, 1, 1, 8, 4)
