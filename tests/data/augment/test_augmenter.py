"""Views depend on (seed, position, view, modality) alone; what is set is done, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch.nn.functional import pad

from mmpretrain.assembly.build import build_processor
from mmpretrain.config.data import AugmentConfig, Choose, Kind, ModalityConfig
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.augment.texts import Vocabulary
from mmpretrain.data.batch import Batch
from tests.data.augment.small_batches import batch, config, everything, flat, step, view

PIXELS = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


def rows(whole: Batch, order: torch.Tensor) -> Batch:
    """These rows of a batch, in this order."""
    return replace(
        whole,
        inputs={m: {k: t[order] for k, t in tensors.items()} for m, tensors in whole.inputs.items()},
        sample_ids=whole.sample_ids[order],
        positions=whole.positions[order],
    )


@pytest.mark.parametrize("order", [torch.arange(6, 12), torch.tensor([3]), torch.randperm(12)])
def test_rows_are_the_same_in_any_batch(order: torch.Tensor) -> None:
    settings, whole = everything()
    part = flat(view(settings, rows(whole, order)))
    for name, tensor in flat(view(settings, whole)).items():
        # Products of another number of matrices may be summed in another order.
        assert torch.allclose(part[name], tensor[order], rtol=0, atol=1e-6), name


@pytest.mark.parametrize("choose", Choose)
def test_texts_and_sequences_are_augmented_alike_however_long_the_padding(choose: Choose) -> None:
    settings, whole = everything()
    motion, caption = (settings.data.modalities[name] for name in ("motion", "caption"))
    motion.augment = AugmentConfig(choose=choose, shuffle=0.7, drop=0.7, noise=0.7, silent=0.6, features=[0, 2])
    caption.augment = AugmentConfig(choose=choose, mask=0.3, delete=0.7)
    inputs = {name: whole.inputs[name] for name in ("motion", "caption")}
    longer = {
        name: {key: pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, 8)) for key, tensor in tensors.items()}
        for name, tensors in inputs.items()
    }
    found = flat(view(settings, replace(whole, inputs=whole.inputs | longer)))
    for name, tensor in flat(view(settings, whole)).items():
        if name.startswith(("motion", "caption")):
            assert torch.equal(found[name][:, :9], tensor) and not found[name][:, 9:].any(), name


def test_every_modality_changes_and_every_view_differs() -> None:
    settings, whole = everything()
    before = {name: tensor.clone() for name, tensor in flat(whole.inputs).items()}
    views = [flat(view(settings, whole, *args)) for args in [("first", 0), ("first", 0), ("second", 0), ("first", 1)]]
    for name in before:
        first, again, second, other_seed = (found[name] for found in views)
        assert first.shape == before[name].shape and first.dtype == before[name].dtype
        assert torch.equal(first, again) and torch.equal(flat(whole.inputs)[name], before[name])
        if name != "motion.attention_mask":
            assert not torch.equal(first, before[name]), name
            assert not torch.equal(first, second) and not torch.equal(first, other_seed), name


def test_modalities_of_one_kind_draw_for_themselves() -> None:
    modality = ModalityConfig(Kind.vector, [5], augment=AugmentConfig(noise=0.5))
    values = torch.zeros(64, 5)
    found = view(config(a=modality, b=modality), batch({"a": {"values": values}, "b": {"values": values}}))
    coins = [(found[name]["values"] != 0).any(dim=1) for name in ("a", "b")]
    assert all(20 < coin.sum() < 44 for coin in coins)
    assert 20 < (coins[0] ^ coins[1]).sum() < 44


def test_one_of_the_operations_or_none_equally_often() -> None:
    augment = AugmentConfig(choose=Choose.one, swap=1, drop=1, drop_share=[0.5, 0.5], noise=1)
    values = torch.arange(1.0, 5).expand(4000, 4).contiguous()
    found = view(config(a=ModalityConfig(Kind.vector, [4], augment=augment)), batch({"a": {"values": values}}))
    changed = found["a"]["values"]
    same = (changed == values).all(dim=1)
    swapped = (changed == torch.tensor([3.0, 4, 1, 2])).all(dim=1)
    dropped = (changed == 0).sum(dim=1) == 2
    noisy = ((changed - values).abs() < 1).all(dim=1) & ~same
    counts = torch.stack([same, swapped, dropped, noisy]).sum(dim=1)
    assert counts.sum() == 4000
    assert (counts - 1000).abs().max() < 5 * (4000 * 0.25 * 0.75) ** 0.5


def test_nothing_set_changes_nothing() -> None:
    settings, whole = everything()
    for modality in settings.data.modalities.values():
        modality.augment = AugmentConfig()
    for name, tensor in flat(view(settings, whole)).items():
        assert torch.equal(tensor, flat(whole.inputs)[name])


def test_unique_augmentations_go_to_the_modalities_named() -> None:
    modality = ModalityConfig(Kind.image, [8, 8], augment=AugmentConfig(crop=[0.1, 0.2]))
    settings = config(left=modality, right=modality)
    whole = batch({name: {"pixel_values": PIXELS} for name in ("left", "right")})
    found = view(settings, whole, unique=("right",))
    assert not torch.equal(found["left"]["pixel_values"], PIXELS)
    assert torch.equal(found["right"]["pixel_values"], PIXELS)


def test_views_start_from_the_source_and_end_at_the_encoders_size() -> None:
    modality = ModalityConfig(Kind.image, [8, 8], load_size=[10, 12], augment=AugmentConfig(crop=[0.5, 1]))
    ramp = torch.linspace(-1, 1, 12).expand(6, 3, 10, 12).contiguous()
    whole = batch({"a": {"pixel_values": PIXELS}}, source={"a": {"pixel_values": ramp}})
    found = view(config(a=modality), whole)["a"]["pixel_values"]
    assert found.shape == (6, 3, 8, 8)
    assert (found.diff(dim=3) > 0).all() and found.diff(dim=2).abs().max() < 1e-5  # a part of the ramp, not of PIXELS
    modality.augment = AugmentConfig()
    assert view(config(a=modality), whole)["a"]["pixel_values"].shape == (6, 3, 8, 8)


@pytest.mark.parametrize("views", [True, False])
def test_training_inputs_are_augmented_once_and_views_start_from_the_plain_ones(views: bool) -> None:
    flipped, plain = AugmentConfig(flip=1), AugmentConfig()
    settings = config(
        views=views,
        a=ModalityConfig(Kind.image, [8, 8], train=flipped, augment=plain),
        b=ModalityConfig(Kind.image, [8, 8], augment=plain),
    )
    whole = batch({name: {"pixel_values": PIXELS} for name in ("a", "b")})
    trained = Augmenter(settings, build_processor(settings)).training_inputs(whole, step())
    assert torch.equal(trained.inputs["a"]["pixel_values"], PIXELS.flip(-1))
    assert torch.equal(trained.inputs["b"]["pixel_values"], PIXELS)
    if views:
        assert torch.equal(view(settings, trained)["a"]["pixel_values"], PIXELS)
    else:
        assert trained.views == {}


def test_training_inputs_without_settings_are_the_same_batch() -> None:
    settings, whole = everything()
    assert Augmenter(settings, build_processor(settings)).training_inputs(whole, step()) is whole


def test_presence_is_kept() -> None:
    present = torch.tensor([True, False, True])
    whole = batch({"a": {"values": torch.zeros(3, 4), "present": present}})
    modality = ModalityConfig(Kind.vector, [4], optional=True, augment=AugmentConfig(noise=1))
    assert torch.equal(view(config(a=modality), whole)["a"]["present"], present)


def test_vocabularies_are_read_once_and_only_for_texts_that_change() -> None:
    settings, whole = everything()
    with mock.patch.object(Vocabulary, "of", wraps=Vocabulary.of) as opened:
        tool = Augmenter(settings, build_processor(settings))
        settings.data.modalities["caption"].augment = AugmentConfig()
        tool.view(whole, "first", step())
        assert opened.call_count == 0
        settings.data.modalities["caption"].augment = AugmentConfig(mask=0.5)
        tool.view(whole, "first", step())
        tool.view(whole, "second", step())
        assert opened.call_count == 1


def test_all_of_it_is_torch_on_whole_batches() -> None:
    """The same on another device, as far as a machine without one can tell: nothing leaves the device or is read."""
    settings, whole = everything()
    del settings.data.modalities["caption"]  # how the tokenizer's ids become tensors is tested with texts
    found = flat(view(settings, whole.to(torch.device("meta"))))
    assert all(tensor.device.type == "meta" for tensor in found.values())
