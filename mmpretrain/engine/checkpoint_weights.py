"""The model's whole weights out of a checkpoint of any ZeRO stage and number of ranks: by name, one at a time.

One process reads what any number of ranks wrote; DeepSpeed is not started. Files are opened by torch's weights-only
unpickler, which builds tensors and plain containers: the three classes of DeepSpeed that a file may name become others
(two of them empty), any other is refused, and nothing of a file is ever run.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import safe_globals

from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.problems import one_line

WHOLE = "mp_rank_00_model_states.pt"
SHARE = "zero_pp_rank_{}_mp_rank_00_model_states.pt"
OPTIMIZER = "zero_pp_rank_{}_mp_rank_00_optim_states.pt"
WINDOW = 256 * 2**20  # bytes that are read before the pages of the files are given back

Content = dict[str, Any]


class _Nothing:
    """In the place of a class of DeepSpeed: takes what it is given, and forgets it."""

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _Address:
    """In the place of DeepSpeed's: where in a flat partition a parameter's fragment lies (``start``, ``numel``)."""

    start: int
    numel: int

    def __setstate__(self, state: Mapping[str, int]) -> None:
        self.start, self.numel = int(state["start"]), int(state["numel"])


_STAND_INS = {
    "deepspeed.runtime.zero.config.ZeroStageEnum": _Nothing,
    "deepspeed.runtime.fp16.loss_scaler.LossScaler": _Nothing,
    "deepspeed.utils.tensor_fragment.fragment_address": _Address,
}


def stored_weights(folder: Path, world_size: int) -> StoredWeights:
    """The weights in ``folder``, where DeepSpeed wrote its files, from ``world_size`` ranks.

    Raises CheckpointError when files are missing or hold something else.
    """
    if (folder / WHOLE).is_file():
        return WholeWeights([folder / WHOLE])
    return SharedWeights(
        [folder / SHARE.format(rank) for rank in range(world_size)],
        [folder / OPTIMIZER.format(rank) for rank in range(world_size)],
    )


class StoredWeights(Mapping[str, Tensor]):
    """Name -> tensor on the CPU as it was trained, read when it is asked for; files are mapped, not loaded.

    What is read shares its memory with the files' mapping, which is renewed from time to time: use it before the next,
    or copy it.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.contents = [open_safely(path) for path in files]
        self._read = 0

    def __getitem__(self, name: str) -> Tensor:
        size = self.like(name).shape
        pieces = list(self.pieces(name))
        return (torch.cat(pieces) if len(pieces) > 1 else pieces[0]).view(size)

    def pieces(self, name: str) -> Iterator[Tensor]:
        """The numbers of a tensor in order, as they lie in the files: flat tensors."""
        raise NotImplementedError

    def like(self, name: str) -> Tensor:
        """A tensor of the same shape and type on the meta device."""
        raise NotImplementedError

    def origin(self, name: str) -> str:
        """The first of all names of the same tensor."""
        raise NotImplementedError

    def counted(self, tensor: Tensor) -> Tensor:
        """``tensor``, which the caller now reads; before too much is mapped, all is opened anew."""
        self._read += tensor.nbytes
        return tensor

    def renewed(self) -> None:
        """Give back the pages that were read, if they are many."""
        if self._read > WINDOW:
            self._read = 0
            self.contents = []
            self.contents = [open_safely(path) for path in self.files]


class DelegatedWeights(StoredWeights):
    """As other stored weights, but for their numbers, which a class below decides (``pieces``)."""

    def __init__(self, stored: StoredWeights) -> None:
        self._stored = stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def like(self, name: str) -> Tensor:
        """See :class:`StoredWeights`."""
        return self._stored.like(name)

    def origin(self, name: str) -> str:
        """See :class:`StoredWeights`."""
        return self._stored.origin(name)


class WholeWeights(StoredWeights):
    """Of ZeRO 0 to 2, whose every rank holds the whole model: rank 0 wrote it."""

    def pieces(self, name: str) -> Iterator[Tensor]:
        """See :class:`StoredWeights`."""
        self.renewed()
        yield self.counted(self._module[name].flatten())

    def __iter__(self) -> Iterator[str]:
        return iter(self._module)

    def __len__(self) -> int:
        return len(self._module)

    def like(self, name: str) -> Tensor:
        """See :class:`StoredWeights`."""
        return self._module[name].to("meta")

    def origin(self, name: str) -> str:
        """See :class:`StoredWeights`."""
        tensor = self._module[name]
        same = (other for other, found in self._module.items() if found.data_ptr() == tensor.data_ptr())
        return next((other for other in same if self._module[other].shape == tensor.shape), name)

    @property
    def _module(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.contents[0]["module"]
        return found


class SharedWeights(StoredWeights):
    """Of ZeRO 3: every rank wrote 1/W of each parameter, padded; those that train lie in its optimizer's flat groups.

    shares: the ranks' own files. optimizers: theirs of the optimizer.
    """

    def __init__(self, shares: Sequence[Path], optimizers: Sequence[Path]) -> None:
        super().__init__([*shares, *optimizers])
        self.ranks = len(shares)
        first = self.contents[0]
        self.frozen: dict[str, torch.Size] = dict(first["frozen_param_shapes"] or {})
        self.trained = {name: shape for group in first["param_shapes"] for name, shape in group.items()}
        # One parameter under two names: the second is another way to the first.
        self.aliases = {alias: name for alias, name in dict(first["shared_params"]).items() if name != alias}
        self.buffers = [name for name in first["module"] if name in set(first["buffer_names"])]
        sizes = [_part(shape, self.ranks) for shape in self.trained.values()]
        self.starts = dict(zip(self.trained, accumulate(sizes, initial=0), strict=False))
        self._check(sum(sizes))

    def pieces(self, name: str) -> Iterator[Tensor]:
        """See :class:`StoredWeights`; the padding at the end is left out."""
        self.renewed()
        name = self.origin(name)
        left = self.like(name).numel()
        if name in self.buffers:
            yield self.counted(self.contents[0]["module"][name].flatten())
            return
        for rank in range(self.ranks):
            for part in self._parts(rank, name):
                yield self.counted(part[:left])
                left -= min(left, part.numel())

    def __iter__(self) -> Iterator[str]:
        known = {*self.frozen, *self.trained, *self.buffers, *self.aliases}
        return (name for name in self.contents[0]["module"] if name in known)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def like(self, name: str) -> Tensor:
        """See :class:`StoredWeights`."""
        name = self.origin(name)
        if name in self.buffers:
            found: Tensor = self.contents[0]["module"][name].to("meta")
            return found
        return torch.empty((self.frozen | self.trained)[name], device="meta")

    def origin(self, name: str) -> str:
        """See :class:`StoredWeights`."""
        return self.aliases.get(name, name)

    def _parts(self, rank: int, name: str) -> Iterator[Tensor]:
        """A rank's part of a parameter, which may begin in one of its flat groups and end in another."""
        if name in self.frozen:
            yield self.contents[rank]["frozen_param_fragments"][name].flatten()
            return
        groups = self._groups(rank)
        bounds = list(accumulate((group.numel() for group in groups), initial=0))
        start, left = self.starts[name], _part(self.trained[name], self.ranks)
        while left:
            number = bisect_right(bounds, start) - 1
            offset = start - bounds[number]
            part = groups[number][offset : offset + left]
            yield part
            start, left = start + part.numel(), left - part.numel()

    def _groups(self, rank: int) -> list[Tensor]:
        found: list[Tensor] = self.contents[self.ranks + rank]["optimizer_state_dict"]["fp32_flat_groups"]
        return found

    def _check(self, wanted: int) -> None:
        for rank in range(self.ranks):
            held = sum(group.numel() for group in self._groups(rank))
            if held != wanted:
                raise CheckpointError(
                    f"{self.files[self.ranks + rank]} holds {held} numbers and the model's share is {wanted}: the"
                    " checkpoint was not written by this engine"
                )


def open_safely(path: Path) -> Content:
    """What a file of a checkpoint holds, its tensors mapped. Raises CheckpointError for a missing file and for one that
    names any other class."""
    names: list[Any] = [(stand_in, name) for name, stand_in in _STAND_INS.items()]
    try:
        with safe_globals(names):
            found: Content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: the checkpoint was not written by this engine") from error
    except Exception as error:  # a damaged file raises whatever its parser raises
        raise CheckpointError(f"{path} cannot be read ({one_line(error)}): take another checkpoint") from error
    return found


def _part(shape: torch.Size, ranks: int) -> int:
    return math.ceil(shape.numel() / ranks)
