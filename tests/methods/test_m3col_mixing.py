"""Who is mixed with whom, and how much."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmpretrain.data.batch import Mixing
from mmpretrain.losses.contrastive import Mixup
from mmpretrain.methods.m3col_mixing import Mixer, SelfPairs, mix, mixup_targets, with_mixed_view
from tests.methods.toys import make_batch, make_config, make_step

MIXER = Mixer(beta=0.15, select=0.5)
LAM = torch.tensor([0.9, 0.2, 1, 0.6, 1, 0.35, 0.5, 1], dtype=torch.float64)


def test_weights_have_the_stated_distribution() -> None:
    mixing = MIXER.draw(100_000, seed=0)
    mixed = mixing.weight[mixing.weight < 1]
    assert (mixing.weight == 1).double().mean().item() == pytest.approx(0.5, abs=0.005)
    assert mixed.mean().item() == pytest.approx(0.5, abs=0.005)
    assert mixed.var().item() == pytest.approx(0.1923, abs=0.005)
    assert torch.equal(mixing.partner.sort().values, torch.arange(100_000))
    assert (Mixer(0.15, 1.0).draw(10_000, 0).weight < 1).double().mean() > 0.99
    assert (Mixer(0.15, 0.0).draw(100, 0).weight == 1).all()


def test_groups_do_not_depend_on_how_the_batch_is_cut() -> None:
    step = make_step()
    positions = torch.arange(32, 64)
    whole = MIXER.group(positions, 4, "mrna", step)
    parts = [MIXER.group(part, 4, "mrna", make_step(index=9)) for part in positions.split(8)]
    assert torch.equal(whole.weight, torch.cat([part.weight for part in parts]))
    shifted = [part.partner + 8 * number for number, part in enumerate(parts)]
    assert torch.equal(whole.partner, torch.cat(shifted))
    assert torch.equal(whole.partner // 4, torch.arange(32) // 4)
    assert len(set(map(tuple, (whole.partner % 4).view(8, 4).tolist()))) > 1


def test_modalities_steps_and_groups_are_mixed_differently() -> None:
    step = make_step()
    first = MIXER.group(torch.arange(16), 16, "mrna", step)
    for other in (
        MIXER.group(torch.arange(16), 16, "mirna", step),
        MIXER.group(torch.arange(16, 32), 16, "mrna", step),
        MIXER.whole_batch(16, torch.arange(16), "mrna", step),
    ):
        assert not torch.equal(first.partner, other.partner) and not torch.equal(first.weight, other.weight)
    now, later = (MIXER.whole_batch(16, torch.arange(16), "mrna", make_step(index=i)) for i in (0, 1))
    assert not torch.equal(now.partner, later.partner)


def test_the_whole_batch_is_cut_by_rank() -> None:
    whole = MIXER.whole_batch(16, torch.arange(16), "mrna", make_step())
    part = MIXER.whole_batch(16, torch.arange(8, 12), "mrna", make_step())
    assert torch.equal(part.weight, whole.weight[8:12]) and torch.equal(part.partner, whole.partner[8:12])


def test_a_group_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="mix_group 5 does not divide the local batch 16"):
        MIXER.group(torch.arange(16), 5, "mrna", make_step())


@pytest.mark.parametrize("shape", [(8,), (8, 3), (8, 2, 3, 3)])
def test_mixing_makes_new_rows_and_leaves_the_old_ones(shape: tuple[int, ...]) -> None:
    rows, partner = torch.randn(shape, dtype=torch.float64), torch.randperm(8)
    before = rows.clone()
    mixed = mix(rows, Mixing(LAM, partner))
    for i in range(8):
        torch.testing.assert_close(mixed[i], LAM[i] * rows[i] + (1 - LAM[i]) * rows[partner[i]])
    assert torch.equal(rows, before)
    assert mix(rows.bfloat16(), Mixing(LAM, partner)).dtype == torch.float32


def dense(targets: Mixup) -> Tensor:
    """The targets as a matrix [b, b]."""
    matrix = torch.diag(targets.own)
    matrix[torch.arange(len(matrix)), targets.partner] += targets.other
    return matrix


def test_rows_of_the_targets_sum_to_one_unless_the_released_rule_is_asked_for() -> None:
    everyone, identity = torch.arange(8), Mixing(LAM, torch.arange(8))
    added = dense(mixup_targets(identity, everyone, SelfPairs.added))
    torch.testing.assert_close(added, torch.eye(8, dtype=torch.float64))
    assigned = dense(mixup_targets(identity, everyone, SelfPairs.assigned))
    expected = torch.tensor([0.1, 0.8, 0, 0.4, 0, 0.65, 0.5, 0], dtype=torch.float64)
    torch.testing.assert_close(assigned.sum(dim=1), expected)


def test_the_view_is_added_and_inputs_stay() -> None:
    batch = make_batch(make_config("m3col"))
    before = {name: tensors["values"].clone() for name, tensors in batch.inputs.items()}
    mixing = {name: MIXER.group(batch.positions, 4, name, make_step()) for name in batch.inputs}
    mixed = with_mixed_view(batch, mixing, ["mirna", "mrna"][1:])
    assert mixed.views["mixed"].keys() == {"mrna"} and mixed.mixing is mixing and not batch.views
    torch.testing.assert_close(mixed.views["mixed"]["mrna"]["values"], mix(before["mrna"], mixing["mrna"]))
    assert all(torch.equal(before[name], batch.inputs[name]["values"]) for name in before)
    batch.inputs["mrna"]["token_ids"] = torch.zeros(16, 2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"token_ids of mrna are integers.*mix_level=embedding"):
        with_mixed_view(batch, mixing, ["mrna"])
