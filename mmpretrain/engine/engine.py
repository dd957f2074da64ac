"""The engine: one optimizer step of a method, under DeepSpeed ZeRO 0-3.

    report = engine.step(batch, step)

The model is DeepSpeed's; the method's heads and critics stay plain replicated modules with their own optimizers,
because under ZeRO-3 a parameter used outside the wrapped forward is an empty shard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.averaging import Weights
from mmpretrain.config.engine import OptimizerName, Precision
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.batch_norm import held_statistics, synchronize
from mmpretrain.distributed.world import World
from mmpretrain.engine.accumulate import MicroBatches, refuse_batch_norms
from mmpretrain.engine.average import Average
from mmpretrain.engine.deepspeed_setup import Joined, build_models_whole, hand_over, join, tell_size
from mmpretrain.engine.layer_decay import layer_problems
from mmpretrain.engine.live_weights import HEADS, MODEL, LiveWeights
from mmpretrain.engine.loss_scale import LossScale
from mmpretrain.engine.matrices import NO_MATRICES, hidden_matrices
from mmpretrain.engine.model_update import ModelUpdate
from mmpretrain.engine.movement import Movement
from mmpretrain.engine.muon import MuonAdamW
from mmpretrain.engine.nonfinite import Fault, NonFiniteError, blown_up, find_fault
from mmpretrain.engine.optimizer import build_optimizer, names_in_order, parameter_groups, scale_problems
from mmpretrain.engine.partitions import pieces_by_partition
from mmpretrain.engine.replicated import Replicated
from mmpretrain.engine.schedule import lr_factor
from mmpretrain.engine.spared import Spared
from mmpretrain.engine.told import told_over_ranks
from mmpretrain.engine.whole_state import gathered_state
from mmpretrain.methods.base import Features, Losses, Method, RefineOn
from mmpretrain.words import shortened

CRITICS_NORM = "critics/grad_norm"


@dataclass(frozen=True)
class StepReport:
    """What one step tells.

    losses: detached scalars of this rank by name, ``loss`` the weighted total. grad_norm: of all gradients but the
    critics' before clipping, the same on all ranks; when it is not finite, the step went wrong somewhere, and whatever
    has such gradients (the heads: also when only the model has) was not stepped; the critics' own is then what is told
    if it alone is not finite. lr: of parameters without a scale. fault: what is not finite, None after a good step.
    """

    losses: dict[str, Tensor]
    grad_norm: float
    lr: float
    fault: Fault | None = None


class Engine:
    """A method, its DeepSpeed engine, its heads and critics. loss_scale: of float16, else None. live: the weights that
    this rank steps. average: of them, None without ``averaging.ema``. drops: how often the learning rate has been
    lowered on a plateau, which whoever measures says."""

    def __init__(
        self,
        config: Config,
        method: Method,
        before: Callable[[World], None] | None = None,
        joined: Joined | None = None,
    ) -> None:
        """Build DeepSpeed around ``method.model``.

        before: called first, when the ranks can see one another and the model is, or looks, whole on each of them.
        joined: this rank, which has built the model in its ``building``; None: join the process group now.

        RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT must be set. Raises ValueError when nothing is
        trainable, and for batch norms that micro-batches or float16 would change.
        """
        self.config, self.method = config, method
        joined = joined or join(config)
        self.accelerator, self.world = joined.accelerator, joined.world
        if before is not None:
            with joined.building():
                before(self.world)
        refuse_batch_norms(method.model, config.engine)
        synchronize(method.model, self.world)
        modules = (method.model, method.heads, method.critics)
        problems = layer_problems(method.model, config.optim.layer_decay) + scale_problems(modules, config.optim)
        if problems:
            raise ValueError(problems[0])
        muon = config.optim.name is OptimizerName.muon
        matrices = hidden_matrices(method.model) if muon else frozenset()
        groups = parameter_groups(method.model, config.optim, config.model.encoders, matrices)
        if not groups:
            raise ValueError("every encoder is frozen and nothing else is trainable: set freeze=false for one of them")
        if muon and not matrices:
            raise ValueError(NO_MATRICES)
        self._model_rates = [group["lr"] for group in groups]
        self.trained_names = names_in_order(method.model, groups)
        self._trained: dict[str, list[torch.nn.Parameter]] = {}  # ZeRO takes them out of the groups
        for group in groups:
            if group["lr"]:  # not with lr_scale=0
                by = "Muon" if group.get("matrices") else "the optimizer"
                self._trained.setdefault(by, []).extend(group["params"])
        self._movement: Movement | None = None
        self.drops = 0
        optimizer = build_optimizer(groups, config.optim)
        tell_size(self.accelerator, method.model, config, self.world.size)
        if joined.parts is not None:
            hand_over(joined.parts, method.model, config, [method.heads, method.critics])
        self.deepspeed: Any = self.accelerator.prepare(method.model, optimizer)[0]
        if isinstance(optimizer, MuonAdamW) and config.engine.zero:
            optimizer.divide(pieces_by_partition(self.deepspeed.optimizer, config.engine.zero, self.world), self.world)
        build_models_whole()
        self.loss_scale = LossScale() if config.engine.precision is Precision.float16 else None
        self._model_update = ModelUpdate(self.deepspeed, config.engine, config.optim.clip, self.loss_scale, self.world)
        self.heads = Replicated(method.heads, config.optim, self.world)
        self.critics = Replicated(method.critics, config.optim, self.world)
        # Whatever else is computed with the critics must not leave gradients in them.
        method.critics.requires_grad_(False)
        self.live = LiveWeights(self.deepspeed, config.engine.zero, self.heads.modules, self.world.rank)
        ema = config.averaging.ema
        self.average = None if ema is None else Average(self.live, ema, warmup=config.averaging.warmup)

    @property
    def device(self) -> torch.device:
        """Where batches belong."""
        return self.accelerator.device

    def step(self, batch: Batch, step: Step) -> StepReport:
        """Forward, backward and update on this rank's share of one global batch.

        Raises ValueError when a run's first steps have moved nothing that an optimizer trains, NonFiniteError for an
        error that only weights out of all bounds lead to. With ``engine.skip_nonfinite`` a step that is not finite
        leaves everything as it was.
        """
        lr = self._set_lr(step.index)
        if step.index == 0 and self._trained:
            self._movement = Movement(self.method.model, self._trained, self.world)
        batch = self.method.augmenter.training_inputs(batch.to(self.device), step)
        batch = self.method.prepare(batch, step)
        done, every = step.index + 1, self.config.train.log_every_steps
        self.method.measuring = done % every == 0 or done == self.config.total_steps
        parts = MicroBatches(batch, self.config.engine.micro_batches, partial(self._encode, step))
        try:
            return self._taken(parts, step, lr, self._spared())
        except (ValueError, ArithmeticError, RuntimeError) as error:
            if found := self._out_of_bounds(step, error):
                raise found from error
            raise

    def _taken(self, parts: MicroBatches, step: Step, lr: float, spared: Spared | None) -> StepReport:
        """The step itself; spared: what puts back what it changes before it is known to be finite."""
        unknown: dict[str, Tensor] = {"loss": torch.full((), math.nan, device=self.device)}
        critics_norm: float | Tensor = 0.0
        if spared and self.world.max_flag(not parts.features_finite):
            return self._faulty(unknown, math.nan, lr, parts, spared)
        refined: dict[str, Tensor] = {}
        if self._refines(RefineOn.next):
            refined, critics_norm = self._refine(parts.features(), step, looks=spared is not None)
            if spared and not math.isfinite(critics_norm):
                return self._faulty(unknown | refined, float(critics_norm), lr, parts, spared)
        known, grad_norm = self._updated(parts, step, spared)
        if grad_norm is None:
            return self._faulty(known | refined, math.nan, lr, parts, spared)
        if self._refines(RefineOn.same, RefineOn.previous) and math.isfinite(grad_norm):
            refined, critics_norm = self._refine(self._features_to_refine_on(parts), step, looks=spared is not None)
            if spared and not math.isfinite(critics_norm):
                spared.put_back_critics()
                spared = None  # everything else has taken its step, and keeps it
        if self.average and math.isfinite(grad_norm):
            self.average.update(step.index + 1)
        critics_norm = float(critics_norm)
        grad_norm = grad_norm if math.isfinite(critics_norm) else critics_norm
        if not math.isfinite(grad_norm):
            return self._faulty(known | refined, grad_norm, lr, parts, spared)
        if self._movement:
            self._movement.stepped((step.index + 1) * self.config.data.global_batch < self.config.optim.warmup_samples)
            self._movement = None if self._movement.decided else self._movement
        return StepReport(known | refined, grad_norm, lr)

    def _updated(
        self, parts: MicroBatches, step: Step, spared: Spared | None
    ) -> tuple[dict[str, Tensor], float | None]:
        """The losses, and one update by them; the norm of all gradients, None where ``spared`` and none was tried."""
        ahead = self.world.ahead and not spared
        before = [(buffer, buffer.clone()) for buffer in self.heads.modules.buffers()] if ahead else []
        known, norm = self._attempt(parts, step, replace(self.world, ahead=ahead), spared)
        if norm is None or math.isfinite(norm) or not ahead:
            return known, norm
        # Perhaps only for what the losses were not to look at: now they may. What heads remember becomes what it was;
        # the model's running statistics have seen this batch as they should.
        self.heads.drop_gradients()
        for buffer, kept in before:
            buffer.copy_(kept)
        with held_statistics(self.method.model):
            return self._attempt(parts, step, replace(self.world, ahead=False), spared)

    def _attempt(
        self, parts: MicroBatches, step: Step, world: World, spared: Spared | None
    ) -> tuple[dict[str, Tensor], float | None]:
        losses = parts.objective(lambda features: self.method.objective(features, step, world))
        terms = {f"loss/{name}": term.detach() for name, term in losses.terms.items()}
        known = {"loss": losses.total.detach(), **terms, **losses.diagnostics}
        if spared and not self._finite(parts):
            return known, None
        model_norm = self._model_update.step(parts, self.heads.unread())
        return known, self.heads.update(model_norm, self.method.clamp_, self._model_update.read)

    def _finite(self, parts: MicroBatches) -> bool:
        """Whether the loss and the gradients that are known before the model's are finite; a collective."""
        self.heads.average()
        return not self.world.max_flag(not parts.finite or bool(self.heads.bad_gradients()))

    def _out_of_bounds(self, step: Step, error: Exception) -> NonFiniteError | None:
        """What an error means that only weights out of all bounds lead to; None if they are as they should be."""
        why = blown_up(self.live, self.critics.modules)
        if why is None:
            return None
        said = (str(error).splitlines() or [type(error).__name__])[0]
        return NonFiniteError(
            f"before step {step.index + 1} {why}, and the loss cannot be computed ({shortened(said, 100)}):"
            f" lower optim.lr (it is {self.config.optim.lr:g}) or optim.clip"
        )

    def _faulty(
        self, losses: dict[str, Tensor], norm: float, lr: float, parts: MicroBatches, spared: Spared | None
    ) -> StepReport:
        """What is told of a step that was not taken, and of which ``spared`` leaves nothing; a collective."""
        of_heads = self.heads.faulty or self.heads.bad_gradients()
        found = {*self._model_update.faulty, *(f"{HEADS}{name}" for name in of_heads)}
        named = [f"{MODEL}{name}" for name, p in self.method.model.named_parameters() if p.requires_grad]
        named += [f"{HEADS}{name}" for name, p in self.heads.modules.named_parameters() if p.requires_grad]
        fault = find_fault(parts.features(), found, named, self.live, self.world)
        self.heads.drop_gradients()
        self._model_update.faulty = set()  # the next step may end before its gradients are looked at
        if spared:
            spared.put_back()
        return StepReport(losses, norm, lr, fault)

    def evaluated_weights(self) -> AbstractContextManager[None]:
        """For the time of an evaluation: the weights that ``averaging.release`` wants looked at. A collective."""
        released = self.config.averaging.released
        return self.average.in_place() if self.average and released is Weights.ema else nullcontext()

    def state_dict(self, spool: Path | None = None) -> dict[str, Tensor] | None:
        """The model's whole float32 weights on rank 0, None elsewhere. A collective: every rank must call it.

        spool: a folder in whose disk those of a model that is divided lie (ZeRO-3), so that no rank holds it whole.
        """
        if self.config.engine.zero == 3:
            return gathered_state(self.deepspeed, spool, keeps=self.world.rank == 0)
        state = self.accelerator.get_state_dict(self.deepspeed)
        return {k: v.detach().cpu() for k, v in state.items()} if self.world.rank == 0 else None

    def close(self) -> None:
        """Leave the process group, when every rank is done."""
        self.accelerator.end_training()

    def _spared(self) -> Spared | None:
        """What a step may change before it turns out not to be finite; None where the run ends then anyway."""
        if self.config.engine.skip_nonfinite == 0:
            return None
        return Spared(self.method, self.critics, self.loss_scale)

    def _encode(self, step: Step, number: int, part: Batch) -> Features:
        # Dropout as a function of (seed, step, rank, micro-batch): no generator state to save, resuming is exact, and
        # encoding again draws the same. The first one's seed has no number: runs in one piece keep their curve.
        numbers = (number,) if number else ()
        _seed(step.sub_seed(step.index, "dropout", self.world.rank, *numbers), self.device)
        return self.method.encode(self.deepspeed, part)

    def _refines(self, *on: RefineOn) -> bool:
        return self.critics.optimizer is not None and self.method.refinement.on in on

    def _features_to_refine_on(self, parts: MicroBatches) -> Features:
        """After everything else has taken its step."""
        if self._refines(RefineOn.previous):
            return parts.used_features()
        with held_statistics(self.method.model):  # this batch has counted
            return parts.encode_again()

    def _refine(self, features: Features, step: Step, *, looks: bool) -> tuple[dict[str, Tensor], float | Tensor]:
        """The critics' own steps; what they lost in the last of them, and their mean gradient norm, as diagnostics; the
        norm by itself, too, which the host has read in every one of them if it ``looks`` or may wait."""
        looks = looks or not self.world.ahead
        losses, norms = Losses({}), []
        self.method.critics.requires_grad_(True)
        for _ in range(self.method.refinement.times):
            losses = self.method.refine(features, step, self.world)
            losses.total.backward()
            norms.append(self.critics.update() if looks else self.critics.update_unread())
        self.method.critics.requires_grad_(False)
        terms = {f"critics/{name}": term.detach() for name, term in losses.terms.items()}
        norm = sum(norms) / len(norms)
        told = norm if isinstance(norm, Tensor) else torch.full((), norm, device=self.device)
        return {**terms, **losses.diagnostics, CRITICS_NORM: told}, norm

    def _set_lr(self, index: int) -> float:
        optim, batch = self.config.optim, self.config.data.global_batch
        factor = lr_factor(optim, (index + 1) * batch, self.config.total_steps * batch, self.drops)
        for group, rate in zip(self.deepspeed.optimizer.param_groups, self._model_rates, strict=True):
            group["lr"] = rate * factor
        for replicated in (self.heads, self.critics):
            replicated.set_lr((optim.heads_lr if optim.heads_lr is not None else optim.lr) * factor)
        return optim.lr * factor


def _seed(seed: int, device: torch.device) -> None:
    """``torch.manual_seed``, which on a machine of CPUs writes the stack down for every kind of device not there."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def mean_over_ranks(values: Mapping[str, Tensor], world: World) -> dict[str, float]:
    """Scalars averaged over all ranks in one collective."""
    return told_over_ranks(values, (), world).means
