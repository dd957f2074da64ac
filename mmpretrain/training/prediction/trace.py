"""What encoding a batch and going back holds in memory: one step of the encoders on tensors without content.

Shapes and types are those of the run, the operations too, but nothing is computed and nothing is allocated. Encoders
run as on CPUs; of GPUs two things are known and done as there: attention kernels need no room for dropout, and
autocast keeps norms and softmaxes in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mmpretrain.assembly.training_options import set_options
from mmpretrain.config.model import AttentionKernel
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.losses.similarity import at_least_float32
from mmpretrain.methods.base import Features, Method
from mmpretrain.training.prediction.counting import LiveBytes
from mmpretrain.training.prediction.layout import FULL, Layout, autocast_type, bytes_of
from mmpretrain.training.prediction.made_up import with_rows
from mmpretrain.training.prediction.reduction import Reduction


@dataclass(frozen=True)
class Traced:
    """Bytes on one rank, beyond weights and what the optimizer keeps.

    inputs: of the batch on the device. held: activations at the end of the forward pass. forward, backward: the most
    at any moment of the two passes; backward with the gradients as the engine keeps them: ``arrived`` when the pass
    ends, ``gradients`` once they are reduced. features: what the objective gets, float32 [b, D]. outputs: of one
    micro-batch, without content. calls: of the model in a forward pass.
    """

    inputs: int
    held: int
    forward: int
    backward: int
    arrived: int
    gradients: int
    features: int
    outputs: Features
    calls: int


class NotTracedError(RuntimeError):
    """The encoders do not run without content; the message says why."""


def traced(config: Config, method: Method, layout: Layout, batch: Batch, rows: int, ranks: int, gpu: bool) -> Traced:
    """One step of ``method`` with ``rows`` samples per rank. Raises NotTracedError.

    method: its model on the meta device, which is spoiled for other uses. batch: a prepared one of few rows.
    """
    fake = FakeTensorMode()
    _set_options(config, method.model)
    places = _without_content(method.model, fake)
    linear = _linear_of_stage_3() if config.engine.zero == 3 else nullcontext()
    try:
        with fake, linear, torch.random.fork_rng(devices=[]), torch.compiler.set_stance("force_eager"):
            return _step(config, method, Reduction(config, layout, places, ranks, gpu), with_rows(batch, rows), gpu)
    except Exception as error:  # An encoder may look at values, and refuses in its own way.
        lines = str(error).strip().splitlines() or [""]
        raise NotTracedError(f"{type(error).__name__}: {lines[0]}") from error


def _step(config: Config, method: Method, reduction: Reduction, batch: Batch, gpu: bool) -> Traced:
    live, count = LiveBytes(), config.engine.micro_batches
    parts = batch.split(count)
    given = [t for nest in (batch.inputs, *batch.views.values()) for tensors in nest.values() for t in tensors.values()]
    live.leave_out([*given, *method.model.parameters(), *method.model.buffers()])
    calls: list[int] = []
    method.model.register_forward_pre_hook(lambda *_: calls.append(1))
    with live:
        first = 0
        if count > 1:
            with torch.no_grad():
                _encoded(config, method, parts[0], gpu)
            first = live.peak
            live.restart()
        features: Features | None = _encoded(config, method, parts[0], gpu)
        assert features is not None
        outputs = features
        several = len(calls) // (1 + (count > 1))
        held, forward = live.now, max(first, live.peak)
        live.restart()
        width = sum(tensor.numel() // len(parts[0]) for tensor in features.tensors)
        for last in [False] * (count > 1) + [True]:
            features = features or _encoded(config, method, parts[0], gpu)
            with reduction.backward(last=last):
                _product(features).backward()
            features = None
        backward, gradients = live.peak, live.now - bytes_of(outputs.tensors)
    inputs, made = bytes_of(given), FULL * width * len(batch)
    return Traced(inputs, held, forward, backward, reduction.most, gradients, made, outputs, several)


def _encoded(config: Config, method: Method, part: Batch, gpu: bool) -> Features:
    dtype = autocast_type(config.engine.precision)
    low = nullcontext() if dtype is None else torch.autocast("cpu", dtype)
    as_on_gpus: AbstractContextManager[Any] = _AsOnGpus(low=dtype is not None) if gpu else nullcontext()
    with as_on_gpus, low:
        return method.encode(method.model, part)


def _product(features: Features) -> Tensor:
    products = [(at_least_float32(f) * torch.empty_like(at_least_float32(f))).sum() for f in features.tensors]
    return torch.stack([product for product in products if product.requires_grad]).sum()


def _set_options(config: Config, model: nn.Module) -> None:
    """Checkpointing and attention as they train; a kernel that only GPUs have gives way to one that holds as much."""
    for name, encoder in config.model.encoders.items():
        if f"encoders.{name}" not in dict(model.named_modules()):
            continue
        flash = encoder.attention is AttentionKernel.flash_attention_2
        kernel = AttentionKernel.sdpa if flash else encoder.attention
        backbone = model.get_submodule(f"encoders.{name}.backbone")
        set_options(f"model.encoders.{name}", replace(encoder, compile=False, attention=kernel), backbone)


def _without_content(model: nn.Module, fake: FakeTensorMode) -> dict[int, nn.Parameter]:
    """Put tensors without content into the model, tied ones staying tied; what became of each parameter, by its id."""
    new: dict[int, nn.Parameter] = {}
    with fake:
        for layer in model.modules():
            for name, old in layer._parameters.items():
                if old is not None and id(old) not in new:
                    value = torch.empty(old.shape, dtype=old.dtype)
                    new[id(old)] = nn.Parameter(value, requires_grad=old.requires_grad)
                if old is not None:
                    layer._parameters[name] = new[id(old)]
            for name, buffer in layer._buffers.items():
                if buffer is not None:
                    layer._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return new


@contextmanager
def _linear_of_stage_3() -> Iterator[None]:
    """Linear layers as DeepSpeed makes them at stage 3, where they keep other tensors for the way back."""
    from deepspeed.runtime.zero.linear import zero3_linear_wrap

    plain = F.linear
    F.linear = zero3_linear_wrap
    try:
        yield
    finally:
        F.linear = plain


class _AsOnGpus(TorchFunctionMode):
    """Attention and autocast as on CUDA devices. low: whether autocast is on."""

    _FLOAT32 = (F.layer_norm, F.group_norm, F.softmax, F.log_softmax, torch.softmax, Tensor.softmax, torch.layer_norm)

    def __init__(self, *, low: bool) -> None:
        super().__init__()
        self._low = low

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, with the arguments that make it hold what it holds there."""
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            args = args[:4]  # without dropout, whose state there is a seed
            kwargs.pop("dropout_p", None)
        if self._low and func in self._FLOAT32:
            args = (args[0].float(), *args[1:])
        return func(*args, **kwargs)
