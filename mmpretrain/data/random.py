"""Random numbers as a function of (seed, stream position, index), without any state.

Word k of position p under seed s is the k-th output of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) started at
mix(mix(s) + p). So a sample draws the same numbers in whatever batch, rank or order it comes; uniform numbers are the
same bits on every device, normal ones up to the device's logarithm and cosine.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_BITS = 24  # what float32 holds exactly


def uniform(seed: int, positions: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Numbers from [0, 1): float32 [b, *shape], on the device of ``positions`` (int64 [b]).

    seed: any integer, taken modulo 2^64; numbers under different seeds are independent of one another.
    """
    count = math.prod(shape)
    words = _words(seed, positions, -(-count // 2))
    halves = words.flatten().view(torch.int32).view(len(words), 2 * words.shape[1])[:, :count]
    numbers = (halves >> (32 - _BITS)).bitwise_and_((1 << _BITS) - 1).to(torch.float32).mul_(2.0**-_BITS)
    return numbers.reshape(len(positions), *shape)


def normal(seed: int, positions: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Standard normal numbers (Box and Muller): float32 [b, *shape]; arguments as of :func:`uniform`.

    Their absolute value is at most 5.8, the largest that 24 bits give.
    """
    count = math.prod(shape)
    draws = uniform(seed, positions, (-(-count // 2), 2))
    radius = draws[..., 0].add(2.0**-_BITS).log_().mul_(-2).sqrt_()  # the sum lies in (0, 1]
    angle = draws[..., 1].mul(2 * math.pi)
    both = torch.stack([angle.cos().mul_(radius), angle.sin().mul_(radius)], dim=-1)
    return both.flatten(1)[:, :count].reshape(len(positions), *shape)


def _words(seed: int, positions: Tensor, count: int) -> Tensor:
    """int64 [b, count]: 64 random bits each."""
    # Not a tensor of a number of the host, which would have to travel.
    start = _mix_(torch.full((1,), _signed(seed), dtype=torch.int64, device=positions.device))
    start = _mix_(start + positions)
    steps = torch.arange(1, count + 1, device=positions.device) * _signed(_GAMMA)
    return _mix_(start[:, None] + steps)


def _mix_(words: Tensor) -> Tensor:
    """The output function of SplitMix64, a bijection of 64 bits, in place."""
    scratch = torch.empty_like(words)
    for shift, factor in zip(_SHIFTS, (*_FACTORS, None), strict=True):
        # A shift to the right that fills with zeros, which int64 does not have.
        torch.bitwise_right_shift(words, shift, out=scratch)
        words ^= scratch.bitwise_and_((1 << (64 - shift)) - 1)
        if factor is not None:
            words *= _signed(factor)
    return words


def _signed(word: int) -> int:
    """The same 64 bits as a signed number, the only kind that torch multiplies."""
    word %= 1 << 64
    return word - (1 << 64) if word >> 63 else word
