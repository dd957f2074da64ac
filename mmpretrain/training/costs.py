"""What a run's steps cost: memory, and operations beside what the device could do."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import psutil
import torch

from mmpretrain.config.engine import Precision
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.flops import NotCountedError, training_flops
from mmpretrain.words import shortened

GIB = 2**30
logger = logging.getLogger(__name__)

# TFLOP/s of dense products as the makers state them, (16 bits, float32 without TF32), by the device's name; the first
# whose words are in it counts.
PEAKS: tuple[tuple[str, float, float], ...] = (
    ("H100 PCIe", 756, 51),
    ("H100 NVL", 835, 60),
    ("H100", 989, 67),
    ("H200", 989, 67),
    ("GH200", 989, 67),
    ("A100", 312, 19.5),
    ("L40S", 362, 91.6),
    ("L4", 121, 30.3),
    ("A10G", 70, 31.5),
    ("RTX A6000", 155, 38.7),
    ("RTX 4090", 165, 82.6),
    ("RTX 3090", 71, 35.6),
)


@dataclass(frozen=True)
class Costs:
    """What is known of a run's costs. flops: per sample; None: not counted. peak: of a device, in TFLOP/s; None:
    unknown."""

    flops: float | None = None
    peak: float | None = None

    def line(self, samples_per_s: float, ranks: int) -> dict[str, float]:
        """``flops_per_sample``, ``tflops_per_s`` of one rank, and ``mfu``, as far as they are known."""
        if self.flops is None:
            return {}
        reached = self.flops * samples_per_s / ranks / 1e12
        share = {} if self.peak is None else {"mfu": reached / self.peak}
        return {"flops_per_sample": self.flops, "tflops_per_s": reached, **share}


def count_costs(engine: Engine, batch: Batch, step: Step) -> Costs:
    """Of training on batches like this one; every rank must call it. What cannot be counted is said once."""
    try:
        flops = training_flops(engine, batch, step)
    except NotCountedError as error:
        if engine.world.rank == 0:
            logger.warning("the model's operations were not counted, so no tflops_per_s: %s", shortened(str(error)))
        return Costs()
    return Costs(flops, peak(engine.config.engine.precision, engine.device))


def peak(precision: Precision, device: torch.device) -> float | None:
    """TFLOP/s that products of this precision could reach on the device; None where that is not known."""
    if device.type != "cuda":
        return None
    return known_peak(torch.cuda.get_device_name(device), precision, tf32=_uses_tf32())


def known_peak(name: str, precision: Precision, *, tf32: bool) -> float | None:
    """From the table. tf32: whether products of float32 are allowed to be less exact; the table does not say those."""
    # Whole words: an L40 is no L4, and an RTX A1000 no A100.
    found = next((row for row in PEAKS if re.search(rf"\b{row[0]}\b", name)), None)
    if found is None or "MIG" in name or "Laptop" in name:  # a slice of a device, a slower one of the same name
        return None
    if precision is Precision.float32:
        return None if tf32 else found[2]
    return found[1]


def memory_gib(device: torch.device) -> float:
    """The most that torch had allocated on a GPU since the last call; on CPUs what this process holds."""
    if device.type != "cuda":
        return psutil.Process().memory_info().rss / GIB
    most = torch.cuda.max_memory_allocated(device) / GIB
    torch.cuda.reset_peak_memory_stats(device)
    return most


def _uses_tf32() -> bool:
    return torch.get_float32_matmul_precision() != "highest"
