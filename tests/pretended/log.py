"""What a pretended device has seen."""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import dataclass, field

import torch

OWN_FILES = ("log.py", "tensor.py", "device.py")


@dataclass
class Log:
    """launches: operations that are kernels, by name. syncs: where the host would wait for the device. mixes: where
    CPU tensors meet the device's. copies: between host and device. moved: bytes that kernels read and write. peak:
    most bytes of the device's tensors at a time."""

    launches: Counter[str] = field(default_factory=Counter)
    syncs: list[str] = field(default_factory=list)
    mixes: list[str] = field(default_factory=list)
    copies: list[str] = field(default_factory=list)
    moved: int = 0
    live: int = 0
    peak: int = 0
    _storages: dict[int, list[int]] = field(default_factory=dict)  # references and bytes, by storage

    @property
    def launched(self) -> int:
        """Kernels in all."""
        return sum(self.launches.values())

    def clear(self) -> None:
        """Forget everything but what lives."""
        self.launches.clear()
        for found in (self.syncs, self.mixes, self.copies):
            found.clear()
        self.moved, self.peak = 0, self.live

    def kernel(self, name: str, *tensors: object) -> None:
        """A launch, and what it reads and writes."""
        self.launches[name] += 1
        self.moved += sum(t.numel() * t.element_size() for t in tensors if isinstance(t, torch.Tensor))

    def sync(self, what: str) -> None:
        """The host would wait here."""
        self.syncs.append(f"{what} at {where()}")

    def mix(self, what: str) -> None:
        """A CPU tensor where one of the device is needed."""
        self.mixes.append(f"{what} at {where()}")

    def born(self, elem: torch.Tensor) -> int:
        """A tensor over this memory; its key."""
        storage = elem.untyped_storage()
        key = storage._cdata
        known = self._storages.setdefault(key, [0, storage.nbytes()])
        if not known[0]:
            self.live += known[1]
            self.peak = max(self.peak, self.live)
        known[0] += 1
        return key

    def gone(self, key: int) -> None:
        """A tensor over this memory has gone."""
        known = self._storages[key]
        known[0] -= 1
        if not known[0]:
            self.live -= known[1]
            del self._storages[key]


def where() -> str:
    """The innermost line of the project."""
    for frame in reversed(traceback.extract_stack()):
        name = frame.filename.rpartition("/")[2]
        if "/mmpretrain/" in frame.filename or ("/tests/" in frame.filename and name not in OWN_FILES):
            return f"{name}:{frame.lineno}"
    return "?"
