"""Work that all ranks share: the same numbers to the last digit on 1, 2 and 3, and failures that all hear of."""

from __future__ import annotations

import numpy as np
import pytest

from mmpretrain.config.evaluation import EvaluationConfig, KnnConfig, Metric
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embeddings import Captions, Embeddings
from mmpretrain.evaluation.evaluate import evaluate
from mmpretrain.evaluation.sharing import ToldError, shared_rows
from tests.evaluation.made_up import embeddings
from tests.rank_pool import Ranks

SHARED = [Metric.knn, Metric.retrieval, Metric.zero_shot, Metric.robustness]


def many(seed: int) -> Embeddings:
    """More samples than a block has rows, with two captions each."""
    made = embeddings(classes=4, each=300, noise=2.0, seed=seed)
    owners = np.repeat(np.arange(len(made)), 2)
    texts = (made.embeds["right"][owners] + np.random.default_rng(seed).normal(size=(len(owners), 16))).astype(
        np.float32
    )
    return Embeddings(made.ordinals, made.embeds, labels=made.labels, captions={"right": Captions(texts, owners)})


def measured() -> dict[str, float]:
    """All shared metrics on the ranks that there are."""
    names = {"words": np.sin(np.outer(np.arange(1, 5), np.arange(1, 17)))}
    return evaluate(
        SHARED,
        lambda split: many(1 if split == "train" else 2),
        World.current(),
        EvaluationConfig(knn=KnnConfig(k=5)),
        list("abcd"),
        intervals=True,
        prompts=lambda texts: names,
    )


@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_ranks_measures_exactly_the_same(ranks: Ranks, size: int) -> None:
    alone = measured()
    first, *others = ranks(size, measured)
    assert first == alone and not any(others)
    assert {"knn/left/accuracy/low", "retrieval/left->right/recall@5/high"} <= set(alone)


def with_one_that_fails(rank: int) -> str:
    """What each rank raises if one fails in its share of the work."""
    world = World.current()

    def outcomes(rows: slice) -> list[np.ndarray]:
        if world.rank == rank:
            raise MemoryError("too large")
        return [np.ones(rows.stop - rows.start)]

    try:
        shared_rows(world, 2000, 10, ["one"], outcomes)
    except ToldError as told:
        return repr(told.__cause__)
    return "nothing was raised"


def test_a_failure_on_one_rank_ends_all(ranks: Ranks) -> None:
    assert ranks(2, with_one_that_fails, 1, timeout=30) == ["None", "MemoryError('too large')"]


def test_few_rows_leave_ranks_without_work(ranks: Ranks) -> None:
    def square(rows: slice) -> list[np.ndarray]:
        return [np.arange(rows.start, rows.stop) ** 2]

    assert shared_rows(World.single(), 5, 1, ["x"], square, chunk=2)["x"].tolist() == [0, 1, 4, 9, 16]
    assert ranks(2, of_three_rows) == [[7.0, 7.0, 7.0]] * 2


def of_three_rows() -> list[float]:
    """Three rows, which are one block."""
    return shared_rows(World.current(), 3, 1, ["x"], lambda rows: [np.full(3, 7.0)])["x"].tolist()


def test_widths_that_differ_are_refused_on_all_ranks_by_name(ranks: Ranks) -> None:
    for told in ranks(2, of_unequal_widths, timeout=30):
        assert told.startswith("ValueError: retrieval needs embeddings of one width")


def of_unequal_widths() -> str:
    """The message on each rank."""
    made = embeddings()
    odd = Embeddings(made.ordinals, {"left": made.embeds["left"], "right": made.embeds["right"][:, :3]})
    try:
        evaluate([Metric.retrieval], lambda split: odd, World.current())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"
