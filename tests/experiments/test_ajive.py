"""AJIVE in closed form: what its joint and its individual codes are."""

from __future__ import annotations

import torch
from torch import Tensor

from experiments.ajive import ajive
from mmpretrain.losses.canonical import canonical_of_rows


def blocks(count: int = 400) -> list[Tensor]:
    """Two directions are shared, with noise; three are each block's own."""
    draw = torch.Generator().manual_seed(0)
    shared = torch.randn(count, 2, generator=draw, dtype=torch.float64)
    held = [torch.cat([shared, 2 * torch.randn(count, 3, generator=draw, dtype=torch.float64)], dim=1) for _ in "ab"]
    mixes = [torch.randn(5, width, generator=draw, dtype=torch.float64) for width in (7, 6)]
    return [
        rows @ mix + 0.05 * torch.randn(count, mix.shape[1], generator=draw, dtype=torch.float64) + 3
        for rows, mix in zip(held, mixes, strict=True)
    ]


def test_the_joint_code_of_two_blocks_is_the_scaled_sum_of_their_canonical_codes() -> None:
    both = blocks()
    found, canonical = ajive(both, (7, 6), 2, 3), canonical_of_rows(both[0], both[1], ridge=0.0)
    torch.testing.assert_close(found.singular, (1 + canonical.rho[:2]).sqrt())
    codes = [(h - mean) @ m for h, mean, m in zip(both, canonical.means, canonical.common(2), strict=True)]
    joint, _ = found.codes(both)
    torch.testing.assert_close(joint.abs(), (sum(codes) / (2 * (1 + canonical.rho[:2])).sqrt()).abs())


def test_codes_are_white_and_individual_ones_do_not_correlate_with_the_joint_one() -> None:
    both = blocks()
    joint, individual = ajive(both, (5, 5), 2, 3).codes(both)
    for own in individual:
        torch.testing.assert_close(torch.cov(torch.cat([joint, own], dim=1).T), torch.eye(5, dtype=torch.float64))
    # Of a new sample, too, the joint code takes both blocks.
    again, _ = ajive(both, (5, 5), 2, 3).codes([both[0][:9], both[1][:9]])
    torch.testing.assert_close(again, joint[:9])
