"""Contrastive losses on one GPU, bfloat16 products, d = 768, forward and backward: ours beside others'.

    python -m benchmarks.gpu [--quick]          # a part of `make gpu`

For whole batches of 65,536, 32,768 and 131,072 rows, of which query and key are noisy versions of each other. The forms
are those of benchmarks/gpu_losses.py. Memory is what torch allocates beyond the inputs. What is predicted to need more
than 60 % of the GPU's memory is left out and named. Not yet run anywhere: no figures exist.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_losses import BIAS, FORMS, TEMPERATURE, Form, Loss, NotHereError
from benchmarks.measure import MEMORY_SHARE, MIB

WIDTH, TARGET_ROWS = 768, 2**16
SIZES = (TARGET_ROWS, 2**15, 2**17)  # that of the targets first: time may end
SMALL = (256, 64)  # rows and width of a rehearsal
SAMPLE = 1024  # rows whose gradients are compared

Line = dict[str, Any]


def leaves(rows: int, width: int, device: torch.device) -> list[Tensor]:
    """Query and key [rows, width], each beside its noisy counterpart, the scale's logarithm and the bias."""
    draw = torch.Generator(device).manual_seed(0)
    query = torch.randn(rows, width, device=device, generator=draw)
    key = query + 2 * torch.randn(rows, width, device=device, generator=draw)
    numbers = (torch.tensor([value], device=device) for value in (-math.log(TEMPERATURE), BIAS))
    return [tensor.requires_grad_() for tensor in (query, key, *numbers)]


def timed(step: Callable[[], object], steps: int, device: torch.device) -> tuple[float, float]:
    """Median seconds, and the peak of allocated MiB beyond what was allocated before; on CPUs the latter is nan."""
    step()
    if device.type != "cuda":
        return statistics.median(_seconds(step) for _ in range(steps)), math.nan
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    seconds = statistics.median(_seconds(step) for _ in range(steps))
    return seconds, (torch.cuda.max_memory_allocated(device) - before) / MIB


def _seconds(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()  # reads the loss, and so waits for everything
    return time.perf_counter() - start


def loss_step(loss: Loss, inputs: list[Tensor]) -> Callable[[], float]:
    """Forward and backward pass; the loss."""

    def step() -> float:
        for leaf in inputs:
            leaf.grad = None
        value = loss(inputs[0], inputs[1], inputs[2], inputs[3])
        value.backward()
        if value.device.type == "cuda":
            torch.cuda.synchronize(value.device)
        return value.item()

    return step


def fits(form: Form, rows: int, device: torch.device) -> bool:
    """Whether what it is predicted to hold stays below MEMORY_SHARE of the GPU's memory."""
    if device.type != "cuda":
        return True
    return form.entry_bytes * rows**2 <= MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory


def lines(device: torch.device, small: bool, sizes: tuple[int, ...] = SIZES, steps: int = 7) -> Iterator[Line]:
    """A row per size and form, in the form of tests/gpu/parts.py."""
    width = WIDTH
    if small:
        (rows, width), steps = SMALL, 2
        sizes = (rows,)
    for rows in sizes:
        inputs, first = leaves(rows, width, device), dict[str, Tensor]()
        for name, form in FORMS.items():
            row: Line = {"table": f"{rows} rows of {width}", "form": name}
            try:
                yield row | _measured(form, rows, inputs, first, steps)
            except Exception as error:  # every form has its turn
                said = str(error) if isinstance(error, NotHereError) else f"{type(error).__name__}: {error}"
                yield row | {"note": said.splitlines()[0][:200]}
            for leaf in inputs:
                leaf.grad = None
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _measured(form: Form, rows: int, inputs: list[Tensor], first: dict[str, Tensor], steps: int) -> Line:
    """first: gradients of the first form of each family, for comparison; those of a new one are added."""
    device = inputs[0].device
    if not fits(form, rows, device):
        return {"note": f"left out: predicted to hold {form.entry_bytes * rows**2 / 2**30:.0f} GiB"}
    step = loss_step(form.build(rows, device), inputs)
    seconds, mib = timed(step, steps, device)
    loss = step()
    gradient = inputs[0].grad
    assert gradient is not None
    gradient = gradient[:SAMPLE].clone()
    beside = first.setdefault(form.family, gradient)
    target = {"target ms (H200)": form.target_ms} if rows == TARGET_ROWS and form.target_ms else {}
    apart = ((gradient - beside).norm() / beside.norm()).item()
    return {"ms": 1000 * seconds, **target, "MiB": round(mib) if mib == mib else None, "loss": loss, "apart": apart}


def main() -> None:
    """Lines of JSON; without a GPU one sentence of why not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="32,768 rows, fewer steps")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(json.dumps({"skipped": "this benchmark needs a GPU, and torch sees none here"}))
        return
    sizes, steps = ((2**15,), 3) if options.quick else (SIZES, 10)
    for line in lines(torch.device("cuda", 0), False, sizes, steps):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
