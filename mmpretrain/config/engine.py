"""Config of ZeRO, checkpoints and the training budget (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mmpretrain.config.keys import FREE, PATH, ROUNDING
from mmpretrain.config.optim import MuonAdjust, OptimConfig, OptimizerName, Schedule
from mmpretrain.words import without_secrets

__all__ = [
    "CheckpointConfig",
    "EngineConfig",
    "MuonAdjust",
    "Offload",
    "OptimConfig",
    "OptimizerName",
    "Precision",
    "Schedule",
    "TrainConfig",
]

COPY_SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "memory")


class Precision(StrEnum):
    """Type in which encoders compute; weights, heads, losses and optimizers are float32 in any case."""

    float32 = "float32"
    """32 bits."""

    bfloat16 = "bfloat16"
    """16 bits with the range of float32; needs no scaling of the loss."""

    float16 = "float16"
    """16 bits with a small range; losses are scaled so that gradients stay inside it
    (mmpretrain/engine/loss_scale.py)."""


class Offload(StrEnum):
    """What lies in the memory of the host instead of the device's."""

    none = "none"
    """Nothing."""

    optimizer = "optimizer"
    """The optimizer's states and float32 weights, each rank's part; the optimizer's step is taken by the CPU."""

    parameters = "parameters"
    """Those, and the weights as well, which come to the device layer by layer. With ``engine.zero=3`` only."""


@dataclass
class EngineConfig:
    """What DeepSpeed does, and how encoders compute."""

    zero: int = field(default=1, metadata=ROUNDING)
    """Stage of ZeRO, 0 to 3: what is divided among the ranks instead of copied to each. 0: nothing, 1: the states of
    the optimizer, 2: the gradients as well, 3: the weights as well."""

    precision: Precision = field(default=Precision.float32, metadata=ROUNDING)
    """Type in which encoders compute. Weights, heads, losses and optimizers are float32 in any case."""

    tf32: bool | None = field(default=None, metadata=ROUNDING)
    """Whether a GPU may round the inputs of float32 products and convolutions to TF32 (10 bits), which is several times
    as fast; null: as torch, or the container, has it. Without effect on a CPU, and on encoders in bfloat16."""

    deterministic: bool = field(default=False, metadata=ROUNDING)
    """Whether torch takes algorithms alone that give the same bits on every run, at the price of speed: without it,
    attention, convolutions and sums by index of a GPU may differ in the last digit. An operation that has none says so
    in a warning."""

    overlap: bool = field(default=False, metadata=ROUNDING)
    """ZeRO 1 to 3: whether gradients are reduced while the backward pass goes on (DeepSpeed's ``overlap_comm``)."""

    prefetch: int = field(default=0, metadata=FREE)
    """Batches that a thread of each rank brings to the device ahead of their step, on a GPU by a stream of its own;
    0: each comes when its step begins. They take memory of the device."""

    micro_batches: int = field(default=1, metadata=ROUNDING)
    """Parts of a rank's batch that encoders see one after another, to save memory; must divide that batch. Losses still
    see the whole batch, and the gradients are the same."""

    coalesce_reduction: bool = field(default=False, metadata=ROUNDING)
    """Whether the gradients of all micro-batches are reduced at once, which takes a whole copy of them in memory. Only
    with ``engine.micro_batches`` above 1, and ZeRO 1 to 3."""

    offload: Offload = field(default=Offload.none, metadata=ROUNDING)
    """What lies in the memory of the host: for models that do not fit into that of the devices, at the price of slower
    steps. Needs ``engine.zero`` of 1 to 3; not with ``optim.name=muon``."""

    timeout_s: int = field(default=600, metadata=FREE)
    """Seconds that ranks wait for one another while a run starts and between steps (evaluation, the end) before it ends
    with an error, and for a checkpoint that is still being written when it is waited for. One that is written at once
    (``checkpoint.background=false``) may take an hour, where that is longer and ``hang_s`` allows it."""

    step_timeout_s: int = field(default=540, metadata=FREE)
    """The same inside of steps, after the first one of each start; never more than ``engine.timeout_s``. Keep it above
    ``engine.hang_s``, and that above what Slurm needs to notice a lost node (SlurmdTimeout, usually 300 s) and brings
    the job back for. A store of shards that falls silent is tried again for up to 4 minutes."""

    hang_s: int = field(default=480, metadata=FREE)
    """Seconds without any progress of a rank, or without a sign of life from it, after which the run is ended as hung,
    with the rank, its host and where all ranks stood as the cause. Starting, evaluating and saving may take twice as
    long without progress, what is done for a release three times. Ranks whose wait for others ends before that
    (``engine.timeout_s``, ``engine.step_timeout_s``) ask who hangs, too. Make it huge to stop at a debugger."""

    skip_nonfinite: int = 0
    """How many steps in a row whose loss or gradient is not finite are skipped, on all ranks: weights, optimizers and
    averages stay as they are, and the stream goes on. One more ends the run; 0: the first one does."""

    threads: int | None = field(default=None, metadata=FREE)
    """CPU threads per rank; null: the node's cores divided by its ranks."""

    deepspeed: dict[str, Any] = field(default_factory=dict, metadata=ROUNDING)
    """For experts: further keys of the DeepSpeed config, laid over what this project writes. Those that other keys of
    this page decide are refused."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = []
        if self.zero not in (0, 1, 2, 3):
            found.append(f"engine.zero is {self.zero}: ZeRO has the stages 0, 1, 2 and 3")
        if self.micro_batches < 1:
            found.append(f"engine.micro_batches is {self.micro_batches}: it must be at least 1")
        if self.coalesce_reduction and (self.zero == 0 or self.micro_batches == 1):
            found.append(
                "engine.coalesce_reduction has no effect without micro-batches, and DeepSpeed refuses it at stage 0:"
                " set engine.micro_batches above 1 and engine.zero to 1, 2 or 3, or leave it out"
            )
        found += [f"engine.deepspeed.{key}: the engine relies on its own value; {why}" for key, why in self._taken()]
        found += self._offload_problems()
        if self.overlap and self.zero == 0:
            found.append("engine.overlap has no effect with engine.zero=0: set it to 1, 2 or 3, or leave it out")
        for key in ("timeout_s", "hang_s", "step_timeout_s"):
            if getattr(self, key) < 1:
                found.append(f"engine.{key} is {getattr(self, key)}: it must be at least 1 second")
        for key in ("skip_nonfinite", "prefetch"):
            if getattr(self, key) < 0:
                found.append(f"engine.{key} is {getattr(self, key)}: it must be 0 or more")
        if self.threads is not None and self.threads < 1:
            found.append(f"engine.threads is {self.threads}: it must be at least 1")
        return found

    def batch_problems(self, local_batch: int) -> list[str]:
        """What stands against ``local_batch`` samples per rank, one sentence each."""
        if self.micro_batches < 1 or local_batch % self.micro_batches == 0:
            return []
        fitting = [count for count in range(1, local_batch + 1) if local_batch % count == 0]
        nearest = min(fitting, key=lambda count: abs(count - self.micro_batches))
        return [
            f"engine.micro_batches={self.micro_batches} does not divide the local batch of {local_batch} samples:"
            f" the nearest that does is {nearest}"
        ]

    def _offload_problems(self) -> list[str]:
        if self.offload is Offload.none:
            return []
        least = 3 if self.offload is Offload.parameters else 1
        zero = self.deepspeed.get("zero_optimization") or {}
        found = [
            f"engine.deepspeed.zero_optimization.{key}: engine.offload={self.offload} says the same; leave one of"
            " them out"
            for key in ("offload_optimizer", "offload_param")
            if zero.get(key)
        ]
        if self.zero < least:
            found.append(
                f"engine.offload={self.offload} has no effect with engine.zero={self.zero}, which every rank holds"
                f" whole on its device: set engine.zero={least if least == 3 else '1, 2 or 3'}, or leave it out"
            )
        return found

    def muon_problems(self) -> list[str]:
        """What stands against ``optim.name=muon``, which must see where ZeRO puts the parts of a matrix."""
        zero = self.deepspeed.get("zero_optimization") or {}
        moving = ("offload_optimizer", "offload_param", "zero_hpz_partition_size", "mics_shard_size", "zenflow")
        keys = [f"zero_optimization.{key}" for key in moving if zero.get(key)]
        keys += [key for key in ("zenflow",) if self.deepspeed.get(key)]
        keys = [f"deepspeed.{key}" for key in keys]
        keys += [] if self.offload is Offload.none else [f"offload={self.offload}"]
        return [
            f"engine.{key}: optim.name=muon puts matrices together from partitions that lie on the ranks'"
            " devices, one share for each; leave it out, or use optim.name=adamw"
            for key in keys
        ]

    def _taken(self) -> list[tuple[str, str]]:
        """Keys of DeepSpeed that this config decides, or that would make the heads' gradients wrong."""
        elsewhere = {
            "train_batch_size": "use data.global_batch",
            "train_micro_batch_size_per_gpu": "use data.global_batch",
            "gradient_accumulation_steps": "leave it out",
            "gradient_clipping": "use optim.clip",
            "optimizer": "use optim",
            "scheduler": "use optim.schedule",
            "fp16": "use engine.precision",
            "bf16": "use engine.precision",
            "torch_autocast": "use engine.precision",
        }
        taken = [(key, why) for key, why in elsewhere.items() if key in self.deepspeed]
        if "stage" in (self.deepspeed.get("zero_optimization") or {}):
            taken.append(("zero_optimization.stage", "use engine.zero"))
        return taken


@dataclass
class CheckpointConfig:
    """When the whole state of training is saved, and what is kept of it."""

    every_steps: int = field(default=200, metadata=FREE)
    """Optimizer steps between two checkpoints. One is always written at the end."""

    keep_last: int = field(default=2, metadata=FREE)
    """How many of the newest checkpoints are kept."""

    keep_every: int | None = field(default=None, metadata=FREE)
    """Checkpoints at multiples of this many steps are never deleted; null: there are none such."""

    background: bool = field(default=True, metadata=FREE)
    """Whether checkpoints are written beside training: it stands still while each rank copies its share of the state
    into host memory, which takes that much of it, and not while that is written. The last checkpoint, and one that a
    signal asks for, are complete before anything else goes on in any case."""

    copy_to: str | None = field(default=None, metadata=PATH | FREE)
    """URL or folder to which complete checkpoints are copied, into a folder of the run's name; null: none are. A run
    whose own checkpoints are gone or damaged goes on from there."""

    keep_copies: int = field(default=2, metadata=FREE)
    """With ``copy_to``: how many of the newest copies are kept, besides those of ``keep_every`` and the best step."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        return [
            f"checkpoint.{key} is {value}: it must be at least 1"
            for key in ("every_steps", "keep_last", "keep_every", "keep_copies")
            if (value := getattr(self, key)) is not None and value < 1
        ] + self._copy_problems()

    def _copy_problems(self) -> list[str]:
        if self.copy_to is None:
            return [] if self.keep_copies == 2 else ["checkpoint.keep_copies has no effect without checkpoint.copy_to"]
        shown, scheme = without_secrets(self.copy_to), self.copy_to.partition("://")[0] if "://" in self.copy_to else ""
        if shown != self.copy_to:
            return [f"checkpoint.copy_to is {shown}: give credentials where the store's library reads them, not in it"]
        if scheme and (scheme not in COPY_SCHEMES or "::" in self.copy_to):
            known = ", ".join(f"{name}://" for name in COPY_SCHEMES)
            return [
                f"checkpoint.copy_to is {shown}: checkpoints are copied to a folder, or to one plain URL of {known}"
            ]
        return []


@dataclass
class TrainConfig:
    """How long training lasts."""

    samples: int = 100_000
    """The whole training budget in samples, rounded up to full batches. An epoch is as many samples as the training
    split has."""

    log_every_steps: int = field(default=1, metadata=FREE)
    """Optimizer steps between two lines of ``metrics.jsonl``. The last step is always logged."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        return [f"train.{key} is {value}: it must be at least 1" for key, value in vars(self).items() if value < 1]
