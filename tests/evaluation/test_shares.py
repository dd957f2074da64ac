"""Where every rank keeps its share of a split, retrieval is what it is on the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpretrain.config.evaluation import EvaluationConfig, Metric
from mmpretrain.config.evaluation_sections import Captions, RetrievalConfig
from mmpretrain.distributed.world import World
from mmpretrain.evaluation import share_places
from mmpretrain.evaluation.embeddings import Embeddings, embed_split
from mmpretrain.evaluation.evaluate import evaluate, keeping
from mmpretrain.evaluation.share_places import places_by_shares
from mmpretrain.evaluation.shares import Keep
from mmpretrain.evaluation.sharing import ToldError
from tests.evaluation.made_up import deal, tiny_model
from tests.rank_pool import Ranks

CPU = torch.device("cpu")
SAMPLES = 61  # not a multiple of any number of ranks


def embedded(keep: Keep, *, diverged: bool = False) -> Embeddings:
    """Some samples cannot be read; every third lacks its right half."""
    world, model = World.current(), tiny_model()
    batches = [
        replace(batch, inputs=batch.inputs | {"right": batch.inputs["right"] | {"present": batch.positions % 3 != 0}})
        for batch in deal(SAMPLES, 4, world.rank, world.size, unreadable=(3, 60))
    ]
    if diverged and world.rank == world.size - 1:
        batches[0].inputs["left"]["values"][1] = torch.nan
    return embed_split(model, batches, world, CPU, keep)


def found_by(keep: Keep) -> tuple[Embeddings, dict[str, float]]:
    """The embeddings as this rank keeps them, and what retrieval measures, with intervals (rank 0)."""
    found, world = embedded(keep), World.current()
    return found, evaluate([Metric.retrieval], lambda split: found, world, EvaluationConfig(), intervals=True)


def all_three() -> list[tuple[Embeddings, dict[str, float]]]:
    """By every way of keeping them."""
    return [found_by(keep) for keep in Keep]


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_shares_measure_what_the_whole_measures(ranks: Ranks, size: int) -> None:
    alone = found_by(Keep.everywhere)[1]
    everyone = ranks(size, all_three)
    assert all(scores == alone for _, scores in everyone[0]) and "retrieval/left->right/class_recall@1" in alone
    assert any(0 < alone[name] < 1 for name in ("retrieval/left->right/recall@5", "retrieval/left->right/recall@10"))
    whole = everyone[0][0][0]
    shares = [found.share for _, _, (found, _) in everyone]
    assert sorted(np.concatenate([share.rows for share in shares])) == list(range(len(whole)))
    for rank, (_, (first, _), (kept, _)) in enumerate(everyone):
        assert not kept.embeds and kept.logits is None and len(kept) == len(whole)
        assert bool(first.embeds) is (rank == 0)
        np.testing.assert_allclose(kept.share.embeds["left"], whole.embeds["left"][kept.share.rows], atol=1e-6)
    np.testing.assert_array_equal(everyone[0][1][0].embeds["left"], whole.embeds["left"])


def test_one_rank_alone_counts_by_its_share_too() -> None:
    for chunk in (None, 7):
        rows = np.eye(9, 5, dtype=np.float32) + 0.1
        ahead, tied = places_by_shares(rows, rows[::-1].copy(), np.arange(9), 9, None, World.single(), chunk)
        similarity = rows @ rows[::-1].T
        own = similarity.diagonal()[:, None]
        np.testing.assert_array_equal(ahead, (similarity > own + 1e-5).sum(axis=1))
        np.testing.assert_array_equal(ahead + tied, (similarity >= own - 1e-5).sum(axis=1))


def refused() -> list[str]:
    """Messages of a model that has diverged on the last rank, and of a rank that runs out of memory."""
    world, messages = World.current(), []
    for keep in Keep:
        with pytest.raises(ValueError) as error:
            embedded(keep, diverged=True)
        messages.append(str(error.value))
    with pytest.MonkeyPatch.context() as patch:
        if world.rank == 0:
            patch.setattr(share_places, "exact_product", _fails)
        rows = np.ones((2, 3), np.float32)
        with pytest.raises(ToldError) as told:
            places_by_shares(rows, rows, np.arange(2) + 2 * world.rank, 2 * world.size, None, world)
    return [*messages, repr(told.value.__cause__)]


def _fails(*_: object) -> None:
    raise MemoryError("too large")


def test_what_fails_on_one_rank_is_told_on_all(ranks: Callable) -> None:
    first, second = ranks(2, refused, timeout=60)
    assert first[:3] == second[:3] == [first[0]] * 3 and "not finite for 1 of 59 samples (first: sample 5)" in first[0]
    assert (first[3], second[3]) == ("MemoryError('too large')", "None")


def test_who_keeps_what_follows_from_the_metrics() -> None:
    two, settings = replace(World.single(), size=2), EvaluationConfig()
    texts = EvaluationConfig(retrieval=RetrievalConfig(captions=Captions.all))

    def kept(*metrics: Metric, shown: bool = False, of: EvaluationConfig = settings, world: World = two) -> Keep:
        return keeping(metrics, of, world, shown=shown)

    assert kept(Metric.retrieval) is Keep.shares
    assert kept(Metric.retrieval, shown=True) is Keep.first
    assert kept(Metric.retrieval, Metric.linear_probe) is Keep.first
    assert kept(Metric.retrieval, Metric.knn) is Keep.everywhere
    assert kept(Metric.retrieval, of=texts) is kept(Metric.retrieval, world=World.single()) is Keep.everywhere
