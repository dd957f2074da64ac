"""How many floating-point operations training takes per sample: counted once, on a few samples of a run's own batch.

Counted is what the model must do, forward and backward: the matrix products, convolutions and attentions that torch
runs for encoders, projections and fusion, through all views that the method makes. What an option does twice
(micro-batches, activation checkpointing) counts once; the loss and the optimizer do not count. Backward, a product
costs as much again for each of its two factors that needs a gradient: below a frozen encoder nothing, at its border
half, and so on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.engine.engine import Engine

_SAMPLES = 4  # that are counted, at most
_ADDED = ("aten.addmm", "aten.baddbmm")  # their factors stand behind what is added
_ATTENTIONS = ("attention", "flex")


class NotCountedError(RuntimeError):
    """The operations could not be counted; the message says why."""


def training_flops(engine: Engine, batch: Batch, step: Step) -> float:
    """Operations per sample of a training step with this local batch; nothing of the engine changes.

    A collective under ZeRO-3: every rank must call it. Raises NotCountedError.
    """
    devices = [engine.device] if engine.device.type == "cuda" else []
    counter, training = _Counter(), engine.deepspeed.training
    with torch.random.fork_rng(devices=devices), torch.compiler.set_stance("force_eager"):
        engine.deepspeed.eval()  # no statistics move, and nothing is computed twice to save memory
        try:
            batch = engine.method.augmenter.training_inputs(batch.to(engine.device), step)
            batch = engine.method.prepare(batch, step)
            part = batch.split(len(batch) // _size(len(batch)))[0]
            with torch.enable_grad(), counter:
                engine.method.encode(engine.deepspeed, part)
        except Exception as error:
            raise NotCountedError(f"{type(error).__name__}: {error}") from error
        finally:
            engine.deepspeed.train(training)
    if counter.problem or not counter.total:
        raise NotCountedError(counter.problem or "the model runs no operation that torch can count")
    return counter.total / len(part)


def _size(batch: int) -> int:
    """Of what is counted: the largest divisor of the batch that is small."""
    return max(size for size in range(1, _SAMPLES + 1) if batch % size == 0)


class _Counter(TorchDispatchMode):
    """Adds up what the operations below it cost in training. problem: of the first that could not be counted."""

    def __init__(self) -> None:
        super().__init__()
        cpu: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        self._formulas = {**FlopCounterMode(display=False).flop_registry, cpu: _attention}
        self.total = 0.0
        self.problem: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count it."""
        kwargs = kwargs or {}
        formula = self._formulas.get(func._overloadpacket)
        if formula is None and func is not torch.ops.prim.device.default:
            with self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        made = func(*args, **kwargs)
        if formula is not None:
            try:
                self.total += formula(*args, **kwargs, out_val=made) * (1 + _backward(str(func._overloadpacket), args))
            except Exception as error:  # ranks that go on alone would wait for one another under ZeRO-3
                self.problem = self.problem or f"{func}: {error}"
        return made


def _backward(name: str, args: Any) -> int:
    """What going back costs, in multiples of the way there."""
    first = 1 if name in _ADDED else 0
    if any(word in name for word in _ATTENTIONS):
        return 2 if any(_learns(arg) for arg in args[:3]) else 0
    return sum(_learns(arg) for arg in args[first : first + 2])


def _learns(arg: Any) -> bool:
    return isinstance(arg, Tensor) and arg.requires_grad


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, out_val: Any = None, **__: Any) -> int:
    """torch has this formula for every device but the CPU."""
    return sdpa_flop_count(query.shape, key.shape, value.shape)
