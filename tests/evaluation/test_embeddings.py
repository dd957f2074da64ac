"""A split as embeddings: one row per sample in order, on any number of ranks, without what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpretrain.data.batch import Batch
from mmpretrain.distributed.modes import evaluating
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embeddings import Embeddings, embed_split
from mmpretrain.models.modeling_mmpretrain import MMPretrainOutput
from tests.evaluation.made_up import deal, tiny_model
from tests.submodules import submodule

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
        assert alone.labels is not None and found.labels.tolist() == alone.labels.tolist()


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
        submodule(model, "projections.left", torch.nn.Linear).weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"not finite for 23 of 23 samples.*diverged"):
        embed_split(model, deal(SAMPLES, 4, 0, 1), World.single(), CPU)


class Rich(torch.nn.Module):
    """Gives every output that a model can have, each a known function of the inputs."""

    def forward(self, left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> MMPretrainOutput:
        """Embeddings are the first two columns, shared parts the rest, unique parts the negated inputs."""
        sides = {"left": left["values"], "right": right["values"]}
        return MMPretrainOutput(
            embeds={name: values[:, :2] for name, values in sides.items()},
            fused_embeds=left["values"] + right["values"],
            shared_embeds={name: values[:, 2:] for name, values in sides.items()},
            unique_embeds={name: -values for name, values in sides.items()},
        )


def with_missing(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches, every third sample without its left modality."""
    for batch in batches:
        left = {**batch.inputs["left"], "present": batch.positions % 3 > 0}
        yield replace(batch, inputs={**batch.inputs, "left": left})


def embed_rich(batch: int) -> Embeddings:
    """The rich model's embeddings on however many ranks there are."""
    world = World.current()
    return embed_split(Rich(), with_missing(deal(SAMPLES, batch, world.rank, world.size)), world, CPU)


def test_fused_shared_unique_and_missing_modalities(ranks: Callable) -> None:
    whole = next(deal(SAMPLES, SAMPLES, 0, 1))
    left, right = (whole.inputs[name]["values"].numpy() for name in ("left", "right"))
    for found in [embed_rich(4), *ranks(2, embed_rich, 4)]:
        assert found.logits is None and found.fused is not None
        assert np.allclose(found.fused, left + right)
        assert np.array_equal(found.shared["right"], right[:, 2:])
        assert np.array_equal(found.unique["left"], -left)
        assert list(found.present) == ["left"]
        assert found.present["left"].tolist() == [p % 3 > 0 for p in range(SAMPLES)]
        assert found.labels is not None and found.labels.tolist() == [p % 3 for p in range(SAMPLES)]


def test_only_the_samples_that_have_all() -> None:
    found = embed_rich(4)
    both = found.only(found.having(["left", "right"]))
    assert both.ordinals.tolist() == [p for p in range(SAMPLES) if p % 3]
    assert both.fused is not None and len(both.fused) == len(both.unique["right"]) == len(both)
    assert both.present["left"].all() and both.logits is None
    assert found.having(["right"]).all()
