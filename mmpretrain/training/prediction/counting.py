"""Counted, not estimated: bytes that live tensors hold, and bytes that collectives move. For traces and for tests.

Both are modes of torch's dispatcher, so that they see every operation of whoever runs inside, DeepSpeed's included.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that were made inside and live still: ``now``, and the most so far, ``peak``.

    Works with real and with fake tensors. Views and in-place operations make no storage. What was there before counts
    once :meth:`add` has seen it. What a kernel takes for itself while it runs is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what it made."""
        made = func(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(made) if isinstance(leaf, Tensor))
        return made

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Count the storages of these, each once."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            name, size = storage._cdata, storage.nbytes()
            if name in self._known and self._known[name]() is not None:
                continue
            self._known[name] = weakref.ref(storage, partial(self._forget, name, size))
            self.now += size
            self.peak = max(self.peak, self.now)

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Do not count the storages of these, nor views of them; they must outlive this."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._known[storage._cdata] = weakref.ref(storage)

    def restart(self) -> None:
        """From here on the peak is a new one."""
        self.peak = self.now

    def _forget(self, name: int, size: int, gone: Any) -> None:
        self.now -= size
        if self._known.get(name) is gone:
            del self._known[name]


class Moved:
    """Bytes of one kind of collective. calls: how many. payload: bytes that a rank hands in or takes out, whichever is
    more."""

    def __init__(self) -> None:
        self.calls = self.payload = 0


class Collectives(TorchDispatchMode):
    """What the collectives inside move: kind -> :class:`Moved`, in ``found``."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, Moved] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count it if it is a collective."""
        if func.namespace == "c10d":
            self._count(func, args)
        return func(*args, **(kwargs or {}))

    def _count(self, func: Any, args: Any) -> None:
        name = func._schema.name.removeprefix("c10d::").rstrip("_")
        sizes = [sum(t.numel() * t.element_size() for t in tree_leaves(arg) if isinstance(t, Tensor)) for arg in args]
        moved = self.found.setdefault(name, Moved())
        moved.calls += 1
        moved.payload += max(sizes, default=0)
