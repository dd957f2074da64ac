"""What a checkpoint holds: bytes of tensors exactly, of files nearly (names and headers are a few hundred per tensor).

At stages 0 to 2 rank 0 writes the weights; at 1 to 3 every rank writes its part of what is stepped, at 0 rank 0 alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mmpretrain.config.root import Config
from mmpretrain.training.prediction.layout import FULL, Group, Layout, bytes_of, share

_PER_TENSOR = 330  # bytes that a file needs beside a tensor's numbers
_PER_RANK = 9_000  # that a rank's file needs in any case: settings of DeepSpeed and of the optimizer
_SCRIPTS = 41_000  # that DeepSpeed puts beside the parts of ranks


@dataclass(frozen=True)
class Checkpoint:
    """Bytes of one checkpoint. tensors: of all in it. files: about what it takes on the disk. first, other: what rank 0
    writes of that, and each other rank at most. release: about what the release takes."""

    tensors: int
    files: int
    first: int
    other: int
    release: int


def checkpoint(
    config: Config, layout: Layout, model: nn.Module, beside: tuple[nn.Module, nn.Module], ranks: int
) -> Checkpoint:
    """What a checkpoint of ``model`` holds. beside: heads and critics."""
    stage = config.engine.zero
    buffers = _persistent(model)
    count = sum(len(group.parameters) for group in layout.groups)
    frozen, averaged = bytes_of(layout.frozen), config.averaging.ema is not None
    heads = sum(_with_states(module) for module in beside)
    average_of_heads = bytes_of([p for p in beside[0].parameters() if p.requires_grad]) if averaged else 0
    if stage == 0:
        states = sum(group.states * FULL * group.numel for group in layout.groups)
        steps = FULL * sum(len(group.parameters) for group in layout.groups if not group.matrices)
        first = FULL * layout.trained + frozen + buffers + states + steps + averaged * FULL * layout.trained
        around = (4 + averaged) * count * _PER_TENSOR
        return _checkpoint(first + heads + average_of_heads, 0, around, 0, model, ranks)
    part = sum(_part(stage, group, ranks) * FULL * (1 + group.states) for group in layout.groups)
    part += FULL * sum(not group.matrices for group in layout.groups)
    weights = 0
    if stage == 3:
        part += buffers + FULL * sum(share(parameter, ranks) for parameter in layout.frozen)
    else:
        weights = FULL * sum(group.aligned(ranks) for group in layout.groups) + frozen + buffers
    # The average is divided as the weights are, without padding.
    average = FULL * layout.trained if averaged else 0
    own = average // ranks
    first = weights + part + heads + average_of_heads + average - own * (ranks - 1)
    # At stage 3 every rank lists all weights; else rank 0 does, and the others those of their part.
    listed = count if stage == 3 else -(-count // ranks)
    here, there = 2 * count * _PER_TENSOR, 2 * listed * _PER_TENSOR + _PER_RANK
    return _checkpoint(first, part + own, here, there, model, ranks)


def _checkpoint(first: int, other: int, here: int, there: int, model: nn.Module, ranks: int) -> Checkpoint:
    """first, other: bytes of tensors of rank 0 and of each other one. here, there: what files need around them."""
    written = first + here + _SCRIPTS, other + there
    release = bytes_of(list(model.state_dict().values()))
    return Checkpoint(first + (ranks - 1) * other, written[0] + (ranks - 1) * written[1], *written, release)


def _part(stage: int, group: Group, ranks: int) -> int:
    return group.shares(ranks) if stage == 3 else group.aligned(ranks) // ranks


def _persistent(model: nn.Module) -> int:
    """Bytes of the buffers that are saved."""
    names = {name for name, _ in model.named_buffers()}
    return bytes_of([tensor for name, tensor in model.state_dict().items() if name in names])


def _with_states(module: nn.Module) -> int:
    """Bytes of a replicated module and its optimizer's state."""
    trained: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
    return bytes_of(list(module.state_dict().values())) + 2 * bytes_of(trained) + FULL * len(trained)
