"""How many kernels the losses launch on a GPU, in how much memory, and that they never wait for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mmpretrain.config.objective import MIB, ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, PairLoss, contrastive
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from mmpretrain.losses.tiled.tile import Scratch
from tests.pretended import Log, PretendedDevice

SETTINGS = ObjectiveConfig(products=Products.bfloat16, keep_mb=0, gather_mb=10**6)
GIB = 1024 * MIB


def step(rows: int, ranks: int, width: int, *, sigmoid: bool = False, learned: bool = False, ids: bool = False) -> Log:
    """Forward and backward pass of the loss of ``rows`` on one of ``ranks``."""
    with PretendedDevice(meta=True) as device, device.alone(ranks):
        own = rows // ranks
        query, key = (device.sizes(own, width, requires_grad=True) for _ in range(2))
        pair = Pair(query, key)
        numbers = device.sizes(own, dtype=torch.int64) if ids else None
        scale: Tensor | float = device.sizes(1, requires_grad=True) if learned else 10.0
        device.log.clear()
        loss(pair, scale, device.world(ranks, ahead=True), numbers, sigmoid=sigmoid).loss.backward()
    assert not device.log.mixes and not device.log.syncs
    return device.log


def loss(pair: Pair, scale: Tensor | float, world: World, ids: Tensor | None, *, sigmoid: bool) -> PairLoss:
    if sigmoid:
        (found,) = sigmoid_contrastive([pair], scale=scale, bias=-10.0, world=world, settings=SETTINGS, sample_ids=ids)
    else:
        (found,) = contrastive([pair], scale=scale, world=world, settings=SETTINGS, sample_ids=ids)
    return found


@pytest.mark.parametrize(
    ("rows", "ranks", "most", "options"),
    [
        (65_536, 1, 500, {}),
        (65_536, 1, 500, {"learned": True}),
        (65_536, 1, 500, {"sigmoid": True, "learned": True}),
        (65_536, 8, 410, {"learned": True, "ids": True}),
        (65_536, 8, 410, {"sigmoid": True, "learned": True, "ids": True}),
        (65_536, 64, 410, {"learned": True, "ids": True}),
    ],
)
def test_a_loss_launches_few_kernels(rows: int, ranks: int, most: int, options: dict[str, bool]) -> None:
    assert step(rows, ranks, 768, **options).launched <= most


@pytest.mark.parametrize("sigmoid", [False, True])
def test_its_scratch_memory_keeps_to_the_budget(monkeypatch: pytest.MonkeyPatch, sigmoid: bool) -> None:
    # By sweep: a number of one that is gone may come back as another's, so the sweeps themselves are the keys.
    taken: dict[Scratch, dict[tuple[str, torch.dtype], int]] = {}
    take = Scratch.take

    def watch(self: Scratch, name: str, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        found = take(self, name, shape, dtype)
        taken.setdefault(self, {})[name, dtype] = found.numel() * found.element_size()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Scratch, "take", watch)
        step(65_536, 1, 8, sigmoid=sigmoid)
    assert max(sum(sizes.values()) for sizes in taken.values()) <= 2 * GIB
    # And nothing of that size lies beside it: rows of width 8 are small.
    assert step(65_536, 1, 8, sigmoid=sigmoid).peak <= 2 * GIB + 128 * MIB


@pytest.mark.parametrize("same_side", [False, True])
def test_comms_five_pairs_share_what_is_the_same(same_side: bool) -> None:
    """Each side against itself comes once: 11 products in the place of 15."""
    with PretendedDevice(meta=True) as device:
        first, second, *alone = (device.sizes(16_384, 256, requires_grad=True) for _ in range(6))
        sides = [(first, second), (alone[0], second), (alone[1], first), (alone[2], second), (alone[3], first)]
        pairs = [Pair(a, b, same_side=same_side, one_way=not same_side) for a, b in sides]
        device.log.clear()
        found = contrastive(pairs, scale=10.0, world=device.world(ahead=True), settings=SETTINGS)
        products = device.log.launches["mm"]
        torch.stack([result.loss for result in found]).sum().backward()
    tiles = products // (11 if same_side else 5)
    assert products == tiles * (11 if same_side else 5) and tiles <= 2
    assert device.log.launched <= 1200 and not device.log.syncs


def test_squares_are_still_to_be_had() -> None:
    with PretendedDevice(meta=True) as device:
        settings = replace(SETTINGS, scratch_mb=0, tile=2048)
        rows = device.sizes(8192, 64)
        contrastive([Pair(rows, rows)], scale=10.0, world=device.world(), settings=settings)
    assert device.log.launches["mm"] == 16
