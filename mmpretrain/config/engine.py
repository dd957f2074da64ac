"""Config of optimization, ZeRO, checkpoints and the training budget (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class OptimizerName(StrEnum):
    """adamw: decoupled weight decay; adam: L2 added to the gradient (coupled)."""

    adamw = "adamw"
    adam = "adam"


class Schedule(StrEnum):
    """Learning rate after the warm-up."""

    constant = "constant"
    cosine = "cosine"
    step = "step"


class Precision(StrEnum):
    """Type in which encoders compute; weights, heads, losses and optimizers are float32 in any case.

    float16 scales the losses (engine/loss_scale.py); bfloat16 needs no scale.
    """

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


@dataclass
class OptimConfig:
    """Optimizer and learning rate.

    decay_all: apply weight decay to biases and norms as well. heads_lr: learning rate of what only training needs
    (temperature, unimodal heads); default lr. warmup_samples: linear from 0. final_lr: share of lr at the end of
    ``cosine``. step_samples, step_factor: every step_samples the rate is multiplied by step_factor (``step``).
    clip: largest gradient norm, null for none.
    """

    name: OptimizerName = OptimizerName.adamw
    lr: float = 1e-3
    heads_lr: float | None = None
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8
    weight_decay: float = 0.01
    decay_all: bool = False
    schedule: Schedule = Schedule.cosine
    warmup_samples: int = 0
    final_lr: float = 0.0
    step_samples: int | None = None
    step_factor: float = 0.2
    clip: float | None = 1.0

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = []
        for key in ("lr", "heads_lr", "eps", "step_factor"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                found.append(f"optim.{key} is {value}: it must be above 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            found.append(f"optim.betas is {list(self.betas)}: two numbers in [0, 1) are needed")
        if self.schedule is Schedule.step and (self.step_samples or 0) < 1:
            found.append("optim.schedule=step needs optim.step_samples (how many samples between two steps)")
        if self.clip is not None and self.clip <= 0:
            found.append(f"optim.clip is {self.clip}: it must be above 0, or null for no clipping")
        for key in ("weight_decay", "warmup_samples", "final_lr"):
            if getattr(self, key) < 0:
                found.append(f"optim.{key} is {getattr(self, key)}: it must be 0 or more")
        return found


@dataclass
class EngineConfig:
    """DeepSpeed. zero: stage 0-3. deepspeed: further keys laid over the DeepSpeed config, for experts.

    micro_batches: parts of the local batch that encoders see one after another, against memory; losses still see the
    whole batch, and the gradients are the same. coalesce_reduction: reduce the gradients of all micro-batches at once
    (ZeRO 1-3), for a whole copy of them in memory.
    timeout_s: how long a collective may wait before the run ends with an error.
    threads: CPU threads per rank (null: the node's cores divided by its ranks).
    """

    zero: int = 1
    precision: Precision = Precision.float32
    micro_batches: int = 1
    coalesce_reduction: bool = False
    timeout_s: int = 600
    threads: int | None = None
    deepspeed: dict[str, Any] = field(default_factory=dict)

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
        if self.timeout_s < 1:
            found.append(f"engine.timeout_s is {self.timeout_s}: it must be at least 1 second")
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
    """every_steps: between two checkpoints (one is always written at the end). keep_last: newest ones kept.

    keep_every: checkpoints at multiples of this many steps are never deleted (null: none).
    """

    every_steps: int = 200
    keep_last: int = 2
    keep_every: int | None = None

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        return [
            f"checkpoint.{key} is {value}: it must be at least 1"
            for key, value in vars(self).items()
            if value is not None and value < 1
        ]


@dataclass
class TrainConfig:
    """samples: the whole training budget, rounded up to full batches; an epoch is data size many of them."""

    samples: int = 100_000
    log_every_steps: int = 1

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        return [f"train.{key} is {value}: it must be at least 1" for key, value in vars(self).items() if value < 1]
