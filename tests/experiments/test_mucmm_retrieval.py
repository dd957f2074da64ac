"""Retrieval by the common score beside the cosine: its outcomes, and its table."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.mucmm_retrieval import COSINE, distinct, measured, scores_of, table
from mmpretrain.evaluation.embeddings import Embeddings

PAIR = ("image", "text")


def split(number: int, count: int) -> Embeddings:
    """What both share, drowned in a direction that is the same in all samples and one that is large and unrelated."""
    draw = np.random.default_rng(number)
    shared = draw.standard_normal((count, 4))
    embeds = {}
    for name in PAIR:
        own = 6 * draw.standard_normal((count, 1))
        embeds[name] = np.hstack([shared + 0.1 * draw.standard_normal((count, 4)), own, np.full((count, 1), 9.0)])
    return Embeddings(np.arange(count), {name: rows.astype(np.float32) for name, rows in embeds.items()})


def test_the_common_score_leaves_out_what_is_not_shared() -> None:
    sides = scores_of(split(0, 600), split(1, 100), PAIR, 0, (5,))
    found = measured(sides, PAIR)
    assert found["common score, over lengths"]["image->text R@1"] > 0.8 > 0.5 > found[COSINE]["image->text R@1"]
    assert found["common score, over lengths"]["text->image R@1 - cosine/low"] > 0
    assert {"MUCMM, linear heads", "MUCMM, MLP heads, weighted", "cosine, centered"} < found.keys()


def test_forms_of_the_score_are_products_of_rows() -> None:
    sides = scores_of(split(0, 600), split(1, 50), PAIR, 0, (5,))
    plain, lengths = (sides[f"common score{form}"] for form in ("", ", over lengths"))
    norms = [np.linalg.norm(side, axis=1) for side in plain]
    np.testing.assert_allclose(lengths[0] @ lengths[1].T, plain[0] @ plain[1].T / np.outer(*norms))
    assert not np.allclose(sides["common score, weighted"][0], plain[0])


def test_texts_that_are_embedded_alike_count_once() -> None:
    rows = np.array([[1.0, 0], [0, 1], [2, 0], [1, 1], [0, 3]])
    assert distinct(rows).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("models", [1, 2])
def test_the_table_says_how_sure_a_difference_is(models: int) -> None:
    rows = np.eye(3)
    found = measured({COSINE: (rows, rows[[1, 2, 0]]), "common score": (rows, rows)}, PAIR)
    found[COSINE]["samples"] = 3
    written = table([found] * models)
    assert ("+100.0 (+100.0 to +100.0)" if models == 1 else f"+100.0 ({models} above, 0 below)") in written
