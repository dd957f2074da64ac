"""Several captions per picture, and pictures that several samples hold: against loops as on COCO."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embeddings import Captions, Embeddings
from mmpretrain.evaluation.retrieval import among_first, measure_retrieval, retrieval
from mmpretrain.evaluation.similarity import unit_rows

D = 8


def drawn(pictures: int, owners: np.ndarray, seed: int = 0) -> Embeddings:
    """One sample per picture, with captions near it."""
    draw = np.random.default_rng(seed)
    images = draw.normal(size=(pictures, D)).astype(np.float32)
    texts = (images[owners] + 1.2 * draw.normal(size=(len(owners), D))).astype(np.float32)
    first = texts[np.searchsorted(owners, np.arange(pictures))]
    embeds = {"image": images, "caption": first}
    return Embeddings(np.arange(pictures), embeds, captions={"caption": Captions(texts, owners)})


def coco(images: np.ndarray, texts: np.ndarray, owners: np.ndarray, k: int) -> tuple[float, float]:
    """recall@k (image to text, text to image), by loops."""
    similarity = unit_rows(images) @ unit_rows(texts).T
    forth = [any(owners[text] == image for text in np.argsort(-row)[:k]) for image, row in enumerate(similarity)]
    back = [owners[text] in np.argsort(-column)[:k] for text, column in enumerate(similarity.T)]
    return float(np.mean(forth)), float(np.mean(back))


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recall_with_several_captions_is_that_of_coco(k: int) -> None:
    owners = np.repeat(np.arange(40), np.arange(40) % 5 + 1)  # one to five captions
    made = drawn(40, owners)
    found = retrieval(made)
    texts = made.captions["caption"].embeds
    assert (found[f"image->caption/recall@{k}"], found[f"caption->image/recall@{k}"]) == coco(
        made.embeds["image"], texts, owners, k
    )
    assert found[f"caption->image/recall@{k}/chance"] == k / 40
    # By chance one of r right among k of m: 1 - C(m - r, k) / C(m, k).
    sizes, m = np.bincount(owners), len(owners)
    missed = np.mean([np.prod([(m - r - j) / (m - j) for j in range(k)]) for r in sizes])
    assert found[f"image->caption/recall@{k}/chance"] == pytest.approx(1 - missed)


def test_pictures_with_equal_bytes_are_one_item() -> None:
    """A data set of one caption per sample, with its pictures repeated, is the one of several captions per sample."""
    owners = np.repeat(np.arange(30), 3)
    made = drawn(30, owners)
    flat = Embeddings(
        np.arange(90),
        {"image": made.embeds["image"][owners], "caption": made.captions["caption"].embeds},
        same={"image": owners + 5},
    )
    assert retrieval(flat) == retrieval(made)
    assert retrieval(replace(flat, same={}))["image->caption/recall@1"] < retrieval(flat)["image->caption/recall@1"]


def test_equal_captions_of_several_pictures_find_any_of_them() -> None:
    images, names = np.eye(6, dtype=np.float32), np.array([0, 0, 1, 1, 2, 2])
    captions = (np.eye(6, dtype=np.float32) + np.roll(np.eye(6, dtype=np.float32), 1, axis=1))[names * 2]
    made = Embeddings(np.arange(6), {"image": images, "caption": captions}, same={"caption": names})
    found = retrieval(made)
    assert found["image->caption/recall@1"] == 1.0 and found["image->caption/recall@1/chance"] == 1 / 3
    assert found["caption->image/recall@1"] == 1.0
    assert found["caption->image/recall@1/chance"] == pytest.approx(1 / 3)  # two right ones of six


def test_collapsed_embeddings_score_chance_with_several_captions_too() -> None:
    owners = np.repeat(np.arange(20), np.arange(20) % 3 + 1)
    made = drawn(20, owners)
    flat = replace(
        made,
        embeds={name: np.ones_like(rows) for name, rows in made.embeds.items()},
        captions={"caption": Captions(np.ones((len(owners), D), np.float32), owners)},
    )
    found = retrieval(flat)
    for name in ("image->caption", "caption->image"):
        for score in ("recall@1", "recall@5", "median_rank"):
            assert found[f"{name}/{score}"] == pytest.approx(found[f"{name}/{score}/chance"])


def test_a_picture_without_captions_is_neither_query_nor_item() -> None:
    owners = np.repeat(np.arange(20), 2)
    made, kept = drawn(20, owners), owners != 7
    with_gap = replace(
        made,
        captions={"caption": Captions(made.captions["caption"].embeds[kept], owners[kept])},
        present={"caption": np.arange(20) != 7},
    )
    assert retrieval(with_gap) == retrieval(made.only(np.arange(20) != 7))


def test_captions_of_one_picture_are_drawn_together() -> None:
    owners = np.repeat(np.arange(20), 3)
    scores = measure_retrieval(drawn(20, owners), World.single())
    back, forth = scores["caption->image/recall@1"], scores["image->caption/recall@1"]
    assert not isinstance(back, float) and back.groups is not None and np.array_equal(back.groups, owners)
    assert not isinstance(forth, float) and forth.groups is None


def test_a_right_item_among_ties_by_hand() -> None:
    # Of 4 tied items 2 are right; 1 place: 1/2, 2 places: 1 - 1/6, 3 places: certain.
    for places, probability in ((0, 0.0), (1, 0.5), (2, 5 / 6), (3, 1.0), (9, 1.0), (-2, 0.0)):
        assert among_first(np.array([places]), np.array([4]), np.array([2])) == pytest.approx([probability])
