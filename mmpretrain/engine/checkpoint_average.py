"""The whole average of the weights out of a checkpoint of any ZeRO stage and number of ranks, one tensor at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmpretrain.engine.average import FILE
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.engine.checkpoint_weights import DelegatedWeights, StoredWeights
from mmpretrain.engine.live_weights import HEADS, MODEL


class AveragedWeights(DelegatedWeights):
    """As ``stored``, the average in the place of what it averages; frozen weights and buffers as they are.

    folder: of the checkpoint that was written by ``ranks`` ranks. Raises CheckpointError if it holds no average.
    """

    def __init__(self, stored: StoredWeights, folder: Path, ranks: int) -> None:
        super().__init__(stored)
        self._where: dict[str, list[Path]] = defaultdict(list)  # files in the order of ranks
        for path in (folder / FILE.format(rank) for rank in range(ranks)):
            for name in _names(path):
                self._where[name].append(path)
        if not self._where:
            raise CheckpointError(f"{folder} holds no average of the weights: its run has no averaging.ema")

    def pieces(self, name: str) -> Iterator[Tensor]:
        """See :class:`StoredWeights`."""
        key = f"{MODEL}{self.origin(name)}"
        if key not in self._where:
            yield from self._stored.pieces(name)
            return
        left = self.like(name).numel()
        for path in self._where[key]:
            with safe_open(path, framework="pt") as stored:
                piece: Tensor = stored.get_tensor(key)
            left -= piece.numel()
            yield piece
        if left:
            raise CheckpointError(f"the average of {name} has {left} numbers too few: the checkpoint is damaged")

    def heads(self) -> dict[str, Tensor]:
        """Flat tensors of the method's heads, by name."""
        found = {}
        for key in (key for key in self._where if key.startswith(HEADS)):
            with safe_open(self._where[key][0], framework="pt") as stored:
                found[key.removeprefix(HEADS)] = stored.get_tensor(key)
        return found


def _names(path: Path) -> list[str]:
    """The tensors in a rank's file; none where there is no such file (at stage 0 rank 0 alone writes)."""
    if not path.is_file():
        return []
    try:
        with safe_open(path, framework="pt") as stored:
            return list(stored.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}): take another checkpoint") from error
