"""The kernels of losses/fused beside torch's operations: how far losses and gradients are apart, by kind of targets.

    TRITON_INTERPRET=1 python -m benchmarks.fused      # without a GPU: through Triton's interpreter
    python -m benchmarks.fused                         # on a GPU

Each cell is the largest difference over samples that all have both sides and are all different, and samples that lack
sides and are there twice: of the loss as a share of it, and of gradients as a share of their largest entry.
"""

from __future__ import annotations

import itertools
import os

import torch
from torch import Tensor

from mmpretrain.config.objective import Fused, HardNegatives, ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Diagonal, Labels, Mixup, Pair, Soft, contrastive
from mmpretrain.losses.fused import choice
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from mmpretrain.losses.targets import Targets

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
# Neither tiles nor the batch end where blocks end.
ROWS, WIDTH, TILE = (5000, 200, 3000) if ON_GPU else (150, 24, 140)
KINDS = (
    "Diagonal",
    "Diagonal, one way",
    "Mixup",
    "Labels",
    "Soft, detached",
    "Soft",
    "Diagonal, same side",
    "Labels, same side",
    "hard negatives of all",
    "hard negatives, own",
    "sigmoid",
    "sigmoid, hard negatives",
)
PRECISIONS = {
    "float64": (torch.float64, Products.float32, Fused.auto),
    "float32": (torch.float32, Products.float32, Fused.auto),
    "bfloat16, `auto`": (torch.float32, Products.bfloat16, Fused.auto),
    "bfloat16, `entries`": (torch.float32, Products.bfloat16, Fused.entries),
}


def pair_of(kind: str, sides: list[Tensor], masked: bool) -> Pair:
    """What is compared; sides: query, key, a reference, and a hard negative of each sample."""
    query, key, reference, further = sides
    there = torch.arange(ROWS, device=DEVICE)
    valid = (there % 7 != 3) if masked else None
    lam = (there % 10).to(query) / 10
    kinds: dict[str, Targets] = {
        "Mixup": Mixup(lam, 1 - lam, there.roll(5)),
        "Labels": Labels(there % 12),
        "Soft, detached": Soft(reference, scale=3.0, detach=True),
        "Soft": Soft(reference, scale=3.0),
        "Labels, same side": Labels(there % 12),
    }
    negatives = further[:, None] if "hard" in kind else None
    lacking = valid[:, None] if valid is not None and negatives is not None else None
    return Pair(
        query,
        key,
        kinds.get(kind, Diagonal()),
        same_side=kind.endswith("same side"),
        query_valid=valid,
        key_valid=None if valid is None else (there % 5 != 1) | ~valid,
        one_way=kind.endswith("one way"),
        key_negatives=negatives,
        key_negatives_valid=lacking,
    )


def outcome(kind: str, precision: str, fused: Fused, masked: bool, keep_mb: int) -> list[Tensor]:
    """The loss, and the gradients of all sides and of the temperature."""
    dtype, products, _ = PRECISIONS[precision]
    draw = torch.Generator().manual_seed(7)
    sides = [torch.randn(ROWS, WIDTH, generator=draw).to(DEVICE, dtype).requires_grad_() for _ in range(4)]
    scale = torch.tensor([20.0], device=DEVICE, dtype=dtype, requires_grad=True)
    whose = HardNegatives.own if kind.endswith("own") else HardNegatives.all
    settings = ObjectiveConfig(tile=TILE, keep_mb=keep_mb, products=products, fused=fused, hard_negatives=whose)
    ids = torch.arange(ROWS, device=DEVICE) % (ROWS - 10) if masked else None
    pair, world = pair_of(kind, sides, masked), World.single()
    if kind.startswith("sigmoid"):
        (found,) = sigmoid_contrastive(
            [pair], scale=scale, bias=-10.0, world=world, settings=settings, sample_ids=ids, metrics=False
        )
    else:
        (found,) = contrastive([pair], scale=scale, world=world, settings=settings, sample_ids=ids)
    return [found.loss, *torch.autograd.grad(found.loss, [*sides, scale], materialize_grads=True)]


def apart(kind: str, precision: str) -> tuple[float, float]:
    """The largest differences of the loss and of gradients."""
    losses, gradients = [0.0], [0.0]
    for masked, keep_mb in itertools.product((False, True), (0, 64)):
        if keep_mb and (kind.startswith("sigmoid") or "Soft" in kind):
            continue  # nothing is kept
        _, _, fused = PRECISIONS[precision]
        ours, theirs = (outcome(kind, precision, way, masked, keep_mb) for way in (fused, Fused.never))
        shares = [
            ((one - other).abs().max() / other.abs().max().clamp(min=1e-30)).item()
            for one, other in zip(ours, theirs, strict=True)
        ]
        losses.append(shares[0])
        gradients += shares[1:]
    return max(losses), max(gradients)


def main() -> None:
    """Print the table."""
    if not ON_GPU:
        if os.environ.get("TRITON_INTERPRET") != "1":
            raise SystemExit(
                "no GPU is visible: set TRITON_INTERPRET=1 to run the kernels through Triton's interpreter"
            )
        choice._lacks = lambda device: ""  # type: ignore[assignment]
    where = torch.cuda.get_device_name() if ON_GPU else "Triton's interpreter, CPU"
    print(f"{where}: {ROWS} rows of {WIDTH}, tiles of {TILE}\n")
    print("| targets | " + " | ".join(PRECISIONS) + " |\n" + "|---" * (1 + len(PRECISIONS)) + "|")
    for kind in KINDS:
        cells = [apart(kind, precision) for precision in PRECISIONS]
        print(f"| {kind} | " + " | ".join(f"{loss:.1e}, {grad:.1e}" for loss, grad in cells) + " |", flush=True)


if __name__ == "__main__":
    main()
