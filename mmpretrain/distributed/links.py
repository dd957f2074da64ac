"""Whether every rank reaches its peers, how fast, and whether what arrives is what was sent.

In round s each rank sends to the rank s places after it and hears from the one s places before it, so that all links of
a round are used at once and nobody waits for its turn. Up to :data:`EVERYBODY` ranks meet everybody; more meet about
2 log2(ranks) others each, so that the time stays bounded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from mmpretrain.distributed.world import World

EVERYBODY = 33  # ranks
SENT = 1_000_000  # numbers of 4 bytes in a message that is timed
FIRST = 16  # numbers in the one before it, which makes the connection
TIMES = 2  # the better one counts: another process may hold a core for a moment
POLL_S = 0.001


class LinkError(RuntimeError):
    """Something did not arrive, or not as it was sent."""


def rounds(size: int, per_node: int) -> list[int]:
    """The distances at which ranks meet: all, or powers of two in ranks and in nodes."""
    if size <= EVERYBODY:
        return list(range(1, size))
    powers = [2**power for power in range(size.bit_length())]
    distances = {step for power in powers for step in (power, power * per_node)}
    return sorted(step for step in distances if step < size)


def meet_all(world: World, end: float) -> float:
    """A sum over all ranks, checked; the time (seconds since 1970) at which it was there, the same moment everywhere.

    end: of the patience, by ``time.monotonic``. Raises LinkError.
    """
    values = torch.arange(FIRST, device=world.device) + world.rank
    expected = torch.arange(FIRST, device=world.device) * world.size + world.size * (world.size - 1) // 2
    if world.size > 1:
        with _told("a sum over all ranks"):
            _finish([dist.all_reduce(values, group=world.group, async_op=True)], world.device, end)
    if not torch.equal(values, expected):
        raise LinkError("a sum over all ranks came out wrong")
    return time.time()


def measure(world: World, distance: int, end: float) -> float:
    """Send to the rank ``distance`` after this one and hear from the one before: MB (10^6 bytes) per second that came.

    Raises LinkError. end: as for :func:`meet_all`.
    """
    _trade(world, distance, FIRST, end)
    message, received = _message(world.rank, SENT, world.device), _room(SENT, world.device)
    seconds = min(_timed(world, distance, end, message, received) for _ in range(TIMES))
    if not torch.equal(received, _message((world.rank - distance) % world.size, SENT, world.device)):
        raise LinkError("what arrived is not what was sent")
    return received.nbytes / 1e6 / seconds


def _timed(world: World, distance: int, end: float, message: Tensor, received: Tensor) -> float:
    began = time.perf_counter()
    _trade(world, distance, SENT, end, message, received)
    return time.perf_counter() - began


def _trade(
    world: World, distance: int, numbers: int, end: float, message: Tensor | None = None, received: Tensor | None = None
) -> None:
    message = _message(world.rank, numbers, world.device) if message is None else message
    received = _room(numbers, world.device) if received is None else received
    source, target = (world.rank - distance) % world.size, (world.rank + distance) % world.size
    operations = [
        dist.P2POp(dist.irecv, received, group=world.group, group_peer=source),
        dist.P2POp(dist.isend, message, group=world.group, group_peer=target),
    ]
    with _told("nothing arrived, or could be sent"):
        _finish(dist.batch_isend_irecv(operations), world.device, end)


def _finish(works: Sequence[dist.Work | None], device: torch.device, end: float) -> None:
    """Wait for all, on the host. A GPU's collective is asked instead: waiting for it would end with the process."""
    for work in filter(None, works):
        if device.type == "cpu":
            work.wait(timedelta(seconds=max(end - time.monotonic(), 0.001)))
            continue
        while not work.is_completed():
            if time.monotonic() > end:
                raise RuntimeError("no answer in time")
            time.sleep(POLL_S)
        work.wait()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What torch raises, when a collective is started already, as a LinkError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise LinkError(f"{what}: {reason}") from error


def _message(rank: int, numbers: int, device: torch.device) -> Tensor:
    """[numbers] that tell who sent them, int32."""
    return torch.arange(numbers, dtype=torch.int32, device=device) * 40503 + rank


def _room(numbers: int, device: torch.device) -> Tensor:
    return torch.empty(numbers, dtype=torch.int32, device=device)
