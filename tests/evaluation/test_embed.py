from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embed import Embeddings, embed_split, evaluating
from tests.evaluation.made_up import deal, tiny_model

CPU = torch.device("cpu")
SAMPLES = 23


def embed(samples: int, batch: int, unreadable: tuple[int, ...] = ()) -> Embeddings:
    """The tiny model's embeddings on however many ranks there are."""
    world = World.current()
    return embed_split(tiny_model(), deal(samples, batch, world.rank, world.size, unreadable), world, CPU)


def test_one_row_per_sample_in_order_and_equal_to_the_model() -> None:
    found = embed(SAMPLES, batch=4)
    whole = next(deal(SAMPLES, SAMPLES, 0, 1))
    output = tiny_model().eval()(**whole.inputs)
    assert found.ordinals.tolist() == list(range(SAMPLES))
    assert list(found.embeds) == ["left", "right"]
    assert found.embeds["left"].dtype == np.float32
    assert np.allclose(found.embeds["right"], output.embeds["right"].detach(), atol=1e-6)
    assert found.logits is not None and np.allclose(found.logits, output.logits.detach(), atol=1e-6)
    assert found.labels is not None and found.labels.tolist() == [p % 3 for p in range(SAMPLES)]


def test_two_ranks_give_every_rank_what_one_gives(ranks: Callable) -> None:
    alone = embed(SAMPLES, batch=4)
    for found in ranks(2, embed, SAMPLES, 4):
        assert found.ordinals.tolist() == alone.ordinals.tolist()
        assert all(np.allclose(found.embeds[m], alone.embeds[m], atol=1e-6) for m in alone.embeds)
        assert found.labels.tolist() == alone.labels.tolist()


def test_unreadable_samples_are_left_out() -> None:
    found = embed(SAMPLES, batch=4, unreadable=(3, 22))
    assert found.ordinals.tolist() == [p for p in range(SAMPLES) if p not in (3, 22)]
    assert found.labels is not None and found.labels.tolist() == [p % 3 for p in found.ordinals]


def test_every_submodule_gets_its_mode_back() -> None:
    model = tiny_model().train()
    model.encoders["left"].eval()
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert model.training and model.encoders["right"].training
    assert not any(module.training for module in model.encoders["left"].modules())


def test_empty_split_and_diverged_model_are_named() -> None:
    with pytest.raises(ValueError, match="no samples"):
        embed_split(tiny_model(), [], World.single(), CPU)
    model = tiny_model()
    with torch.no_grad():
        model.projections["left"].weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"not finite for 23 of 23 samples.*diverged"):
        embed_split(model, deal(SAMPLES, 4, 0, 1), World.single(), CPU)
