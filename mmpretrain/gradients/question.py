"""What is asked of a loss: which function, on which made-up batch, on how many processes (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Averaging(StrEnum):
    """What the training loop does with the gradients of its ranks."""

    mean = "mean"
    """Their mean, as DDP, FSDP, DeepSpeed and accelerate take it."""

    sum = "sum"
    """Their sum."""


class FloatType(StrEnum):
    """In which type the loss is computed."""

    float64 = "float64"
    float32 = "float32"


TOLERANCES = {FloatType.float64: 1e-8, FloatType.float32: 1e-4}


@dataclass(frozen=True)
class Question:
    """loss: ``MODULE:NAME`` or ``FILE.py:NAME``, a function or a class of nn.Module. batch: samples of the whole batch.

    inputs, width: how many embeddings it takes, and their width. unit: whether rows have length 1. learned: keyword
    arguments that are numbers with a gradient. fixed: keyword arguments as they are (of a class: of its constructor).
    processes: to compare with one.
    """

    loss: str
    processes: tuple[int, ...] = (2, 4)
    batch: int = 16
    width: int = 8
    inputs: int = 2
    unit: bool = True
    dtype: FloatType = FloatType.float64
    averaging: Averaging = Averaging.mean
    learned: Mapping[str, float] = field(default_factory=dict)
    fixed: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    timeout_s: float = 60.0

    def problems(self) -> list[str]:
        """What is wrong with it, one sentence each."""
        found = []
        place, colon, name = self.loss.rpartition(":")
        if not (place and colon and name.isidentifier()):
            found.append(f"{self.loss!r} names no loss: write MODULE:FUNCTION or FILE.py:FUNCTION")
        for key in ("batch", "width", "inputs"):
            if getattr(self, key) < 1:
                found.append(f"--{key} is {getattr(self, key)}: it must be at least 1")
        if not self.processes or min(self.processes) < 1:
            found.append("--processes needs numbers of at least 1, such as 2,4")
        elif uneven := [count for count in self.processes if self.batch % count]:
            found.append(f"--batch is {self.batch}, which {uneven[0]} processes cannot share evenly")
        if both := sorted({*self.learned} & {*self.fixed}):
            found.append(f"{both[0]} is given by --learned and by --set: leave one out")
        return found
