"""Weights that are read, cast and written through files, so that memory holds one tensor of them at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from mmpretrain.engine.checkpoint_weights import StoredWeights

SMALL = 2**16  # bytes; what has fewer stays in memory


def placeholders(stored: StoredWeights) -> dict[str, Tensor]:
    """Name -> a tensor on the meta device that stands for the stored one of that name."""
    return {name: torch.empty(stored.shape(name), device="meta") for name in stored}


class LazyWeights(Mapping[str, Tensor]):
    """The state that is released: each tensor is made when it is asked for, and lies in a file that has no name.

    state: what ships, some of it placeholders for tensors of ``stored``. dtype: of floating-point numbers, but those
    that ``model`` always keeps in float32. spool: an empty folder on a disk with room for the release.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        stored: StoredWeights,
        dtype: torch.dtype,
        model: nn.Module,
        spool: Path,
    ) -> None:
        self._state, self._stored, self._dtype, self._spool = state, stored, dtype, spool
        self._made: WeakValueDictionary[str, Tensor] = WeakValueDictionary()
        self._kept = {key for kind in ("", "_strict") for key in getattr(model, f"_keep_in_fp32_modules{kind}") or ()}

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._state[name]
        if not tensor.is_meta:
            return self._finished(name, tensor)
        # What several names share must be one tensor: that is how it is seen that it is to be written once.
        origin = self._stored.origin(name)
        if (made := self._made.get(origin)) is None:
            made = self._made[origin] = self._finished(name, self._stored[name])
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def _finished(self, name: str, tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float32 if self._keeps(name) else self._dtype)
        return tensor.clone() if tensor.nbytes < SMALL else self._spooled(tensor)

    def _keeps(self, name: str) -> bool:
        return any(f".{key}." in f".{name}." for key in self._kept)

    def _spooled(self, tensor: Tensor) -> Tensor:
        """The same, mapped from a file that goes when nobody holds the tensor any more."""
        path = self._spool / "tensor"
        tensor.contiguous().flatten().view(torch.uint8).numpy().tofile(path)
        mapped = torch.from_file(str(path), shared=False, size=tensor.numel(), dtype=tensor.dtype)
        path.unlink()
        return mapped.view(tensor.shape)
