"""One training step's losses and gradients: on a rank, on one process, and by the dense formulas."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor, nn

from mmpretrain.config.methods.names import M3colConfig, MixScope
from mmpretrain.config.objective import HardNegatives
from mmpretrain.config.root import Config
from mmpretrain.data.batch import NEGATIVES, Batch, Inputs
from mmpretrain.data.step import Step
from mmpretrain.distributed.batch_norm import synchronize
from mmpretrain.distributed.replicas import average_gradients
from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Features, Losses, Method
from mmpretrain.methods.clip import Clip
from mmpretrain.methods.m3col import M3col, Phase
from mmpretrain.models.encoders_mmpretrain import Encoder
from tests.losses import oracle
from tests.losses.dense_negatives import Further, contrast_further, further_of
from tests.methods.dense_baselines import cross_self_total, siglip_total, supcon_total
from tests.methods.dense_cmcr import cmcr_total
from tests.methods.dense_comm import comm_total
from tests.methods.dense_factorcl import factorcl_total
from tests.methods.dense_mucmm import mucmm_total
from tests.methods.toys import having_both, make_batch, make_method, make_step
from tests.submodules import every


@dataclass
class Outcome:
    """values: losses and diagnostics by name, of this rank. grads: by parameter, averaged over the ranks.

    Those of critics are of the loss that they learn from. buffers: of model and heads (running statistics) after the
    step.
    """

    values: dict[str, float]
    grads: dict[str, Tensor] = field(default_factory=dict)
    buffers: dict[str, Tensor] = field(default_factory=dict)


def run_step(
    config: Config,
    epoch: float,
    dtype: torch.dtype = torch.float64,
    part: tuple[int, int] | None = None,
    change: Callable[[Method], None] | None = None,
) -> Outcome:
    """One step of the real method on this rank's rows, or on the whole batch without a process group.

    part: (number, of how many) parts of the batch to take instead. change: what is done to the method first.
    """
    world = World.current()
    method = make_method(config, dtype=dtype)
    if change:
        change(method)
    synchronize(method.model, world)
    synchronize(method.heads, world)
    batch, step = make_batch(config, *(part or (world.rank, world.size)), dtype=dtype), make_step(epoch)
    features = method.encode(method.model, method.prepare(batch, step))
    method.critics.requires_grad_(False)
    losses = method.objective(features, step, world)
    losses.total.backward()
    values = {"total": losses.total} | losses.terms | losses.diagnostics
    if method.critics:
        refined = refine(method, features, batch, step, world)
        values |= {f"critics/{name}": term for name, term in refined.terms.items()}
    modules = (method.model, method.heads, method.critics)
    average_gradients([parameter for module in modules for parameter in module.parameters()], world)
    numbers = {name: value.item() for name, value in values.items()}
    return Outcome(numbers, gradients(method), dict([*method.model.named_buffers(), *method.heads.named_buffers()]))


def add_batch_norms(method: Method) -> None:
    """A batch norm behind every encoder, its weights not the usual ones."""
    for encoder in every(method.model.encoders.values(), Encoder):
        norm = nn.BatchNorm1d(encoder.output_size).double()
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        encoder.add_module("norm", norm)
        # Behind the backbone, where also a fusion takes its states from.
        encoder.backbone.register_forward_hook(lambda module, inputs, output, norm=norm: norm(output))


def refine(method: Method, features: Features, batch: Batch, step: Step, world: World) -> Losses:
    """What the critics learn from, with its gradients in them; features without graph, as the engine has it."""
    method.critics.requires_grad_(True)
    losses = method.refine(features.with_tensors([t.detach() for t in features.tensors], batch), step, world)
    losses.total.backward()
    return losses


def run_oracle(config: Config, epoch: float, dtype: torch.dtype = torch.float64) -> Outcome:
    """The same step by the dense formulas."""
    method = make_method(config, dtype=dtype)
    total = dense_total(config.method.name)(method, config, make_step(epoch))
    total.backward()
    return Outcome({"total": total.item()}, gradients(method))


def clip_total(method: Method, config: Config, step: Step) -> Tensor:
    """The mean of InfoNCE over all pairs."""
    assert isinstance(method, Clip)
    batch = make_batch(config)
    embeds = method.model(**batch.inputs).embeds
    scale = method.temperature.logit_scale.exp()
    further = {name: further_of(method, name, tensors) for name, tensors in batch.views.get(NEGATIVES, {}).items()}
    terms = []
    for a, b in combinations(method.modalities, 2):
        both = having_both(batch, a, b)
        if not both.any():
            continue
        sides, ids = (embeds[a][both], embeds[b][both]), batch.sample_ids[both]
        if not further and config.objective.false_negative_margin is None:
            terms.append(oracle.contrast(*sides, scale, ids=ids).loss)
            continue
        of_query, of_key = (Further(f.rows[both], f.there[both]) if f else None for f in map(further.get, (a, b)))
        terms.append(
            contrast_further(
                *sides,
                scale,
                of_key=of_key,
                of_query=of_query,
                own=config.objective.hard_negatives is HardNegatives.own,
                margin=config.objective.false_negative_margin,
                ids=ids,
            ).loss
        )
    return torch.stack(terms).mean()


def m3col_total(method: Method, config: Config, step: Step) -> Tensor:
    """Sections 2 to 2.3; only the random draws come from the method."""
    assert isinstance(method, M3col) and isinstance(config.method, M3colConfig)
    settings = config.method
    batch = make_batch(config)
    ids = batch.sample_ids
    output = method.model(**batch.inputs)
    embeds, labels = output.embeds, batch.labels
    assert labels is not None
    total = oracle.nll(output.logits, labels)
    for name in method.modalities if settings.unimodal_weight else ():
        alone = oracle.nll(method.heads[f"unimodal_{name}"](embeds[name]), labels)
        total = total + settings.unimodal_weight * alone
    if method.phase(step) is Phase.none:
        return total
    count = len(method.modalities)
    ordered = [(method.modalities[i], method.modalities[(i + 1) % count]) for i in range(count)]
    if method.phase(step) is Phase.soft:
        scale = 1 / settings.soft_temperature
        alike = {name: oracle.Likeness(rows, scale, settings.detach_targets) for name, rows in embeds.items()}
        terms = [oracle.contrast(embeds[a], embeds[b], scale, alike[b], ids=ids) for a, b in ordered]
    else:
        mixed, targets = _mixed(method, settings, embeds, batch.inputs, step)
        keys, scale = mixed if settings.official_aliasing else embeds, 1 / settings.temperature
        terms = [oracle.contrast(mixed[a], keys[b], scale, targets[a], ids=ids) for a, b in ordered]
    return total + settings.weight * torch.stack([term.loss for term in terms]).sum()


def _mixed(
    method: M3col, settings: M3colConfig, embeds: dict[str, Tensor], inputs: Inputs, step: Step
) -> tuple[dict[str, Tensor], dict[str, oracle.Partners]]:
    mixed, targets = {}, {}
    for name in method.modalities:
        size = len(embeds[name])
        if settings.mix_scope is MixScope.global_batch:
            drawn = method.mixer.whole_batch(size, torch.arange(size), name, step)
        else:
            assert settings.mix_group is not None
            drawn = method.mixer.group(torch.arange(size), settings.mix_group, name, step)
        lam = drawn.weight[:, None]
        at_input = name in method.at_input
        clean = inputs[name]["values"] if at_input else embeds[name]
        blend = lam * clean + (1 - lam) * clean[drawn.partner]
        mixed[name] = method.model(**{name: {"values": blend}}).embeds[name] if at_input else blend
        # The released rule assigns 1 - lam to a sample that is mixed with itself, where ours adds it.
        replaced = settings.official_self_pairs & (drawn.partner == torch.arange(size))
        own = torch.where(replaced, 0, drawn.weight)
        targets[name] = oracle.Partners(own, 1 - drawn.weight, drawn.partner)
    return mixed, targets


# The dense formulas by method: (method, config, step) -> total loss. A method that is not among them has its own in
# ``total`` of tests/methods/dense_NAME.py.
TOTALS: dict[str, Callable[[Method, Config, Step], Tensor]] = {
    "clip": clip_total,
    "cmcr": cmcr_total,
    "comm": comm_total,
    "cross_self": cross_self_total,
    "factorcl": factorcl_total,
    "m3col": m3col_total,
    "mucmm": mucmm_total,
    "siglip": siglip_total,
    "supcon": supcon_total,
}


def dense_total(name: str) -> Callable[[Method, Config, Step], Tensor]:
    """The dense formula of the method called ``name``."""
    if name in TOTALS:
        return TOTALS[name]
    found: Callable[[Method, Config, Step], Tensor] = importlib.import_module(f"tests.methods.dense_{name}").total
    return found


def gradients(method: Method) -> dict[str, Tensor]:
    """Gradients of the model's, the heads' and the critics' parameters by name."""
    named = [*method.model.named_parameters(), *method.heads.named_parameters(prefix="heads")]
    named += method.critics.named_parameters(prefix="critics")
    return {name: p.grad.detach().clone() for name, p in named if p.grad is not None}


def worst_relative_error(grads: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    """The largest error of any parameter's gradient, relative to that gradient's largest entry.

    A bias that a batch norm takes away again has a gradient of 0 up to rounding: that is held against the largest one.
    """
    assert grads.keys() == reference.keys()
    sizes = {name: g.abs().max().item() for name, g in reference.items()}
    assert all(size > 0 for name, size in sizes.items() if not name.endswith("bias"))
    largest = max(sizes.values())
    scales = {name: size if size > 1e-12 * largest else largest for name, size in sizes.items()}
    return max((grads[n] - g).abs().max().item() / scales[n] for n, g in reference.items())
