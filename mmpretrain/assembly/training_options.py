"""How an encoder trains, without a trace in what ships: checkpointing, attention, compilation (not shipped)."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from mmpretrain.config.model import AttentionKernel, EncoderConfig
from mmpretrain.distributed.batch_norm import training_batch_norms
from mmpretrain.models.attention_mmpretrain import Block
from mmpretrain.problems import UnusableError, one_line


def option_problems(where: str, encoder: EncoderConfig, backbone: nn.Module) -> list[str]:
    """Which of the encoder's options this backbone, or this machine, cannot have; one sentence each.

    backbone: in the mode it trains in; may be on the meta device. where: its key in the config.
    """
    found = []
    if not isinstance(backbone, PreTrainedModel):
        ours = f"the encoder of {encoder.pretrained}"
        found += encoder.without_effect(where, ours, checkpointed=bool(_blocks(backbone))) if encoder.pretrained else []
    else:
        found += _attention_problems(where, encoder, backbone) if encoder.attention else []
        found += _checkpointing_problems(f"{where}.checkpointing", backbone) if encoder.checkpointing else []
    if encoder.compile and (lacking := compiler_lacking()):
        found.append(f"{where}.compile=true needs {lacking}, or leave compile out")
    return found


def set_options(where: str, encoder: EncoderConfig, backbone: nn.Module) -> None:
    """Make ``backbone`` train as ``encoder`` says; parameters, their names and the state dict stay as they are.

    Raises UnusableError with everything that stands against it.
    """
    if problems := option_problems(where, encoder, backbone):
        raise UnusableError(problems)
    try:
        _switch(encoder, backbone)
    except (ValueError, ImportError) as error:  # transformers knows more about the machine than we do.
        raise UnusableError([f"{where}: {one_line(error)}"]) from error


def compiler_lacking() -> str | None:
    """What torch.compile needs and this machine does not have, and how to get it; None if all is there."""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        return f"a C++ compiler, and {compiler} is not here: install it (Debian: apt install g++) or point CXX to one"
    # The code that torch generates for CPUs is a Python extension.
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.exists():
        return f"Python's headers, and {header} is not here: install them (Debian: apt install python3-dev)"
    return None


def _switch(encoder: EncoderConfig, backbone: Any) -> None:
    if encoder.attention:
        backbone.set_attn_implementation(encoder.attention.value)
    if encoder.checkpointing:
        _enable_checkpointing(backbone)
    if encoder.compile:
        # In place: a wrapper would change the names of all parameters.
        backbone.compile()


def _blocks(backbone: nn.Module) -> list[Block]:
    """The layers of one of this project's encoders that can be computed again in the backward pass."""
    return [module for module in backbone.modules() if isinstance(module, Block)]


def _enable_checkpointing(backbone: Any) -> None:
    if not isinstance(backbone, PreTrainedModel):
        for block in _blocks(backbone):
            block.gradient_checkpointing = True
            block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False, preserve_rng_state=True)
        return
    # Newer releases of transformers renamed it and warn at every use of the old name.
    enable = getattr(backbone, "activation_checkpointing_enable", None) or backbone.gradient_checkpointing_enable
    enable({"use_reentrant": False, "preserve_rng_state": True})


def _attention_problems(where: str, encoder: EncoderConfig, backbone: Any) -> list[str]:
    choices = _attention_choices(backbone)
    if encoder.attention not in choices:
        architecture = backbone.config.model_type
        return [f"{where}.attention is {encoder.attention}: {architecture} knows {', '.join(choices)} (null: default)"]
    # transformers would fetch a replacement from the Hub, and run code of others.
    if encoder.attention is AttentionKernel.flash_attention_2 and importlib.util.find_spec("flash_attn") is None:
        return [
            f"{where}.attention is flash_attention_2, and the package flash-attn is not installed: pip install"
            " flash-attn (CUDA GPUs only), or choose sdpa, which has flash kernels of its own"
        ]
    return []


def _attention_choices(backbone: Any) -> list[str]:
    if not backbone._can_set_attn_implementation():
        return [backbone.config._attn_implementation]
    optional = {
        AttentionKernel.sdpa: backbone._supports_sdpa,
        AttentionKernel.flash_attention_2: backbone._supports_flash_attn,
    }
    return [AttentionKernel.eager, *(attention for attention, known in optional.items() if known)]


def _checkpointing_problems(key: str, backbone: Any) -> list[str]:
    if not backbone.supports_gradient_checkpointing:
        return [f"{key}=true: {backbone.config.model_type} has no checkpointing in transformers, leave it out"]
    if norms := training_batch_norms(backbone):
        return [
            f"{key}=true would update the running statistics of batch norm twice a step ({norms[0]}, {len(norms)} in"
            " all): leave it out, or freeze the encoder"
        ]
    return []
