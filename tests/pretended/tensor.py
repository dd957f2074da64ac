"""Tensors that say they are on cuda:0."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from tests.pretended.log import Log

CUDA = torch.device("cuda", 0)
aten = torch.ops.aten

# What makes the host wait on a GPU, for a size or a check.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive",
    "equal", "repeat_interleave", "bincount", "histc", "_linalg_eigh", "_linalg_svd", "linalg_eig", "_linalg_eigvals",
    "linalg_lstsq", "_linalg_slogdet", "_assert_async_wait",
}  # fmt: skip
# What is not a kernel.
NO_KERNEL = {
    "detach", "alias", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_local_scalar_dense",
    "_unsafe_view", "_reshape_alias", "lift_fresh", "is_same_size", "set_", "resize_", "sym_size", "sym_stride",
}  # fmt: skip
# What may take a CPU tensor without copying it, or is a copy itself.
MIXING = {"copy_", "_to_copy"}


class Pretended(torch.Tensor):
    """below: the values, on the CPU, or their sizes alone, on meta. seen: the log of the device."""

    below: Tensor
    seen: Log

    @staticmethod
    def __new__(cls: type[Pretended], elem: Tensor, log: Log, requires_grad: bool = False) -> Pretended:
        """A tensor over ``elem``."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            elem.size(),
            strides=elem.stride(),
            storage_offset=elem.storage_offset(),
            dtype=elem.dtype,
            layout=elem.layout,
            device=torch.device("cpu"),
            requires_grad=requires_grad,
        )
        made.below, made.seen = elem, log
        weakref.finalize(made, log.gone, log.born(elem))
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """cuda:0."""
        return CUDA

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """True."""
        return True

    def __repr__(self, *, tensor_contents: object = None) -> str:  # type: ignore[override]
        return f"Pretended({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run ``func`` on what lies below, and note it."""
        kwargs = kwargs or {}
        log = next(found.seen for found in _tensors((args, kwargs)) if isinstance(found, Pretended))
        name = func._schema.name.rpartition("::")[2]
        _note(log, func, name, args, kwargs)
        below_args, below = tree_map(_below, args), tree_map(_below, kwargs)
        if name == "_local_scalar_dense" and below_args[0].is_meta:
            raise RuntimeError("a number of a tensor without values was asked for")
        found = EMULATED.get(str(func), func)(*below_args, **below)
        if func._schema.is_mutable:
            return _same(func, args, kwargs, found)
        return tree_map(lambda t: cls(t, log) if isinstance(t, Tensor) else t, found)


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor))


def _below(value: Any) -> Any:
    return value.below if isinstance(value, Pretended) else value


def _same(func: Any, args: Any, kwargs: Any, found: Any) -> Any:
    """What was written to is what comes back."""
    written = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            written.append(args[place] if place < len(args) else kwargs.get(argument.name))
    if not isinstance(found, tuple | list):
        return written[0] if found is not None else None
    return type(found)(written) if len(written) == len(found) else found


def _note(log: Log, func: Any, name: str, args: Any, kwargs: Any) -> None:
    plain = [t for t in _tensors((args, kwargs)) if not isinstance(t, Pretended)]
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        indices = [i for i in args[1] if i is not None]
        if any(i.dtype in (torch.bool, torch.uint8) for i in indices) and not _fills(name, args):
            log.sync(f"{name} by a mask")
        if any(not isinstance(i, Pretended) for i in indices):
            log.sync(f"{name} by an index of the CPU")
        plain = [t for t in plain if not any(t is i for i in indices)]
    if name == "copy_" and plain:
        # Within the host's memory where it is the target; else from pageable memory.
        log.copies.append(f"{plain[0].numel() * plain[0].element_size()} bytes")
        if not (len(args) > 2 and args[2] and getattr(plain[0], "pinned", False)):
            log.sync("copy_ between host and device")
    elif name not in MIXING and any(t.dim() for t in plain):
        log.mix(name)
    if name in WAITING:
        log.sync(name)
    if not func.is_view and name not in NO_KERNEL:
        log.kernel(name, *_tensors((args, kwargs)))


def _fills(name: str, args: Any) -> bool:
    """Whether torch makes a masked fill of it, which needs no size."""
    values = args[2] if len(args) > 2 else None
    return name != "index" and isinstance(values, Tensor) and values.numel() == 1 and len(args[1]) == 1


def _wide(left: Tensor, right: Tensor, out_dtype: torch.dtype, *, out: Tensor | None = None) -> Tensor:
    """A product of rounded inputs, which processors have not."""
    return torch.mm(left.to(out_dtype), right.to(out_dtype), out=out)


EMULATED: dict[str, Callable[..., Any]] = {"aten.mm.dtype": _wide, "aten.mm.dtype_out": _wide}
