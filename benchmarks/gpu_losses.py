"""The losses that benchmarks/gpu.py compares: ours in several forms, and others' packages.

All take the same float32 rows of any length, and do what a training step does: normalize, round to bfloat16, loss,
gradients of both sides and, but for memeff's (whose temperature is constant), of the temperature.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.others import INF_CL, MEMEFF, OPEN_CLIP, SIGLIP_KERNEL, installed, open_clip_losses
from mmpretrain.config.objective import MIB, Fused, ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.losses.sigmoid import sigmoid_contrastive

TEMPERATURE, BIAS = 0.07, -10.0

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # query, key [b, d], log of the scale [1], bias [1] -> scalar


class NotHereError(RuntimeError):
    """A package cannot be had or cannot run here; the message says why."""


@dataclass(frozen=True)
class Form:
    """build: makes the loss for so many rows on a device; raises NotHereError. family: forms of one are one loss.
    entry_bytes: what it holds for each entry of the matrix of similarities, predicted; 0: it grows with rows alone.
    target_ms: at 65,536 rows of 768 on an H200, where one is set."""

    family: str
    build: Callable[[int, torch.device], Loss]
    entry_bytes: int = 0
    target_ms: float | None = None


def _ours(fused: Fused, *, kept: bool = False) -> Callable[[int, torch.device], Loss]:
    def build(rows: int, device: torch.device) -> Loss:
        settings = _settings(fused, 4 * rows**2 // MIB + 1 if kept else 0)
        world = World(device=device, even=True, ahead=True)

        def loss(query: Tensor, key: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
            pairs, scale = [Pair(query, key)], log_scale.exp()
            return contrastive(pairs, scale=scale, world=world, settings=settings, metrics=False)[0].loss

        return loss

    return build


def _our_sigmoid(fused: Fused) -> Callable[[int, torch.device], Loss]:
    def build(rows: int, device: torch.device) -> Loss:
        settings, world = _settings(fused, 0), World(device=device, even=True, ahead=True)

        def loss(query: Tensor, key: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
            options: dict[str, Any] = {"scale": log_scale.exp(), "bias": bias, "world": world, "settings": settings}
            return sigmoid_contrastive([Pair(query, key)], **options, metrics=False)[0].loss

        return loss

    return build


def _settings(fused: Fused, keep_mb: int) -> ObjectiveConfig:
    return ObjectiveConfig(keep_mb=keep_mb, products=Products.bfloat16, fused=fused)


def _open_clip(name: str) -> Callable[[int, torch.device], Loss]:
    def build(rows: int, device: torch.device) -> Loss:
        folder, why_not = installed(OPEN_CLIP)
        if folder is None:
            raise NotHereError(f"not installed: {why_not}")
        theirs = getattr(open_clip_losses(folder), name)()

        def loss(query: Tensor, key: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
            with torch.autocast(query.device.type, torch.bfloat16):
                numbers = {"logit_bias": bias} if name == "SigLipLoss" else {}
                return theirs(F.normalize(query), F.normalize(key), log_scale.exp(), **numbers)

        return loss

    return build


def _package(requirement: str, module: str, device: torch.device) -> Any:
    """Of a package that runs kernels of its own."""
    if device.type != "cuda":
        raise NotHereError("its kernels need a CUDA device")
    folder, why_not = installed(requirement)
    if folder is None:
        raise NotHereError(f"not installed: {why_not}")
    sys.path.append(str(folder))
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotHereError(f"cannot be imported: {error}") from error


def _siglip_kernel(rows: int, device: torch.device) -> Loss:
    fused = _package(SIGLIP_KERNEL, "siglip_kernel", device).fused_siglip_loss

    def loss(query: Tensor, key: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
        found: Tensor = fused(*_rounded(query, key), log_scale.squeeze(), bias.squeeze())
        return found

    return loss


def _memeff(rows: int, device: torch.device) -> Loss:
    # stable=True would scale the gradient by another number than the loss's own.
    options = {"temperature": TEMPERATURE, "normalized_inputs": True, "stable": False}
    theirs = _package(MEMEFF, "memeff", device).MemoryEfficientCLIPLoss(**options)

    def loss(query: Tensor, key: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
        found: Tensor = theirs(*_rounded(query, key))
        return found

    return loss


def _inf_cl(rows: int, device: torch.device) -> Loss:
    flash = _package(INF_CL, "inf_cl", device).cal_flash_loss

    def loss(query: Tensor, key: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
        query, key, scale = F.normalize(query), F.normalize(key), log_scale.exp()
        found: Tensor = (flash(query, key, scale=scale) + flash(key, query, scale=scale)).mean() / 2
        return found

    return loss


def _rounded(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    return F.normalize(query).bfloat16(), F.normalize(key).bfloat16()


# The first of a family is what the others' losses and gradients are held against. Dense ones: two logarithms of
# softmaxes in float32 and their gradients, two matrices of logits in bfloat16 and theirs; or one, and its gradient.
FORMS = {
    "InfoNCE, tiles made again": Form("InfoNCE", _ours(Fused.auto), target_ms=45),
    "InfoNCE, tiles kept": Form("InfoNCE", _ours(Fused.auto, kept=True), entry_bytes=4, target_ms=35),
    "InfoNCE, torch's operations": Form("InfoNCE", _ours(Fused.never)),
    "open_clip ClipLoss": Form("InfoNCE", _open_clip("ClipLoss"), entry_bytes=24),
    "memeff": Form("InfoNCE", _memeff),
    "Inf-CL (float32 in, as it demands)": Form("InfoNCE", _inf_cl),
    "sigmoid": Form("sigmoid", _our_sigmoid(Fused.auto), target_ms=38),
    "sigmoid, torch's operations": Form("sigmoid", _our_sigmoid(Fused.never)),
    "open_clip SigLipLoss": Form("sigmoid", _open_clip("SigLipLoss"), entry_bytes=16),
    "siglip-kernel": Form("sigmoid", _siglip_kernel),
}
