"""The GRU over feature sequences: masks, the three poolings, and the sizes of the papers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.pooling_mmpretrain import StateForm
from mmpretrain.models.recurrent_mmpretrain import RecurrentSequence

VALUES = torch.linspace(-1, 1, 3 * 6 * 4).reshape(3, 6, 4).sin()
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]])


def encoder(pool: str) -> Encoder:
    torch.manual_seed(0)
    config = {"input_size": 4, "steps": 6, "width": 5}
    return Encoder("series", {"architecture": "gru", "config": config, "pool": pool}).eval()


@pytest.mark.parametrize("pool", ["last", "mean", "flatten"])
def test_padding_changes_nothing(pool: str) -> None:
    model, other = encoder(pool), VALUES.clone()
    other[1, 3:], other[2, 1:] = 7.0, -7.0
    embeds = model(values=VALUES, attention_mask=MASK)
    assert torch.equal(model(values=other, attention_mask=MASK), embeds)
    assert torch.allclose(model(values=VALUES[1:2, :3], attention_mask=MASK[1:2, :3]), embeds[1:2], atol=1e-6)
    assert embeds.shape == (3, model.output_size) and model.form is StateForm.tokens


def test_states_are_those_of_torchs_gru() -> None:
    model = RecurrentSequence(4, 6, 5, layers=2)
    gru = nn.GRU(4, 5, 2, batch_first=True)
    gru.load_state_dict(model.recurrent.state_dict())
    assert torch.equal(model(VALUES), gru(VALUES)[0])
    flat = encoder("flatten")
    assert torch.equal(flat(values=VALUES), flat.states(values=VALUES).values.flatten(1))


def test_sizes_are_those_of_the_papers() -> None:
    """MIMIC: 512 units in CoMM; in FactorCL 30, whose 24 states are 720 numbers."""
    assert sum(p.numel() for p in RecurrentSequence(12, 24, 512).parameters()) == 3 * 512 * (12 + 512 + 2)
    config = {"input_size": 12, "steps": 24, "width": 30}
    assert Encoder("series", {"architecture": "gru", "config": config, "pool": "flatten"}).output_size == 720


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="dropout lies between layers"):
        RecurrentSequence(4, 6, 5, dropout=0.5)
    with pytest.raises(ValueError, match=r"modality 'series': values has shape \[3, 6, 3\]"):
        encoder("last")(values=VALUES[:, :, :3])
    with pytest.raises(ValueError, match="a sequence has 7 steps, and 6 fit side by side"):
        encoder("flatten")(values=torch.zeros(1, 7, 4))
