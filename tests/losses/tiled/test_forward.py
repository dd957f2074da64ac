"""What the forward sweep keeps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmpretrain.config.objective import ObjectiveConfig
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.losses.tiled.forward import ForwardSweep


@pytest.mark.parametrize(("keep_mb", "tiles"), [(1, 4), (0, 0)])
def test_tiles_are_kept_for_a_backward_pass_only(monkeypatch: pytest.MonkeyPatch, keep_mb: int, tiles: int) -> None:
    sweeps: list[ForwardSweep] = []
    start = ForwardSweep.__init__

    def remember(self: ForwardSweep, *args: Any) -> None:
        start(self, *args)
        sweeps.append(self)

    monkeypatch.setattr(ForwardSweep, "__init__", remember)
    query, key = torch.randn(8, 3, requires_grad=True), torch.randn(8, 3)
    settings = ObjectiveConfig(tile=4, keep_mb=keep_mb)
    contrastive([Pair(query, key)], scale=5.0, world=World.single(), settings=settings)
    with torch.no_grad():
        contrastive([Pair(query, key)], scale=5.0, world=World.single(), settings=settings)
    contrastive([Pair(query.detach(), key)], scale=5.0, world=World.single(), settings=settings)
    assert [len(sweep.kept) for sweep in sweeps] == [tiles, 0, 0]
