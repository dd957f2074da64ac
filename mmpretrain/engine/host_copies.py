"""Copies of nested states in host memory, which is used again for the next copy of the same state."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor, nn


class HostCopies:
    """Host memory by the name of what is copied into it. Takes as much as one copy of everything that was named.

    Of tensors on CUDA devices the memory is pinned, so that copying runs at the speed of the bus.
    """

    def __init__(self) -> None:
        self._memory: dict[str, list[Tensor]] = {}

    def take(self, name: str, state: Any) -> Any:
        """``state`` as it is now, its tensors in host memory; good until the next copy of the same name.

        Tensors that share memory share it in the copy, so that ``torch.save`` writes the same bytes for both. All that
        is no tensor is copied by pickling it, which ``torch.save`` does as well. What is on a CUDA device has arrived
        only after :meth:`arrived`.
        """
        storages = _Storages(self._memory.setdefault(name, []))
        written = io.BytesIO()
        _TensorsAside(written, storages).dump(state)
        written.seek(0)
        return _TensorsBack(written, storages).load()

    def arrived(self) -> None:
        """Wait for what devices still send."""
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()


class _Storages:
    """The tensors of one state, copied one storage after another. memory: of earlier copies, in the same order."""

    def __init__(self, memory: list[Tensor]) -> None:
        self._memory = memory
        self._storages: dict[tuple[torch.device, int], torch.UntypedStorage] = {}
        self._numbers: dict[int, int] = {}  # of tensors by their identity
        self._originals: list[Tensor] = []  # kept alive, or another one could get the same identity
        self.copies: list[Tensor] = []

    def number(self, tensor: Tensor) -> int:
        """Under which number the copy of ``tensor`` is found."""
        if id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = len(self.copies)
            self._originals.append(tensor)
            self.copies.append(self._copied(tensor))
        return self._numbers[id(tensor)]

    @torch.no_grad()
    def _copied(self, tensor: Tensor) -> Tensor:
        copy = torch.empty(0, dtype=tensor.dtype)
        copy.set_(self._host(tensor.untyped_storage()), tensor.storage_offset(), tensor.size(), tensor.stride())
        if isinstance(tensor, nn.Parameter):
            copy = nn.Parameter(copy, requires_grad=False)
        copy.__dict__.update(vars(tensor))  # DeepSpeed notes numbers at its own, and torch.save writes them
        return copy.requires_grad_(tensor.requires_grad)

    def _host(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        key = (storage.device, storage._cdata)
        if key not in self._storages:
            place = self._place(len(self._storages), storage)
            if storage.nbytes():
                live = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
                place.copy_(live, non_blocking=True)
            self._storages[key] = place.untyped_storage()
        return self._storages[key]

    def _place(self, index: int, storage: torch.UntypedStorage) -> Tensor:
        if index == len(self._memory):
            self._memory.append(torch.empty(0, dtype=torch.uint8))
        if self._memory[index].numel() != storage.nbytes():
            pinned = storage.device.type == "cuda"
            self._memory[index] = torch.empty(storage.nbytes(), dtype=torch.uint8, pin_memory=pinned)
        return self._memory[index]


class _TensorsAside(pickle.Pickler):
    """Puts a number in the place of every tensor."""

    def __init__(self, file: io.BytesIO, storages: _Storages) -> None:
        super().__init__(file)
        self._storages = storages

    def persistent_id(self, value: Any) -> int | None:
        """The number of a tensor; None for all else, which is pickled."""
        return self._storages.number(value) if isinstance(value, Tensor) else None


class _TensorsBack(pickle.Unpickler):
    """Puts the copies in the places of the numbers; it reads nothing but what this process has just pickled."""

    def __init__(self, file: io.BytesIO, storages: _Storages) -> None:
        super().__init__(file)
        self._storages = storages

    def persistent_load(self, number: int) -> Tensor:
        """The copy of a tensor."""
        return self._storages.copies[number]
