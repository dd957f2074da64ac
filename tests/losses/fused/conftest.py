"""Kernels on the CPU: Triton's interpreter runs them, block after block."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Makes losses on the CPU go through the kernels, in blocks smaller than the tests' tiles; counts their calls."""
    triton = pytest.importorskip("triton", reason="the package triton is not installed (extra gpu)")
    if not triton.knobs.runtime.interpret:
        pytest.skip("Triton was loaded without its interpreter: TRITON_INTERPRET=1 must be set before Python starts")
    from mmpretrain.losses.fused import choice, launch

    monkeypatch.setattr(choice, "_lacks", lambda device: "")
    monkeypatch.setattr(launch, "READ", launch.Blocks(8, 16, 16, 1, 1))
    monkeypatch.setattr(launch, "MULTIPLIED", launch.Blocks(16, 16, 16, 1, 1))
    calls: Counter[str] = Counter()
    for name in ("forward", "backward", "sigmoid"):
        monkeypatch.setattr(launch, name, _counted(getattr(launch, name), name, calls))
    return calls


def _counted(function: Any, name: str, calls: Counter[str]) -> Any:
    def counted(*args: Any, **options: Any) -> Any:
        calls[name] += 1
        return function(*args, **options)

    return counted
