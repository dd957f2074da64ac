"""Run anybody's loss on some processes: its value, and what the training loop makes of the gradients.

For each number of ranks new processes are started, for libraries keep the group that they met first. They talk by gloo
on this machine.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmpretrain.gradients.question import Averaging, Question
from mmpretrain.problems import UnusableError, one_line

VALUE = "value"


@dataclass(frozen=True)
class Measured:
    """value: the mean of the ranks' losses. gradients: by what they belong to; None where there is none."""

    value: float
    gradients: dict[str, Tensor | None]


def measure(question: Question) -> dict[int, Measured]:
    """Number of processes -> what was found; 1 is always among them.

    Raises UnusableError for a loss that cannot be loaded or called, on whichever rank that shows first.
    """
    load_loss(question)  # Here its errors are plain.
    with tempfile.TemporaryDirectory(prefix="gradients-") as folder:
        counts = sorted({1, *question.processes})
        try:
            for count in counts:
                torch.multiprocessing.spawn(_rank, (question, count, folder), nprocs=count)
        except Exception as error:
            raise UnusableError([_said(question, error, Path(folder))]) from None
        return {count: _joined(Path(folder), count, question) for count in counts}


def load_loss(question: Question) -> Callable[..., Any]:
    """The function, or the module that the class makes. Raises UnusableError for what is none."""
    place, _, name = question.loss.rpartition(":")
    try:
        found = getattr(_module(place), name)
    except Exception as error:  # whatever the module raises while it is imported
        raise UnusableError([f"{question.loss} cannot be loaded: {one_line(error)}"]) from error
    if inspect.isclass(found) and issubclass(found, nn.Module):
        try:
            return found(**question.fixed).to(getattr(torch, question.dtype))
        except TypeError as error:
            raise UnusableError([f"{question.loss} cannot be made: {error}; give its arguments by --set"]) from error
    if not callable(found) or inspect.isclass(found):
        raise UnusableError([f"{question.loss} is a {type(found).__name__}: name a function or an nn.Module"])
    return found


def _module(place: str) -> Any:
    sys.path.insert(0, str(Path.cwd()))
    if not place.endswith(".py"):
        return importlib.import_module(place)
    sys.path.insert(0, str(Path(place).resolve().parent))
    spec = importlib.util.spec_from_file_location(Path(place).stem, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[Path(place).stem] = module
    spec.loader.exec_module(module)
    return module


def _rank(rank: int, question: Question, count: int, folder: str) -> None:
    torch.set_num_threads(1)
    limit = timedelta(seconds=question.timeout_s)
    meeting = f"file://{folder}/meeting-{count}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=limit)
    try:
        found = _run(question, rank, count)
    except Exception as error:
        # The first one to write knows what went wrong; the others only lose a peer.
        said = json.dumps({"rank": rank, "processes": count, "error": one_line(error)})
        (Path(folder) / f"error-{count}-{rank}").write_text(said, encoding="utf-8")
        raise
    save_file(found, Path(folder) / f"{count}-{rank}.safetensors")
    dist.barrier()
    dist.destroy_process_group()


def _run(question: Question, rank: int, count: int) -> dict[str, Tensor]:
    """One call and its backward pass, on this rank's rows."""
    loss, dtype = load_loss(question), getattr(torch, question.dtype)
    whole = _made(question)
    own = slice(rank * question.batch // count, (rank + 1) * question.batch // count)
    rows = {name: side[own].to(dtype).requires_grad_() for name, side in whole.items()}
    numbers = {n: torch.tensor([v], dtype=dtype, requires_grad=True) for n, v in question.learned.items()}
    fixed = {} if isinstance(loss, nn.Module) else question.fixed
    value = _scalar(loss(*rows.values(), **numbers, **fixed), question.loss)
    value.backward()
    leaves: dict[str, Tensor] = rows | numbers
    leaves |= dict(loss.named_parameters()) if isinstance(loss, nn.Module) else {}
    found = {name: leaf.grad.double() for name, leaf in leaves.items() if leaf.grad is not None}
    missing = {f"{name}/none": torch.zeros(1) for name, leaf in leaves.items() if leaf.grad is None}
    return {VALUE: value.detach().double().reshape(1), **found, **missing}


def _made(question: Question) -> dict[str, Tensor]:
    """The whole batch: related embeddings, so that no gradient is small by accident."""
    generator = torch.Generator().manual_seed(question.seed)
    shared, *own = torch.randn(question.inputs + 1, question.batch, question.width, generator=generator).double()
    sides = [shared + 1.5 * side for side in own]
    if question.unit:
        sides = [side / side.norm(dim=1, keepdim=True) for side in sides]
    return {f"input {number}": side for number, side in enumerate(sides, start=1)}


def _scalar(found: Any, name: str) -> Tensor:
    """The loss among what a function returns: a scalar, the first of a tuple, or ``loss`` of a dict or an object."""
    if isinstance(found, Mapping):
        found = found.get("loss", next(iter(found.values()), None))
    elif isinstance(found, tuple):
        found = found[0]
    found = getattr(found, "loss", found) if not isinstance(found, Tensor) else found
    if not isinstance(found, Tensor) or found.numel() != 1:
        raise ValueError(f"{name} returned a {type(found).__name__} and no scalar loss")
    return found.reshape(())


def _joined(folder: Path, count: int, question: Question) -> Measured:
    """What a training loop makes of the ranks' gradients."""
    parts = [load_file(folder / f"{count}-{rank}.safetensors") for rank in range(count)]
    divisor = count if question.averaging is Averaging.mean else 1
    names = dict.fromkeys(key.removesuffix("/none") for part in parts for key in part if key != VALUE)
    gradients: dict[str, Tensor | None] = {}
    for name in names:
        found = [part[name] for part in parts if name in part]
        if not found:
            gradients[name] = None
        elif name.startswith("input "):
            blank = torch.zeros_like(found[0])
            gradients[name] = torch.cat([part.get(name, blank) for part in parts]) / divisor
        else:
            gradients[name] = torch.stack(found).sum(dim=0) / divisor
    return Measured(torch.cat([part[VALUE] for part in parts]).mean().item(), gradients)


def _said(question: Question, error: Exception, folder: Path) -> str:
    """What the first rank that failed has said."""
    notes = sorted(folder.glob("error-*"), key=lambda path: path.stat().st_mtime_ns)
    if not notes:
        return f"{question.loss} ended without an answer: {one_line(error)}"
    told = json.loads(notes[0].read_text(encoding="utf-8"))
    return f"{question.loss} fails on rank {told['rank']} of {told['processes']}: {told['error']}"
