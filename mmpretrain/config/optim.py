"""Config of the optimizer and the learning rate (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum


class OptimizerName(StrEnum):
    """The optimizers."""

    adamw = "adamw"
    """AdamW: weight decay apart from the gradient (decoupled)."""

    adam = "adam"
    """Adam: weight decay added to the gradient (L2, coupled)."""

    muon = "muon"
    """Muon for the hidden matrices of encoders and fusion (their momentum is made orthogonal), AdamW for all else."""


class MuonAdjust(StrEnum):
    """By what Muon's learning rate depends on a matrix's shape."""

    match_rms_adamw = "match_rms_adamw"
    """Times 0.2 times the root of the longer side: updates of the size that AdamW's have, so that rates and decays
    found for AdamW hold."""

    original = "original"
    """Times the root of rows through columns where that is above 1, as in Muon's first implementation; takes rates of
    about 0.02."""


class Schedule(StrEnum):
    """Learning rate after the warm-up."""

    constant = "constant"
    """It stays as it is."""

    cosine = "cosine"
    """It falls along half a cosine until the end of the run, to ``optim.final_lr`` times its value."""

    step = "step"
    """Every ``optim.step_samples`` samples it is multiplied by ``optim.step_factor``."""

    plateau = "plateau"
    """It is multiplied by ``optim.step_factor`` whenever ``evaluation.best.score`` has not become better for
    ``optim.plateau_patience`` measurements in a row."""


@dataclass
class OptimConfig:
    """Optimizer and learning rate."""

    name: OptimizerName = OptimizerName.adamw
    """The optimizer."""

    lr: float = 1e-3
    """Learning rate after the warm-up, above 0."""

    heads_lr: float | None = None
    """Learning rate of what only training needs (temperature, unimodal heads); null: ``optim.lr``."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    """Adam's decay rates of the running means of the gradient and of its square, each from 0 to below 1."""

    eps: float = 1e-8
    """What Adam adds to the denominator, above 0."""

    weight_decay: float = 0.01
    """Weight decay, 0 or more."""

    decay_all: bool = False
    """Whether biases and norms are decayed as well."""

    schedule: Schedule = Schedule.cosine
    """What the learning rate does after the warm-up."""

    warmup_samples: int = 0
    """Samples over which the learning rate rises linearly from 0."""

    final_lr: float = 0.0
    """``schedule=cosine``: the learning rate at the end of the run, as a share of ``optim.lr``."""

    step_samples: int | None = None
    """``schedule=step``, which needs it: samples between two steps of the learning rate."""

    step_factor: float = 0.2
    """``schedule=step`` and ``schedule=plateau``: the factor of each step, above 0."""

    plateau_patience: int = 2
    """``schedule=plateau``: after how many measurements of ``evaluation.best.score`` in a row that are no better than
    the best one the learning rate takes a step; they are counted anew from there. One more than ``patience`` of torch's
    ReduceLROnPlateau, which waits for the measurement after."""

    clip: float | None = 1.0
    """Largest norm of the whole gradient, which is scaled down to it; null for no limit."""

    layer_decay: float | None = None
    """Factor of the learning rate from each layer of an encoder to the one below it, above 0 and up to 1: of n layers,
    layer k learns with ``layer_decay`` ^ (n + 1 - k) of the encoder's rate, embeddings as layer 0, what comes after the
    last layer with the whole rate. null: all with the same."""

    lr_scales: dict[str, float] = field(default_factory=dict)
    """Part of the model or head -> its learning rate relative to ``optim.lr`` (of heads to ``optim.heads_lr``), above
    0: of the model ``classifier``, ``fusion``, ``factors``, ``components``, ..., of m3col's heads ``unimodal_NAME``.
    Encoders and projections have ``lr_scale`` in ``model.encoders.NAME``."""

    muon_lr: float | None = None
    """``name=muon``: learning rate of the matrices; null: ``optim.lr``."""

    muon_momentum: float = 0.95
    """``name=muon``: decay rate of the running mean of a matrix's gradient, from 0 to below 1."""

    muon_nesterov: bool = True
    """``name=muon``: whether the gradient itself counts once more beside its mean (Nesterov's momentum)."""

    muon_ns_steps: int = 5
    """``name=muon``: Newton-Schulz iterations that make a matrix orthogonal, 1 to 99."""

    muon_adjust: MuonAdjust = MuonAdjust.match_rms_adamw
    """``name=muon``: by what the learning rate depends on a matrix's shape."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = []
        for key in ("lr", "heads_lr", "eps", "step_factor", "muon_lr"):
            value = getattr(self, key)
            if value is not None and value <= 0:
                found.append(f"optim.{key} is {value}: it must be above 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            found.append(f"optim.betas is {list(self.betas)}: two numbers in [0, 1) are needed")
        if self.schedule is Schedule.step and (self.step_samples or 0) < 1:
            found.append("optim.schedule=step needs optim.step_samples (how many samples between two steps)")
        if self.schedule is Schedule.plateau and self.step_factor >= 1:
            found.append(f"optim.step_factor is {self.step_factor}: with optim.schedule=plateau it must be below 1")
        if self.clip is not None and self.clip <= 0:
            found.append(f"optim.clip is {self.clip}: it must be above 0, or null for no clipping")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            found.append(f"optim.layer_decay is {self.layer_decay}: it must be above 0 and up to 1, or null for none")
        for key in ("weight_decay", "warmup_samples", "final_lr"):
            if getattr(self, key) < 0:
                found.append(f"optim.{key} is {getattr(self, key)}: it must be 0 or more")
        return found + self._scale_problems() + self._plateau_problems() + self._muon_problems()

    def _scale_problems(self) -> list[str]:
        """Of ``lr_scales``; whether there are such parts is known once the model is."""
        found = [f"optim.lr_scales.{k} is {v}: it must be above 0" for k, v in self.lr_scales.items() if v <= 0]
        return found + [
            f"optim.lr_scales.{part}: use model.encoders.NAME.{key}"
            for part, key in (("encoders", "lr_scale"), ("projections", "projection_lr_scale"))
            if part in self.lr_scales
        ]

    def _plateau_problems(self) -> list[str]:
        default = OptimConfig.plateau_patience
        if self.schedule is not Schedule.plateau and self.plateau_patience != default:
            return [f"optim.plateau_patience has no effect with optim.schedule={self.schedule}: leave it out"]
        if self.plateau_patience < 1:
            return [f"optim.plateau_patience is {self.plateau_patience}: it must be at least 1"]
        return []

    def problems_against(self, score: str | None) -> list[str]:
        """What stands against this section elsewhere. score: ``evaluation.best.score``."""
        if self.schedule is not Schedule.plateau or score:
            return []
        return [
            "optim.schedule=plateau lowers the rate by evaluation.best.score, which is null: set it, to"
            " classification/accuracy for example, with evaluation.every_steps and a split of its own"
        ]

    def _muon_problems(self) -> list[str]:
        found = []
        if not 0 <= self.muon_momentum < 1:
            found.append(f"optim.muon_momentum is {self.muon_momentum}: a number in [0, 1) is needed")
        if not 1 <= self.muon_ns_steps < 100:
            found.append(f"optim.muon_ns_steps is {self.muon_ns_steps}: 1 to 99 are possible")
        if self.name is not OptimizerName.muon:
            given = [f.name for f in fields(self) if f.name.startswith("muon_") and getattr(self, f.name) != f.default]
            found += [f"optim.{key} has no effect with optim.name={self.name}: leave it out" for key in given]
        return found
