"""The compiler for GPUs takes every form of the kernels that a loss asks for; no GPU is needed for that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("capability", ["80", "90"])
def test_every_form_of_the_kernels_compiles(tmp_path: Path, capability: str) -> None:
    pytest.importorskip("triton", reason="the package triton is not installed (extra gpu)")
    env = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.losses.fused.compile_all", capability]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stderr
    assert [line.split(":")[0] for line in ended.stdout.splitlines()] == [
        "forward_tile",
        "backward_tile",
        "sigmoid_tile",
    ]
