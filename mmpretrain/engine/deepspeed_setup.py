"""DeepSpeed behind accelerate: its config, and the switches it needs to start without a compiler."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import nn

from mmpretrain.config.engine import EngineConfig, Offload, Precision
from mmpretrain.config.root import Config
from mmpretrain.distributed.in_parts import InParts
from mmpretrain.distributed.world import World
from mmpretrain.engine.gathering import BUCKET, gathering_limits
from mmpretrain.engine.host_memory import give_large_back

PATIENCE = timedelta(hours=6)  # for what rank 0 does alone at the end of a run


def deepspeed_config(config: Config, world_size: int, numel: int | None = None) -> dict[str, Any]:
    """The DeepSpeed JSON config of a run; ``engine.deepspeed`` is laid over it last.

    numel: of the model, once it is known; then ZeRO-3 holds a share of it together at most.
    """
    limits = {} if numel is None or config.engine.zero < 3 else gathering_limits(config, numel, world_size)
    own = {
        "train_batch_size": config.data.global_batch,
        "train_micro_batch_size_per_gpu": config.data.global_batch // world_size,
        # Several backward passes per step are ours to count (exact at every stage only that way).
        "gradient_accumulation_steps": 1,
        # Stage 0 leaves the norm to us, and clips by one of its own that it computes again.
        "gradient_clipping": config.optim.clip if config.optim.clip and config.engine.zero else 0.0,
        **_autocast(config.engine.precision),
        "zero_optimization": _zero(config.engine) | _offload(config.engine.offload) | limits,
        # It waits for the device twice a step, for a figure that nobody reads.
        "timers": {"throughput": {"enabled": False}},
        # Keep torch's optimizers: DeepSpeed's CPU Adam would be compiled on the spot.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31 - 1,
    }
    return OmegaConf.to_container(OmegaConf.merge(own, config.engine.deepspeed))  # type: ignore[return-value]


def _zero(settings: EngineConfig) -> dict[str, Any]:
    # Gradients that are reduced while others are made need a place to lie in meanwhile.
    overlap = {"overlap_comm": True, "contiguous_gradients": True} if settings.overlap else {}
    return {
        "stage": settings.zero,
        # Without it gradients go from where autograd left them into a bucket of their size; with it, stages 1 and 2
        # make a buffer of ``reduce_bucket_size`` in every step, and copy them into it, and from there once more. On
        # GPUs fresh memory costs little, and buffers let each rank get its own share alone.
        "contiguous_gradients": torch.cuda.is_available(),
        "reduce_bucket_size": BUCKET,
        "stage3_gather_16bit_weights_on_model_save": True,
        **overlap,
    }


def _offload(what: Offload) -> dict[str, Any]:
    if what is Offload.none:
        return {}
    # Memory of the host that stays where it is, which copies to a device need to be fast.
    place = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {"offload_optimizer": place} | ({"offload_param": place} if what is Offload.parameters else {})


def _autocast(precision: Precision) -> dict[str, Any]:
    if precision is Precision.float32:
        return {}
    return {"torch_autocast": {"enabled": True, "dtype": precision.value}}


@dataclass(frozen=True)
class Joined:
    """This rank among the others. parts: what keeps a model in parts until DeepSpeed has it; None: it is whole."""

    accelerator: Any
    world: World
    parts: InParts | None = None

    @contextmanager
    def building(self) -> Iterator[None]:
        """While a model is built, looked at or loaded; the same operations on all ranks."""
        if self.parts is None:
            yield
            return
        # Otherwise transformers reads a whole file before it hands over the first of its tensors.
        with switched_on("HF_DEACTIVATE_ASYNC_LOAD"), self.parts.in_use():
            yield


@contextmanager
def switched_on(variable: str) -> Iterator[None]:
    """The environment's ``variable`` is 1 inside the block, and afterwards what it was."""
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        os.environ.pop(variable)
        os.environ |= {} if before is None else {variable: before}


def join(config: Config, *, parts: bool = False) -> Joined:
    """Join the process group. parts: whether a model that will be divided by ZeRO-3 is built in parts.

    As :func:`start_accelerator`, whose errors it raises.
    """
    accelerator = start_accelerator(config, int(os.environ["WORLD_SIZE"]))
    build_models_whole()
    ahead = accelerator.device.type == "cuda"
    world = replace(World.current(accelerator.device), even=True, ahead=ahead).with_patience(PATIENCE)
    divided = parts and config.engine.zero == 3 and world.size > 1
    if divided:
        give_large_back()
    return Joined(accelerator, world, InParts(world) if divided else None)


def tell_size(accelerator: Any, model: nn.Module, config: Config, ranks: int) -> None:
    """Have ``accelerator`` prepare for a model of this size, before it does so."""
    told = accelerator.state.deepspeed_plugin.deepspeed_config
    told["zero_optimization"] = deepspeed_config(config, ranks, _numel(model))["zero_optimization"]


def hand_over(parts: InParts, model: nn.Module, config: Config, replicated: Sequence[nn.Module] = ()) -> None:
    """Give a model that is kept in parts to DeepSpeed, parameter by parameter; a collective.

    Afterwards it is as ``deepspeed.zero.Init`` leaves one, with buffers on the device. replicated: modules that were
    built with it and that every rank is to hold whole.
    """
    from deepspeed import zero

    # A module of its own has DeepSpeed prepare for one that exists already, as for a whole one.
    told = deepspeed_config(config, parts.world.size, _numel(model))
    divider = zero.Init(module=nn.Module(), config_dict_or_path=told)
    divider._convert_to_zero_parameters(parts.handed_over(model))
    for module in model.modules():
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to(parts.world.device)
    for module in replicated:
        for _ in parts.handed_over(module):
            pass


def _numel(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def load_stages() -> None:
    """Import what DeepSpeed imports when its ZeRO starts.

    One of its files has torch compile an optimizer (its Muon, which is not used here): that alone would load torch's
    compiler, which takes every rank 2 s of a processor.
    """
    with switched_on(NOT_COMPILED):
        import deepspeed.runtime.zero.stage3
        import deepspeed.runtime.zero.stage_1_and_2

        with suppress(ImportError):  # later and earlier ones may have none
            import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401


NOT_COMPILED = "TORCHDYNAMO_DISABLE"  # torch.compile returns what it is given


def start_accelerator(config: Config, world_size: int) -> Any:
    """An accelerate.Accelerator whose engine is DeepSpeed.

    Joins the process group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe. Raises RuntimeError when
    accelerate chose another engine (it does so silently, for example under ACCELERATE_USE_CPU).
    """
    import deepspeed.ops

    # Compiling it takes a minute and a C++ compiler, and saved nothing measurable.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    load_stages()
    from accelerate import Accelerator, DeepSpeedPlugin, DistributedType
    from accelerate.utils import InitProcessGroupKwargs

    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    plugin = DeepSpeedPlugin(hf_ds_config=deepspeed_config(config, world_size))
    timeout = InitProcessGroupKwargs(timeout=timedelta(seconds=config.engine.timeout_s))
    accelerator = Accelerator(mixed_precision="no", deepspeed_plugin=plugin, kwargs_handlers=[timeout])
    if accelerator.distributed_type != DistributedType.DEEPSPEED:
        raise RuntimeError(
            f"accelerate chose {accelerator.distributed_type} instead of DeepSpeed: unset ACCELERATE_USE_CPU"
        )
    return accelerator


def build_models_whole() -> None:
    """Let transformers build whole models from now on.

    Under ZeRO-3 it would partition every new one over all ranks: rank 0, which makes the release alone, would wait for
    the others for ever.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
