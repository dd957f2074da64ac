"""Memory in which batches pass from loader processes to the training process, without names and without pipes.

A slot is an anonymous file in memory (memfd). A loader process writes a batch into it once; the training process maps
it and gets tensors that lie in the mapping. The slot comes back when the last of these tensors is gone, so nothing that
somebody still holds is written over, and whoever keeps batches keeps their memory, as with any tensor. No entry in
/dev/shm ever exists, its size is no bound, and the memory goes with the last process that holds it.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 64  # bytes; what vector instructions like


class TooLargeError(Exception):
    """An object needs more bytes than it may take; ``size`` is what it needs."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes are needed")
        self.size = size


@dataclass(frozen=True)
class Laid:
    """Where an object lies in its slot: its description at ``start``, all of it before ``end`` (bytes)."""

    start: int
    end: int


def lay(file: int, content: Any, room: int) -> Laid:
    """Write an object into the file with this descriptor: tensors as their bytes, the rest pickled behind them.

    Raises TooLargeError, with nothing written, where it needs more than ``room`` bytes.
    """
    description = io.BytesIO()
    layer = _Layer(description)
    layer.dump(content)
    end = layer.end + description.tell()
    if end > room:
        raise TooLargeError(end)
    for start, part in layer.parts:
        _write(file, part, start)
    _write(file, description.getbuffer(), layer.end)
    return Laid(layer.end, end)


class Slot:
    """One file in memory; it grows with what is laid into it."""

    def __init__(self) -> None:
        self.file = os.memfd_create("mmpretrain-batch", os.MFD_CLOEXEC)
        self._map: mmap.mmap | None = None
        weakref.finalize(self, os.close, self.file).atexit = False

    def memory(self, size: int) -> np.ndarray:
        """Its first ``size`` bytes as uint8 [size]; every call gives another array over the same memory."""
        if self._map is None or len(self._map) < size:
            whole = os.fstat(self.file).st_size
            self._map = mmap.mmap(self.file, whole, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        return np.frombuffer(self._map, np.uint8, size)

    def shrink(self, size: int) -> None:
        """Free what lies behind the first ``size`` bytes; nobody may look at it any more."""
        if os.fstat(self.file).st_size > size:
            os.ftruncate(self.file, size)


class Slots:
    """Slots of one loader. keep: how many may lie idle; what comes back beyond that is freed. most: bytes that an idle
    one may hold, None for no limit: one large batch must not stay in memory in the form of its slot."""

    def __init__(self, keep: int, most: int | None = None) -> None:
        self._idle: deque[Slot] = deque(maxlen=keep)
        self._most = most

    def take(self) -> Slot:
        """One that nobody uses."""
        try:
            return self._idle.pop()
        except IndexError:
            return Slot()

    def give_back(self, slot: Slot) -> None:
        """The slot may be written again. Runs wherever a tensor dies: in any thread, at any time."""
        if self._most is not None:
            slot.shrink(self._most)
        self._idle.append(slot)  # one step, so it needs no lock

    def close(self) -> None:
        """Free what is idle; what is lent is freed when its tensors are gone."""
        self._idle = deque(maxlen=0)

    def lend(self, slot: Slot, laid: Laid) -> Any:
        """The object that was laid into ``slot``, its tensors in the slot's memory, which comes back by itself."""
        memory = slot.memory(laid.end)
        # All tensors hold this array (a view's base is the first array over foreign memory), so it dies with the last.
        weakref.finalize(memory, self.give_back, slot).atexit = False
        return _Lender(memory, laid.start).load()


class _Layer(pickle.Pickler):
    """Pickles all but the bytes of plain tensors; those are ``parts``: (offset, bytes), up to ``end``."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.parts: list[tuple[int, memoryview]] = []
        self.end = 0
        self._known: dict[int, tuple[int, torch.dtype, tuple[int, ...]]] = {}

    def persistent_id(self, value: Any) -> tuple[int, torch.dtype, tuple[int, ...]] | None:
        """Where a plain tensor lies, its type and shape; None for anything else."""
        if type(value) is not Tensor or not _plain(value):
            return None
        if id(value) not in self._known:
            row = value.contiguous().as_strided((value.numel(),), (1,))  # a single value may have any stride
            content = row.view(torch.uint8).numpy().data
            self._known[id(value)] = (self.end, value.dtype, tuple(value.shape))
            self.parts.append((self.end, content))
            self.end += -(-len(content) // ALIGNMENT) * ALIGNMENT
        return self._known[id(value)]


class _Lender(pickle.Unpickler):
    """Puts tensors over ``memory``, uint8 [bytes], where :class:`_Layer` laid them."""

    def __init__(self, memory: np.ndarray, start: int) -> None:
        super().__init__(io.BytesIO(memory[start:].tobytes()))
        self._memory = memory

    def persistent_load(self, place: tuple[int, torch.dtype, tuple[int, ...]]) -> Tensor:
        """The tensor that lies there."""
        start, dtype, shape = place
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        return torch.from_numpy(self._memory[start : start + size]).view(dtype).view(shape)


def _plain(tensor: Tensor) -> bool:
    """Whether its bytes, type and shape are all there is to it."""
    strided = tensor.layout is torch.strided and tensor.device.type == "cpu"
    return strided and not (tensor.requires_grad or tensor.is_quantized or tensor.dtype.is_complex)


def _write(file: int, content: memoryview, start: int) -> None:
    done = 0
    while done < len(content):  # one call takes at most 2 GiB
        done += os.pwrite(file, content[done:], start + done)
