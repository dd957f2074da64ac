"""Counts of a split, and histograms."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmpretrain.preview.counts import MOST_WORDS, commonest, count_split, histogram
from mmpretrain.preview.opening import open_config
from tests.preview.dataset import HOSTILE, LONG, config


def test_a_split_is_counted_with_what_is_dropped_and_why(photos: Path) -> None:
    opened = open_config(config(photos))
    counts = count_split(opened, "train", None)
    assert (counts.samples, counts.looked_at, counts.usable, counts.unusable) == (12, 12, 10, 2)
    assert {entry.cause.split(":")[0]: entry.examples[0][0] for entry in counts.causes} == {
        "photo.png": "key <i>03",
        "caption.txt": "key <i>04",
    }
    assert counts.labels == Counter({0: 5, 1: 5})
    assert counts.modalities["photo"].words["mode"] == Counter({"RGB": 10})
    found = counts.modalities["caption"].histograms(opened.previews["caption"].limits)
    assert found["characters"].largest == max(len(HOSTILE), len(LONG))
    assert (found["tokens"].limit, found["tokens"].above) == (8, 2)  # the long and the hostile one
    assert found["unknown tokens"].largest > 5
    assert (
        counts.modalities["track"].histograms(opened.previews["track"].limits)["length"].above == 2
    )  # 7 and 11; 3 is dropped
    assert sorted(counts.sizes) == ["caption.txt", "gene.npy", "label.cls", "photo.png", "track.npy"]


def test_a_part_of_a_split_is_spread_evenly(photos: Path) -> None:
    done: list[tuple[int, int]] = []
    counts = count_split(open_config(config(photos)), "train", 4, lambda *so_far: done.append(so_far))
    assert (counts.samples, counts.looked_at, counts.unusable) == (12, 4, 1)  # numbers 0, 3, 6 and 9
    assert done == [(4, 4)]


@pytest.mark.parametrize(
    ("values", "bins"),
    [([5], [1]), ([1, 2, 2, 4], [1, 2, 0, 1]), ([0, 47], [1] + [0] * 22 + [1]), ([0.5, 0.5], [2])],
)
def test_whole_numbers_get_bins_of_their_own(values: list[float], bins: list[int]) -> None:
    found = histogram(np.array(values, float), limit=3)
    assert found.counts == bins and found.samples == len(values)
    assert found.above == sum(value > 3 for value in values)


def test_every_value_is_in_a_bin() -> None:
    for values in (np.random.default_rng(0).normal(size=500), np.arange(1000), np.array([1e9, 1e9 + 7])):
        assert sum(histogram(values.astype(float)).counts) == len(values)


def test_rare_words_are_put_together() -> None:
    counter = Counter({str(number): 1 for number in range(MOST_WORDS + 3)})
    assert list(commonest(counter))[-1] == ("3 others", 3) and len(list(commonest(counter))) == MOST_WORDS + 1
