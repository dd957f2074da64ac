"""Muon for hidden matrices and AdamW for the rest, in one optimizer, over whole parameters or over ZeRO's partitions.

Muon (https://kellerjordan.github.io/posts/muon/): the momentum of a matrix's gradient, made orthogonal, is its update.
Momentum goes number by number, so every rank keeps that of its own part, as Adam's state. Making it orthogonal takes
the whole matrix: those that a rank holds whole it does alone, and parts of others travel to one rank and back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import _muon

from mmpretrain.config.engine import OptimConfig
from mmpretrain.distributed.world import World
from mmpretrain.engine.partitions import Piece

EPS = 1e-7  # torch's
COEFFICIENTS = (_muon.DEFAULT_A, _muon.DEFAULT_B, _muon.DEFAULT_C)


class MuonAdamW(torch.optim.AdamW):
    """torch.optim.Muon for groups with ``matrices``, torch.optim.AdamW, fused, for the others.

    Parameters of groups with ``matrices`` are matrices, or flat partitions that :meth:`divide` has described.
    """

    def __init__(self, groups: list[dict], config: OptimConfig) -> None:
        super().__init__(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), eps=config.eps, fused=True)
        self._config = config
        self._world = World.single()
        self._pieces: dict[Tensor, list[Piece]] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """After loading a state; Adam's own form adds what older versions of torch lack, and asks each for its step."""
        torch.optim.Optimizer.__setstate__(self, state)

    def divide(self, pieces: dict[Tensor, list[Piece]], world: World) -> None:
        """From now on the parameters are these flat partitions, stepped in the same order on all ranks."""
        self._pieces, self._world = pieces, world

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step by the gradients in ``.grad``. Under ZeRO a collective. No closure is called."""
        groups = self.param_groups
        # Put back in any case: DeepSpeed and checkpoints look at them.
        try:
            self.param_groups = [group for group in groups if not group["matrices"]]
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group["matrices"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, group["lr"], group["weight_decay"])

    def _move(self, parameter: Tensor, lr: float, decay: float) -> None:
        direction = self._direction(parameter)
        parameter.mul_(1 - lr * decay)
        if parameter.ndim == 2:
            update = self._orthogonal(direction, parameter.shape)
            parameter.add_(update, alpha=-self._rate(lr, parameter.shape))
            return
        for piece, update in self._updates(self._pieces[parameter], direction):
            parameter[piece.place].add_(update, alpha=-self._rate(lr, piece.shape))

    def _direction(self, parameter: Tensor) -> Tensor:
        """The momentum that is to be made orthogonal, of the parameter's shape."""
        state, gradient, momentum = self.state[parameter], parameter.grad, self._config.muon_momentum
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum) if self._config.muon_nesterov else buffer

    def _updates(self, pieces: Sequence[Piece], direction: Tensor) -> list[tuple[Piece, Tensor]]:
        """The update of every part that lies in this rank's flat ``direction``."""
        found = [
            (piece, self._orthogonal(direction[piece.place].view(piece.shape), piece.shape).flatten())
            for piece in pieces
            if piece.whole
        ]
        divided = [piece for piece in pieces if piece.divided]
        size = self._world.size
        for start in range(0, len(divided), size):
            batch = divided[start : start + size]
            found += zip(batch, self._travelled(batch, direction), strict=True)
        return found

    def _travelled(self, batch: Sequence[Piece], direction: Tensor) -> list[Tensor]:
        """Rank j makes matrix j of at most W whole, and gives each rank its part back: [n] for each."""
        rank, size = self._world.rank, self._world.size
        own = batch[rank] if rank < len(batch) else None
        away = [piece.shares[rank].numel for piece in batch] + [0] * (size - len(batch))
        here = [share.numel for share in own.shares] if own else [0] * size
        sent = torch.cat([direction[piece.place] for piece in batch])
        parts = self._world.all_to_all(sent, away, here)
        if own:
            # Ranks hold a matrix's rows in their order, so what they sent is the matrix.
            parts = self._orthogonal(parts.view(own.shape), own.shape).flatten().to(direction.dtype)
        return list(self._world.all_to_all(parts, here, away).split(away[: len(batch)]))

    def _orthogonal(self, matrix: Tensor, shape: torch.Size) -> Tensor:
        return _muon._zeropower_via_newtonschulz(matrix.view(shape), COEFFICIENTS, self._config.muon_ns_steps, EPS)

    def _rate(self, lr: float, shape: torch.Size) -> float:
        return _muon._adjust_lr(lr, self._config.muon_adjust.value, shape)
