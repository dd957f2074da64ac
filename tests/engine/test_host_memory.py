"""Large tensors leave no gaps behind in a process's memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from mmpretrain.engine.host_memory import give_large_back

MB = 2**20
ROOT = Path(__file__).resolve().parents[2]


def left_over() -> int:
    """Bytes that stay of 10 tensors of 8 MB when small ones, made in between, outlive them."""
    torch.ones(16 * MB // 4)  # once it is freed, glibc takes those below from its heap
    before = psutil.Process().memory_info().rss
    pairs = [(torch.ones(8 * MB // 4), torch.ones(1000)) for _ in range(10)]
    small = [pair[1] for pair in pairs]
    del pairs
    return psutil.Process().memory_info().rss - before - sum(tensor.nbytes for tensor in small)


def with_and_without() -> tuple[int, bool, int]:
    return left_over(), give_large_back(), left_over()


@pytest.mark.processes
def test_memory_of_large_tensors_goes_back_to_the_system() -> None:
    """In a new process, whose heap has no gaps of earlier tests."""
    told = "from tests.engine.test_host_memory import with_and_without; print(*map(int, with_and_without()))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, cwd=ROOT)
    without, was_set, with_it = map(int, done.stdout.split())
    assert was_set
    assert with_it < 8 * MB < 40 * MB < without


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_MMAP_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=9")]
)
def test_a_threshold_of_the_environment_stays(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert not give_large_back()
