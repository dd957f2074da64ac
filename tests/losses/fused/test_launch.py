"""What goes on around the kernels waits for nothing on the device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmpretrain.config.objective import ObjectiveConfig, Products
from mmpretrain.losses.sigmoid_sweep import FusedSigmoid
from mmpretrain.losses.tiled.fused import FusedTiles
from tests.losses.fused.outcomes import KINDS, outcome

LOOKS = {"aten._local_scalar_dense.default", "aten.nonzero.default", "aten.is_nonzero.default", "aten.equal.default"}


class Blind(TorchDispatchMode):
    """Refuses operations whose result the host must wait for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        assert str(func) not in LOOKS, func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_host_looks_at_nothing(kernels: Counter[str], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    for owner, name in ((FusedTiles, "forward"), (FusedTiles, "gradient"), (FusedSigmoid, "add")):
        monkeypatch.setattr(owner, name, blind(getattr(owner, name)))
    outcome(kind, ObjectiveConfig(products=Products.bfloat16, keep_mb=0), shape=(16, 8))
    assert sum(kernels.values()) >= 1


def blind(method: Any) -> Any:
    """The method under :class:`Blind`."""

    def called(*args: Any, **options: Any) -> Any:
        with Blind():
            return method(*args, **options)

    return called


def test_the_host_is_caught_looking() -> None:
    with pytest.raises(AssertionError, match="_local_scalar_dense"), Blind():
        torch.ones(1).item()
