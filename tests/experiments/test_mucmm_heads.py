"""Heads that experiments train on embeddings: what each form can find, and that nothing unseen is looked at."""

from __future__ import annotations

import pytest
import torch

from experiments.mucmm_baselines import CURVED, curved_split
from experiments.mucmm_heads import FORMS, correlation_sum, tensors, train_heads


@pytest.mark.slow
def test_mlp_heads_find_what_no_linear_map_sees() -> None:
    train, test = (tensors(curved_split(0, number, 1000).embeds) for number in range(2))
    found = {}
    for name in FORMS:
        heads = train_heads(train, FORMS[name], CURVED, 0, checkpoints=(150,))
        codes = heads.codes(test)
        found[name] = correlation_sum(codes["first"][0], codes["second"][0])
        assert heads.steps == 150 and not any(p.requires_grad for p in heads.model.parameters())
    assert found["linear"] < 0.3 and found["mlp"] > 0.6 and found["deep"] > 0.6


def test_the_number_of_steps_is_chosen_among_those_given() -> None:
    train = tensors(curved_split(0, 0, 400).embeds)
    one, two = (train_heads(train, FORMS["linear"], CURVED, 0, checkpoints=steps) for steps in ((3,), (3, 6)))
    assert one.steps == 3 and two.steps in (3, 6)
    again = train_heads(train, FORMS["linear"], CURVED, 0, checkpoints=(two.steps,))
    torch.testing.assert_close(again.codes(train), two.codes(train))
