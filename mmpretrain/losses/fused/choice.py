"""Whether a loss goes through the kernels: decided by what is known before anything runs."""

from __future__ import annotations

import functools
import importlib.util
import logging

import torch

from mmpretrain.config.objective import Fused, ObjectiveConfig

logger = logging.getLogger(__name__)

LEAST_CAPABILITY = (8, 0)  # the first with bfloat16 units


def fuses(settings: ObjectiveConfig, device: torch.device) -> bool:
    """Whether tiles on this device go through the kernels; on a GPU it says once why they do not."""
    why_not = obstacle(settings, device)
    if why_not and device.type == "cuda" and settings.fused is not Fused.never:
        _say(why_not)
    return not why_not


def obstacle(settings: ObjectiveConfig, device: torch.device) -> str:
    """Why tiles go through torch's own operations instead of the kernels; '' if nothing speaks against the kernels."""
    if settings.fused is Fused.never:
        return "objective.fused is never"
    if settings.false_negative_margin is not None:
        return "objective.false_negative_margin is set, and its entries are left out by torch's own operations"
    return _lacks(device)


@functools.cache
def _lacks(device: torch.device) -> str:
    if device.type != "cuda" or torch.version.cuda is None or not torch.cuda.is_available():
        return f"the kernels are for NVIDIA's GPUs, and the embeddings are on {device}"
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is older than the kernels' least compute capability, 8.0"
    return ""


@functools.cache
def _say(why_not: str) -> None:
    logger.info("objective.fused: tiles go through torch's own operations: %s", why_not)
