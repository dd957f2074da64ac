"""The experiment of fine-tuning: its domains and its table."""

from __future__ import annotations

import pytest

from experiments.finetuning import SCORES, table_of
from experiments.finetuning_photos import DOMAINS, SIDE, WORDS
from mmpretrain.records import GENERAL, Change


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_caption_is_made_of_known_words_and_names_its_shape(domain: str) -> None:
    drawn, shapes = DOMAINS[domain]
    for number in range(40):
        image, caption, label = drawn(number)
        assert image.size == (SIDE, SIDE) and len(image.getcolors() or []) > 1
        assert set(caption.split()) <= set(WORDS) and shapes[label] in caption.split()


def test_the_table_has_both_domains_side_by_side() -> None:
    changes = [
        Change(prefix + score, 0.25, 0.5, change_low=0.1, change_high=0.4)
        for prefix in ("", GENERAL)
        for score in SCORES
    ]
    table = table_of({"full": changes})
    assert table.count("0.250 → 0.500 (+0.100 to +0.400)") == 4 and "kept out: retrieval" in table
