"""Through the kernels a large batch takes few launches, moves few bytes, and mixes no devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor
from torch.utils._pytree import tree_leaves

from mmpretrain.config.objective import Fused, ObjectiveConfig, Products
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from tests.pretended.device import PretendedDevice
from tests.pretended.log import Log
from tests.pretended.tensor import Pretended

ROWS, WIDTH = 65_536, 768


class Noted:
    """Stands for a kernel: what it would be given is noted, and nothing runs."""

    def __init__(self, name: str, log: Log) -> None:
        self.name, self.log = name, log

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launched(*args: Any, **options: Any) -> None:
            tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
            self.log.kernel(self.name, *tensors)
            if not all(isinstance(tensor, Pretended) for tensor in tensors):
                self.log.mix(f"a CPU tensor in {self.name}")

        return launched


def noted(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    """Kernels are noted in ``log``, on a device that the interpreter has nothing to do with."""
    from mmpretrain.losses.fused import launch

    for name in ("forward_tile", "backward_tile", "sigmoid_tile"):
        monkeypatch.setattr(launch, name, Noted(name, log))
    for name in ("readable", "writable"):
        monkeypatch.setattr(launch, name, lambda given: given)


def count(loss: str, fused: Fused, metrics: bool, noting: Callable[[Log], None]) -> Log:
    """What one call of 65,536 rows with bfloat16 products does, forward and backward."""
    with PretendedDevice(meta=True) as device:
        noting(device.log)
        query, key = (device.sizes(ROWS, WIDTH, requires_grad=True) for _ in range(2))
        scale = device.sizes(1, requires_grad=True)
        settings = ObjectiveConfig(products=Products.bfloat16, keep_mb=0, fused=fused)
        given: Any = {"scale": scale, "world": device.world(ahead=True), "settings": settings, "metrics": metrics}
        device.log.clear()
        if loss == "sigmoid":
            (found,) = sigmoid_contrastive([Pair(query, key)], bias=device.sizes(1), **given)
        else:
            (found,) = contrastive([Pair(query, key)], **given)
        found.loss.backward()
    return device.log


@pytest.mark.parametrize("metrics", [True, False])
@pytest.mark.parametrize("loss", ["InfoNCE", "sigmoid"])
def test_a_large_batch_is_cheaper_through_the_kernels(
    kernels: Counter[str], monkeypatch: pytest.MonkeyPatch, loss: str, metrics: bool
) -> None:
    ours, theirs = (count(loss, way, metrics, lambda log: noted(monkeypatch, log)) for way in (Fused.auto, Fused.never))
    assert ours.syncs == ours.mixes == []
    assert ours.launched < theirs.launched and ours.moved < theirs.moved / 3
