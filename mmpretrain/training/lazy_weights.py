"""Weights that are read, cast and written through files, so that memory holds one tensor of them at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from mmpretrain.engine.checkpoint_weights import StoredWeights

SMALL = 2**14  # numbers; what has fewer stays in memory
CHUNK = 2**20  # numbers that are cast at a time


def placeholders(stored: StoredWeights) -> dict[str, Tensor]:
    """Name -> a tensor on the meta device that stands for the stored one of that name."""
    return {name: stored.like(name) for name in stored}


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
            return self._made_of([tensor.detach().flatten()], tensor, self._type(name, tensor.dtype))
        # What several names share must be one tensor: that is how it is seen that it is to be written once.
        origin = self._stored.origin(name)
        if (made := self._made.get(origin)) is None:
            made = self._made_of(self._stored.pieces(name), tensor, self._type(name, tensor.dtype))
            self._made[origin] = made
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def _type(self, name: str, stored: torch.dtype) -> torch.dtype:
        if not stored.is_floating_point:
            return stored
        kept = any(f".{key}." in f".{name}." for key in self._kept)
        return torch.float32 if kept else self._dtype

    def _made_of(self, pieces: Iterable[Tensor], like: Tensor, dtype: torch.dtype) -> Tensor:
        """A tensor of the shape of ``like``; a large one mapped from a file that goes when nobody holds it any more."""
        if like.numel() < SMALL:
            return torch.cat([piece.to(dtype, copy=True) for piece in pieces]).view(like.shape)
        path = self._spool / "tensor"
        with path.open("wb") as stream:
            for piece in pieces:
                for chunk in piece.split(CHUNK):
                    stream.write(chunk.to(dtype).view(torch.uint8).numpy())
        mapped = torch.from_file(str(path), shared=False, size=like.numel(), dtype=dtype)
        path.unlink()
        return mapped.view(like.shape)
