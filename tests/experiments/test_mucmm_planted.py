"""Planted images: classes are read from codes by a searched probe, too."""

from __future__ import annotations

import numpy as np

from experiments.mucmm_planted import PROBES, searched
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.decomposition import CodesOrigin, fit
from mmpretrain.explain.settings import Settings


def test_a_class_that_both_share_is_read_from_common_codes_alone() -> None:
    draw, factors = np.random.default_rng(0), {"shared": 2, "private_first": 2, "private_second": 2}

    def split(count: int) -> Embeddings:
        shared, first, second = classes = draw.integers(0, 2, size=(3, count))
        sides = {"first": first, "second": second}
        embeds = {
            name: (np.stack([4.0 * shared, own], axis=1) + 0.1 * draw.normal(size=(count, 2))).astype(np.float32)
            for name, own in sides.items()
        }
        return Embeddings(np.arange(count), embeds, labels=np.ravel_multi_index(tuple(classes), (2, 2, 2)))

    splits = split(100), split(200)
    fitted = fit(splits[0], ("first", "second"), Settings(common=1, individual=1), CodesOrigin.closed_form)
    found = searched(fitted, splits, factors)
    assert list(found) == list(PROBES)
    assert found["common/shared"] > 0.95 and found["individual/private_first"] > 0.95
    assert found["individual/shared"] < 0.7 and found["common/private_second"] < 0.7
