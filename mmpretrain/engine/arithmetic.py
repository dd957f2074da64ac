"""How torch computes in this process: TF32, and algorithms that give the same bits on every run."""

from __future__ import annotations

import os

import torch

from mmpretrain.config.engine import EngineConfig

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS sums in a fixed order only within a workspace of a fixed size


def set_arithmetic(settings: EngineConfig) -> None:
    """Before anything is computed on a device: what ``tf32`` and ``deterministic`` say."""
    if settings.tf32 is not None:
        torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = settings.tf32
    if settings.deterministic:
        os.environ.setdefault(CUBLAS, ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
