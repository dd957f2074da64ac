"""The weights that a run started from, kept in its folder: what trained weights are mixed with at the end.

Written once, at the run's first start, by rank 0, before DeepSpeed has the model: parameters that train, floating-point
buffers, and the method's heads; a file at a time, so that what is needed does not grow with the model. Ranks read their
own parts of it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmpretrain.distributed.world import World
from mmpretrain.engine.checkpoint_files import MANIFEST, CheckpointError, describe, find_problem, read_manifest
from mmpretrain.engine.live_weights import HEADS, MODEL
from mmpretrain.files import replace_text, sync

SHARD = 2**28  # bytes of a file


def write_start(folder: Path, model: nn.Module, heads: nn.Module, *, writes: bool = True) -> None:
    """Write the weights as they are now; an earlier attempt's files are replaced.

    writes: whether this rank does, as rank 0; of a model that is kept in parts the others must look at it as well.
    """
    tensors = dict(_tensors(model, heads))
    plan = split_state_dict_into_shards_factory(
        {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()},
        get_storage_size=int,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=SHARD,
    )
    writing = folder.with_suffix(".tmp")
    if writes:
        for leftover in (writing, folder):
            shutil.rmtree(leftover, ignore_errors=True)
        writing.mkdir(parents=True)
    for file, members in plan.filename_to_tensors.items():
        found = {}
        for name in members:
            numbers = tensors[name].detach()
            if writes:
                found[name] = numbers.reshape(-1).cpu().clone()
        if writes:
            save_file(found, writing / file)
    if writes:
        _commit(writing, folder, list(plan.filename_to_tensors), plan.tensor_to_filename)


def _commit(writing: Path, folder: Path, names: list[str], where: dict[str, str]) -> None:
    files = {name: describe(writing / name) for name in names}
    replace_text(writing / MANIFEST, json.dumps({"files": files, "where": where}, indent=1))
    sync(writing)
    os.rename(writing, folder)


def _tensors(model: nn.Module, heads: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """By the names of LiveWeights."""
    for prefix, module in ((MODEL, model), (HEADS, heads)):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                yield f"{prefix}{name}", parameter
    yield from float_buffers(model, heads).items()


def float_buffers(model: nn.Module, heads: nn.Module) -> dict[str, Tensor]:
    """Buffers that training may move (running statistics), by the names of LiveWeights."""
    found: dict[str, Tensor] = {}
    for prefix, module in ((MODEL, model), (HEADS, heads)):
        kept = module.state_dict(keep_vars=True).keys()
        found |= {f"{prefix}{n}": b for n, b in module.named_buffers() if b.is_floating_point() and n in kept}
    return found


class StartWeights:
    """What :func:`write_start` wrote. Raises CheckpointError, on every rank, if it is missing or damaged."""

    def __init__(self, folder: Path, world: World) -> None:
        self._folder = folder
        problem = find_problem(folder, world.rank, world.size)
        if world.max_flag(problem is not None):
            why = problem or "another rank found it damaged"
            raise CheckpointError(
                f"{folder} holds the weights that the run started from, which averaging.interpolate needs, and cannot"
                f" be used ({why}): restore it"
            )

    def __contains__(self, name: object) -> bool:
        return name in self._where

    def part(self, name: str, start: int, count: int) -> Tensor:
        """``count`` numbers of a tensor from number ``start``. Raises CheckpointError for a name that is not there."""
        if name not in self._where:
            raise CheckpointError(f"{self._folder} lacks {name}: it was not written by this run; restore it")
        with safe_open(self._folder / self._where[name], framework="pt") as stored:
            found: Tensor = stored.get_slice(name)[start : start + count]
        if found.numel() != count:
            raise CheckpointError(f"{self._folder} holds {name} in another size: restore it")
        return found

    @cached_property
    def _where(self) -> dict[str, str]:
        found: dict[str, str] = read_manifest(self._folder)["where"]
        return found
