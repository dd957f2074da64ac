"""Costs in the records: shares of a known peak alone, and memory."""

from __future__ import annotations

import pytest
import torch

from mmpretrain.config.engine import Precision
from mmpretrain.training.costs import Costs, known_peak, memory_gib


@pytest.mark.parametrize(
    ("name", "precision", "tf32", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", Precision.bfloat16, True, 989),
        ("NVIDIA H100 PCIe", Precision.float16, False, 756),
        ("NVIDIA A100-SXM4-40GB", Precision.float32, False, 19.5),
        ("NVIDIA A100-SXM4-40GB", Precision.float32, True, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", Precision.bfloat16, False, None),
        ("NVIDIA L40", Precision.bfloat16, False, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", Precision.bfloat16, False, None),
        ("Some New GPU", Precision.bfloat16, False, None),
    ],
)
def test_the_peak_is_that_of_the_device_and_precision_or_unknown(
    name: str, precision: Precision, tf32: bool, expected: float | None
) -> None:
    assert known_peak(name, precision, tf32=tf32) == expected


def test_a_line_has_what_is_known() -> None:
    assert Costs().line(1000.0, 2) == {}
    assert Costs(2e9).line(1000.0, 2) == {"flops_per_sample": 2e9, "tflops_per_s": 1.0}
    assert Costs(2e9, 4.0).line(1000.0, 2)["mfu"] == 0.25


def test_memory_of_this_process_is_told_on_cpus() -> None:
    before = memory_gib(torch.device("cpu"))
    kept = torch.ones(2**27)  # 0.5 GiB
    assert 0.4 < memory_gib(torch.device("cpu")) - before < 0.7
    del kept
