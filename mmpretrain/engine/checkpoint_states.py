"""The whole state of what DeepSpeed trained, out of a checkpoint of any ZeRO stage and number of ranks: by name.

A rank asks for stretches of parameters and gets their numbers: weights in float32, and what the optimizer holds of
each. Files are opened one after another and mapped, so that nothing but those numbers is read. As in
checkpoint_weights.py, nothing of a file is run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.engine.checkpoint_weights import OPTIMIZER, SHARE, WHOLE, WINDOW, Content, open_safely

WEIGHT = "weight"
STEP = "step"


class Stretch(NamedTuple):
    """numbers: flat, of the parameter ``name``, from ``start`` on. key: ``WEIGHT``, or what the optimizer calls it."""

    name: str
    key: str
    start: int
    numbers: Tensor


class StoredStates:
    """Of a checkpoint's ``folder`` of DeepSpeed, which ``ranks`` ranks wrote.

    order: the names of the parameters that the optimizer trains, in the order of its groups; only stage 0, which
    numbers them, needs it. buffers: by name. counters: DeepSpeed's own numbers of steps. step: the optimizer's.
    Raises CheckpointError where files are missing or hold something else.
    """

    def __init__(self, folder: Path, ranks: int, order: Sequence[str]) -> None:
        self.folder, self.ranks, self.order = folder, ranks, order
        self.whole = (folder / WHOLE).is_file()
        first = open_safely(folder / WHOLE if self.whole else folder / SHARE.format(0))
        self.divided = first.get("optimizer") is None  # otherwise stage 0: every rank has all of it
        self.counters = {key: first[key] for key in ("global_steps", "global_samples", "skipped_steps")}
        names = set(first["buffer_names"])
        self.buffers: dict[str, Tensor] = {n: t.clone() for n, t in first["module"].items() if n in names}
        trained = (item for group in first["param_shapes"] or [] for item in group.items())
        self.trained = {name: shape.numel() for name, shape in trained}
        self.frozen = {name: shape.numel() for name, shape in (first["frozen_param_shapes"] or {}).items()}
        state = _state(open_safely(folder / OPTIMIZER.format(0)) if self.divided else first)["state"]
        self.step = max((float(held[STEP]) for held in state.values() if STEP in held), default=0.0)

    def stretches(self, wanted: Mapping[str, range]) -> Iterator[Stretch]:
        """The numbers of these parameters that lie in these ranges; use each before the next is asked for."""
        if self.whole:
            file = _Mapped(self.folder / WHOLE)
            for name, span in wanted.items():
                yield Stretch(name, WEIGHT, span.start, file.read(_at("module", name), span))
            yield from self._slices(wanted) if self.divided else self._numbered(file, wanted)
        else:
            yield from self._shares(wanted)

    def _numbered(self, file: _Mapped, wanted: Mapping[str, range]) -> Iterator[Stretch]:
        """Stage 0: states by the numbers of parameters, in their shapes."""
        groups = _state(file.content)["param_groups"]
        numbers = [number for group in groups for number in group["params"]]
        if len(numbers) != len(self.order):
            raise CheckpointError(
                f"{self.folder} holds the optimizer's states of {len(numbers)} parameters and this run trains"
                f" {len(self.order)}: the checkpoint was not written by this run"
            )
        for name, number in zip(self.order, numbers, strict=True):
            if name in wanted:
                for key in _keys(_state(file.content)["state"].get(number, {})):
                    found = file.read(_state_at(number, key), wanted[name])
                    yield Stretch(name, key, wanted[name].start, found)

    def _slices(self, wanted: Mapping[str, range]) -> Iterator[Stretch]:
        """Stages 1 and 2: each rank's flat partitions, with a table of what lies where in them."""
        behind: dict[str, int] = defaultdict(int)  # numbers of a parameter that earlier ranks hold
        for rank in range(self.ranks):
            file = _Mapped(self.folder / OPTIMIZER.format(rank))
            tables = file.content["optimizer_state_dict"]["param_slice_mappings"]
            for group, table in enumerate(tables):
                for name, address in table.items():
                    span, start = range(address.start, address.start + address.numel), behind[name]
                    behind[name] += address.numel
                    yield from _held(file, group, name, span, start, wanted.get(name))

    def _shares(self, wanted: Mapping[str, range]) -> Iterator[Stretch]:
        """Stage 3: of every parameter each rank holds equally many numbers, those that train in flat groups."""
        sizes = [ceil(count / self.ranks) for count in self.trained.values()]
        starts = dict(zip(self.trained, accumulate(sizes, initial=0), strict=False))
        for rank in range(self.ranks):
            if trained := self._of_rank(rank, wanted, self.trained):
                yield from self._share(_Mapped(self.folder / OPTIMIZER.format(rank)), trained, starts)
            if frozen := self._of_rank(rank, wanted, self.frozen):
                file = _Mapped(self.folder / SHARE.format(rank))
                for name, (own, span) in frozen.items():
                    inside = range(span.start - own.start, span.stop - own.start)
                    found = file.read(_at("frozen_param_fragments", name), inside)
                    yield Stretch(name, WEIGHT, span.start, found)

    def _of_rank(
        self, rank: int, wanted: Mapping[str, range], sizes: Mapping[str, int]
    ) -> dict[str, tuple[range, range]]:
        """Of the parameters with these ``sizes``: what the rank wrote (without padding), and what of it is wanted."""
        found: dict[str, tuple[range, range]] = {}
        for name, span in wanted.items():
            if name in sizes:
                part = ceil(sizes[name] / self.ranks)
                own = range(rank * part, min((rank + 1) * part, sizes[name]))
                common = range(max(own.start, span.start), min(own.stop, span.stop))
                found |= {name: (own, common)} if len(own) and len(common) else {}
        return found

    def _share(
        self, file: _Mapped, wanted: Mapping[str, tuple[range, range]], starts: Mapping[str, int]
    ) -> Iterator[Stretch]:
        """A rank's part of a parameter may begin in one of its flat groups and end in another."""
        bounds = list(accumulate((group.numel() for group in _flat_groups(file.content)), initial=0))
        for name, (own, span) in wanted.items():
            for group, (low, high) in enumerate(pairwise(bounds)):
                begin, end = max(low, starts[name]), min(high, starts[name] + len(own))
                if begin < end:
                    start = own.start + begin - starts[name]
                    yield from _held(file, group, name, range(begin - low, end - low), start, span)


class _Mapped:
    """A file, mapped, and mapped anew before too much of what was read stays in memory."""

    def __init__(self, path: Path) -> None:
        self.path, self.content, self._read = path, open_safely(path), 0

    def read(self, find: Callable[[Content], Tensor], span: range) -> Tensor:
        """These numbers of a tensor in the file. Raises CheckpointError if it has none such."""
        if self._read > WINDOW:
            self._read, self.content = 0, {}
            self.content = open_safely(self.path)
        try:
            found = find(self.content).detach().reshape(-1)[span.start : span.stop]
        except (KeyError, IndexError, AttributeError) as error:
            raise CheckpointError(f"{self.path} lacks {error}: the checkpoint was not written by this run") from error
        self._read += found.nbytes
        return found


def _held(file: _Mapped, group: int, name: str, span: range, start: int, wanted: range | None) -> Iterator[Stretch]:
    """What of ``wanted`` a flat group holds: weights and states. span: where in the group a fragment of the parameter
    lies, of which ``start`` is the first number."""
    if wanted is None:
        return
    low, high = max(start, wanted.start), min(start + len(span), wanted.stop)
    if low >= high:
        return
    inside = range(span.start + low - start, span.start + high - start)
    if "fp32_flat_groups" in file.content["optimizer_state_dict"]:
        yield Stretch(name, WEIGHT, low, file.read(lambda held: _flat_groups(held)[group], inside))
    for key in _keys(_state(file.content)["state"].get(group, {})):
        yield Stretch(name, key, low, file.read(_state_at(group, key), inside))


def _at(part: str, name: str) -> Callable[[Content], Tensor]:
    return lambda held: held[part][name]


def _state_at(number: int, key: str) -> Callable[[Content], Tensor]:
    return lambda held: _state(held)["state"][number][key]


def _flat_groups(content: Content) -> list[Tensor]:
    found: list[Tensor] = content["optimizer_state_dict"]["fp32_flat_groups"]
    return found


def _state(content: Content) -> dict[str, Any]:
    """torch's own form of the optimizer's state, wherever the stage puts it."""
    held = content.get("optimizer") or content["optimizer_state_dict"]
    found: Any = held.get("base_optimizer_state") or held.get("optimizer_state_dict") or held
    if not isinstance(found, dict) or "state" not in found:
        raise CheckpointError(
            "the checkpoint holds the optimizer's state in a form of engine.deepspeed.zero_optimization that only the"
            " same ranks can read: go on with the size and settings that it was written with"
        )
    return found


def _keys(held: Mapping[str, Any]) -> list[str]:
    """The states that are as large as their parameter."""
    return [key for key, value in held.items() if torch.is_tensor(value) and key != STEP]
