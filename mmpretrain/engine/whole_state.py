"""A model's whole weights on rank 0, of which memory holds one tensor at a time: large ones lie in nameless files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

SMALL = 2**14  # numbers; what has fewer stays in memory


def gathered_state(deepspeed: Any, spool: Path | None, *, keeps: bool) -> dict[str, Tensor] | None:
    """The weights of a model that ZeRO-3 has divided, by name, on the CPU; a collective.

    deepspeed: its engine. spool: a folder on a disk with room for them; None: they stay in memory. keeps: whether this
    rank wants them; None comes back where it does not. What has several names is one tensor under all of them.
    """
    from deepspeed import zero

    # What a forward pass has asked for ahead, for layers that did not come, would be in the way.
    deepspeed.optimizer._partition_all_parameters()
    module: nn.Module = deepspeed.module
    found: dict[str, Tensor] = {}
    known: dict[int, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        divided: list[Any] = [tensor] if hasattr(tensor, "ds_id") and id(tensor) not in known else []
        with zero.GatheredParameters(divided, enabled=bool(divided)):
            if keeps and id(tensor) not in known:
                known[id(tensor)] = on_disk(tensor.detach().cpu(), spool)
        if keeps:
            found[name] = known[id(tensor)]
    return found if keeps else None


def on_disk(tensor: Tensor, spool: Path | None) -> Tensor:
    """A copy of a tensor on the CPU; a large one mapped from a file in ``spool`` that goes with it."""
    if spool is None or tensor.numel() < SMALL:
        return tensor.clone()
    path = spool / ".tensor"
    flat = tensor.contiguous().view(-1)
    with path.open("wb") as stream:
        for chunk in flat.split(2**20):
            stream.write(chunk.view(torch.uint8).numpy())
    # Shared with the file: its pages are no memory of this process, and can be written out at any time.
    mapped = torch.from_file(str(path), shared=True, size=flat.numel(), dtype=flat.dtype)
    path.unlink()
    return mapped.view(tensor.shape)
