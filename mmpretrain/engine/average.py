"""An exponential moving average of the weights under ZeRO 0-3: every rank averages the float32 numbers that it steps.

After each step: average = decay * average + (1 - decay) * weights. With the warm-up the decay after t steps is at most
(1 + t) / (10 + t), as in TensorFlow's ExponentialMovingAverage: a long memory would hold on to the start of short runs.
Parameters of the model and of the method's heads (the temperature, which ships) are averaged. Buffers are not: running
statistics are averages already, and those of the last step are used. Nor are critics, which do not ship.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.engine.live_weights import HEADS, Fragment, LiveWeights

FILE = "ema-{:05d}.safetensors"  # in a checkpoint's folder, by rank


def decay_after(steps: int, decay: float, *, warmup: bool) -> float:
    """The decay of the average after so many steps."""
    return min(decay, (1 + steps) / (10 + steps)) if warmup else decay


class Average:
    """The average of an engine's weights, which starts at what they are."""

    def __init__(self, live: LiveWeights, decay: float, *, warmup: bool) -> None:
        self._live, self._decay, self._warmup = live, decay, warmup
        self._numbers = {name: fragment.numbers.clone() for name, fragment in live.fragments().items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Take the weights after ``steps`` steps in."""
        fragments = self._live.fragments()
        if not self._numbers:
            return  # other ranks have all of the weights
        average = get_ema_multi_avg_fn(decay_after(steps, self._decay, warmup=self._warmup))
        average(list(self._numbers.values()), [fragments[name].numbers for name in self._numbers], steps)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The average in the place of the weights, which are put back to the last digit; a collective.

        After an error the average stays where it is: nothing goes on then, and ranks that failed would be waited for.
        """
        self._exchange()
        yield
        self._exchange()

    @torch.no_grad()
    def take(self) -> None:
        """Put the average in the place of the weights for good; a collective."""
        for name, fragment in self._live.fragments().items():
            fragment.numbers.copy_(self._numbers[name])
        self._live.refresh()

    @property
    def file(self) -> str:
        """The name of this rank's file in a checkpoint."""
        return FILE.format(self._live.rank)

    def kept(self) -> dict[str, Tensor] | None:
        """What this rank's file holds, the very tensors; None at stage 0, where all have the same, but on rank 0."""
        rank = self._live.rank
        if rank > 0 and self._live.stage == 0:
            return None
        return {name: t for name, t in self._numbers.items() if rank == 0 or not name.startswith(HEADS)}

    def load(self, folder: Path, ranks: int | None = None) -> None:
        """Go on from what the same number of ranks wrote at the same stage, or ``ranks`` ranks at any stage.

        Raises CheckpointError.
        """
        fragments = self._live.fragments()
        if ranks is not None:
            self._load_divided(folder, ranks, fragments)
            return
        own = folder / FILE.format(self._live.rank if self._live.stage else 0)
        of_model = {name: f for name, f in fragments.items() if not name.startswith(HEADS)}
        read = _read(own, of_model) | _read(
            folder / FILE.format(0), {n: fragments[n] for n in fragments if n not in of_model}
        )
        self._numbers = {name: read[name].to(fragment.numbers.device) for name, fragment in fragments.items()}

    def _load_divided(self, folder: Path, ranks: int, fragments: Mapping[str, Fragment]) -> None:
        """Out of fragments of other sizes: those of a parameter, in the order of ranks, are its numbers in order."""
        self._numbers = {name: torch.empty_like(fragment.numbers) for name, fragment in fragments.items()}
        behind, left = Counter[str](), Counter({name: f.numbers.numel() for name, f in fragments.items()})
        for path in (folder / FILE.format(rank) for rank in range(ranks)):
            if not path.is_file():
                continue  # a rank that held nothing, or stage 0, where rank 0 alone writes
            with _opened(path) as stored:
                for name in stored.keys():  # noqa: SIM118 - no mapping
                    piece = stored.get_slice(name)
                    size, start = piece.get_shape()[0], behind[name]
                    behind[name] += size
                    if name not in fragments:
                        continue
                    own, begin = self._numbers[name], fragments[name].start
                    low, high = max(start, begin), min(start + size, begin + own.numel())
                    if low < high:
                        own[low - begin : high - begin] = piece[low - start : high - start].to(own.device)
                        left[name] -= high - low
        if lacking := [name for name, count in left.items() if count]:
            raise CheckpointError(f"{folder} does not hold the average of {lacking[0]}: restore it")

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, fragment in self._live.fragments().items():
            kept = fragment.numbers.clone()
            fragment.numbers.copy_(self._numbers[name])
            self._numbers[name].copy_(kept)
        self._live.refresh()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as stored:
            yield stored
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} does not hold the average of this run's weights ({error}): restore it"
        ) from error


def _read(path: Path, wanted: Mapping[str, Fragment]) -> dict[str, Tensor]:
    """The tensors of these names and sizes. Raises CheckpointError."""
    found: dict[str, Tensor] = {}
    with _opened(path) as stored:
        for name, fragment in wanted.items():
            found[name] = stored.get_tensor(name)
            if found[name].shape != fragment.numbers.shape:
                raise CheckpointError(
                    f"{path} holds {found[name].numel()} numbers of {name} and this rank"
                    f" {fragment.numbers.numel()}: another engine wrote it; restore the checkpoint"
                )
    return found
