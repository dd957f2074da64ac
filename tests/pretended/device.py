"""The device: what makes its tensors, and what is asked of them outside of the dispatcher."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from mmpretrain.distributed import collectives
from mmpretrain.distributed.world import World
from tests.pretended.log import Log
from tests.pretended.tensor import CUDA, Pretended

FROM_THE_HOST = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor, torch.asarray)
EMPTY = (torch.empty, torch.empty_like, torch.empty_strided, torch.Tensor.new_empty)
READING = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__)


class PretendedDevice(TorchFunctionMode):
    """meta: whether tensors have sizes alone, so that any fit."""

    def __init__(self, *, meta: bool = False) -> None:
        super().__init__()
        self.log, self.meta = Log(), meta
        self._stack = ExitStack()

    def __enter__(self) -> PretendedDevice:
        self._stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="User provided device_type of 'cuda'")
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._stack.close()

    def tensor(self, values: Tensor, *, requires_grad: bool = False) -> Pretended:
        """``values`` on the device, without a trace in the log."""
        below = values.detach().to("meta") if self.meta else values.detach().clone()
        return Pretended(below, self.log, requires_grad)

    def sizes(self, *shape: int, dtype: torch.dtype = torch.float32, requires_grad: bool = False) -> Pretended:
        """A tensor of this shape; of no values on a device of sizes alone, else of zeros."""
        place = "meta" if self.meta else "cpu"
        return Pretended(torch.zeros(shape, dtype=dtype, device=place), self.log, requires_grad)

    def module(self, module: nn.Module) -> nn.Module:
        """``module`` with its parameters and buffers on the device."""
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    part._parameters[name] = nn.Parameter(self.tensor(parameter), parameter.requires_grad)
            for name, buffer in part._buffers.items():
                part._buffers[name] = None if buffer is None else self.tensor(buffer)
        return module

    def world(self, size: int = 1, **options: Any) -> World:
        """One of ``size`` ranks of a run on the device, whose collectives are :meth:`alone`'s."""
        return World(0, size, None, CUDA, even=True, **options)

    @contextmanager
    def alone(self, size: int) -> Iterator[None]:
        """Collectives of ``size`` ranks that all hold what this one does; a CPU tensor among them is a mix."""

        def gather(into: Tensor, rows: Tensor, group: Any = None) -> None:
            self._seen("all_gather", into, rows)
            _write(into, _below(rows).repeat(size, *(1,) * (rows.dim() - 1)))

        def scatter(into: Tensor, rows: Tensor, group: Any = None) -> None:
            self._seen("reduce_scatter", into, rows)
            _write(into, _below(rows)[: len(into)] * size)

        def reduce(values: Tensor, op: Any = dist.ReduceOp.SUM, group: Any = None, **_: Any) -> None:
            self._seen("all_reduce", values)
            _write(values, _below(values) if op is dist.ReduceOp.MAX else _below(values) * size)

        with (
            mock.patch.object(collectives, "_gather_into", gather),
            mock.patch.object(collectives, "_reduce_scatter_into", scatter),
            mock.patch.object(dist, "all_reduce", reduce),
            mock.patch.object(dist, "get_world_size", lambda group=None: size),
        ):
            yield

    def _seen(self, name: str, *tensors: Tensor) -> None:
        self.log.kernel(name, *tensors)
        if not all(isinstance(tensor, Pretended) for tensor in tensors):
            self.log.mix(f"a CPU tensor in {name}")

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Let calls that name the device make tensors of it, and note what leaves it."""
        kwargs = dict(kwargs or {})
        first: Any = args[0] if args else None
        if func is torch.Tensor.backward:
            with self._again():  # backward passes of the project's own functions are to be seen, too
                return _backward(first, kwargs.get("gradient"))
        if func is torch.Tensor.pin_memory:
            return _pinned(first)
        if func is torch.Tensor.cpu or func is torch.Tensor.to:
            return self._moved(func, args, kwargs)
        if func is torch.Tensor.cuda:
            return self._taken(first, bool(kwargs.get("non_blocking")))
        if func is torch.Tensor.new_tensor and isinstance(first, Pretended):
            return self._made(func, args, kwargs)
        if func in READING and isinstance(first, Pretended):
            self.log.sync(func.__name__)
            return func(first.below, *args[1:], **kwargs)
        if "device" in kwargs and kwargs["device"] is not None and torch.device(kwargs["device"]).type == "cuda":
            return self._made(func, args, kwargs)
        return func(*args, **kwargs)

    @contextmanager
    def _again(self) -> Iterator[None]:
        """The mode is off while it handles a call."""
        super().__enter__()
        try:
            yield
        finally:
            super().__exit__(None, None, None)

    def _made(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """A new tensor of the device."""
        if isinstance(args[0] if args else None, Pretended) and func not in FROM_THE_HOST:
            return func(*args, **{key: value for key, value in kwargs.items() if key != "device"})
        if func is torch.as_tensor and isinstance(args[0], Pretended):
            return args[0] if kwargs.get("dtype") is None else args[0].to(kwargs["dtype"])
        if func in FROM_THE_HOST:
            self.log.sync(f"{func.__name__} of numbers of the host")
            if func is torch.Tensor.new_tensor:
                func, args = torch.tensor, args[1:]
        elif func not in EMPTY:
            self.log.kernel(func.__name__)
        values = func(*tree_map(_below, args), **tree_map(_below, kwargs) | {"device": "cpu"})
        return self._wrapped(values)

    def _moved(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        tensor, *rest = args
        target = "cpu" if func is torch.Tensor.cpu else kwargs.get("device")
        for value in rest:
            if isinstance(value, Pretended):
                target = CUDA
                rest = [value.dtype]
            elif isinstance(value, Tensor):
                target = value.device
                rest = [value.dtype]
            elif isinstance(value, str | torch.device):
                target = value
        blocking = not kwargs.pop("non_blocking", False)
        rest = [value for value in rest if not isinstance(value, str | torch.device)]
        kwargs.pop("device", None)
        if target is not None:
            on_device = torch.device(target).type == "cuda"
            if on_device and not isinstance(tensor, Pretended):
                tensor = self._taken(tensor, not blocking)
            elif not on_device and isinstance(tensor, Pretended) and not _of_clipping():
                self.log.sync("a copy to the host") if blocking else None
                self.log.copies.append(f"{tensor.numel() * tensor.element_size()} bytes to the host")
                tensor = tensor.detach().below  # type: ignore[attr-defined]
        return torch.Tensor.to(tensor, *rest, **kwargs) if rest or kwargs else tensor

    def _taken(self, tensor: Tensor, non_blocking: bool) -> Pretended:
        if isinstance(tensor, Pretended):
            return tensor
        if not (non_blocking and getattr(tensor, "pinned", False)):
            self.log.sync("a copy of pageable memory")
        self.log.copies.append(f"{tensor.numel() * tensor.element_size()} bytes to the device")
        return self._wrapped(tensor.detach().clone())

    def _wrapped(self, values: Tensor) -> Pretended:
        return Pretended(values.detach().to("meta") if self.meta else values.detach(), self.log, values.requires_grad)


def _backward(root: Tensor, gradient: Tensor | None) -> None:
    """As ``root.backward()``, whose own checks would be asked of the mode again."""
    flowing = torch.ones_like(root) if gradient is None else gradient
    _engine_run_backward((root,), (flowing,), False, False, (), allow_unreachable=True, accumulate_grad=True)


def _of_clipping() -> bool:
    """Whether torch's clipping asks: it sends the norm to where it takes gradients to be, by what C++ says of them."""
    return any(frame.filename.endswith("clip_grad.py") for frame in traceback.extract_stack(limit=12))


def _below(value: Any) -> Any:
    return value.below if isinstance(value, Pretended) else value


def _write(into: Tensor, values: Tensor) -> None:
    _below(into).copy_(values.reshape(into.shape))


def _pinned(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    copy.pinned = True  # type: ignore[attr-defined]
    return copy
