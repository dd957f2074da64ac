"""FactorCL once more: every pair through its plain critic, N x N scores, on one process."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from mmpretrain.config.methods.names import Condition, FactorclConfig, LabelInput, Supervision
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.losses.critic_networks import PairwiseCritic, SeparableCritic
from mmpretrain.methods.base import Method
from tests.methods.toys import make_batch

Sides = dict[str, tuple[Tensor, Tensor]]  # term -> candidates and anchors


def factorcl_total(method: Method, config: Config, step: Step) -> Tensor:
    """Equations 94 to 99; the critics of the upper bounds get the gradients of what they learn from at once."""
    assert isinstance(config.method, FactorclConfig)
    terms = factorcl_terms(method, config, method.prepare(make_batch(config), step))
    torch.stack([term for name, term in terms.items() if name.startswith("critics/")]).sum().backward()
    twice = config.method.doubly_counted
    once = ("shared", "shared_conditional", *(f"task_{name}" for name in method.modalities))
    return sum(terms[name] for name in once) + twice * (terms["unique"] + terms["unique_conditional"])


def factorcl_terms(method: Method, config: Config, batch: Batch) -> dict[str, Tensor]:
    """The six terms, and the two of algorithm 3's second step as ``critics/NAME``."""
    settings = config.method
    assert isinstance(settings, FactorclConfig)
    terms = {}
    for name, (a, b) in sides(method, settings, batch, config.data.classes or 0).items():
        if name in method.heads:
            terms[name] = -nce(scores(method.heads[name], a, b) / settings.temperature, batch.sample_ids)
            continue
        fixed = deepcopy(method.critics[name]).requires_grad_(False)
        terms[name] = club(scores(fixed, a, b) / settings.temperature, batch.sample_ids)
        own = scores(method.critics[name], a.detach(), b.detach()) / settings.temperature
        terms[f"critics/{name}"] = -nce(own, batch.sample_ids)
    return terms


def sides(method: Method, settings: FactorclConfig, batch: Batch, classes: int) -> Sides:
    """Sections 1.3 to 1.5, head by head: A to E are those of the first modality's samples, a to e of the second's."""
    first, second = method.modalities
    (A, B, C, D, E), (a, b, c, d, e) = (heads(method, batch, name, "") for name in (first, second))
    if settings.form is Supervision.ssl:
        (_, B_, C_, _, E_), (_, b_, c_, _, e_) = (heads(method, batch, name, "augmented") for name in (first, second))
    else:
        assert batch.labels is not None
        onehot = torch.eye(classes, dtype=A.dtype)[batch.labels]
        C_ = c_ = onehot if settings.label_input is LabelInput.onehot else batch.labels.reshape(-1, 1).to(A.dtype)
        B_ = E_ = onehot
        b_ = e_ = onehot if settings.condition is Condition.both else torch.empty(len(onehot), 0)
    return {
        "shared": (A, a),
        "shared_conditional": (torch.hstack([B, B_]), torch.hstack([b, b_])),
        f"task_{first}": (C, C_),
        f"task_{second}": (c, c_),
        "unique": (D, d),
        "unique_conditional": (torch.hstack([E, E_]), torch.hstack([e, e_])),
    }


def heads(method: Method, batch: Batch, name: str, view: str) -> list[Tensor]:
    """A to E of one modality."""
    inputs = batch.views[view] if view else batch.inputs
    output = method.model(**{name: inputs[name]})
    width = output.shared_embeds[name].shape[1] // 2
    return list(torch.hstack([output.shared_embeds[name], output.unique_embeds[name]]).split(width, dim=1))


def scores(critic: nn.Module, a: Tensor, b: Tensor) -> Tensor:
    """F[i, j] = f(a_j, b_i): an MLP on all N^2 concatenations, or products of two."""
    size = len(a)
    if isinstance(critic, SeparableCritic):
        return critic.h(b) @ critic.g(a).T
    assert isinstance(critic, PairwiseCritic)
    pairs = torch.hstack([a.repeat(size, 1), b.repeat_interleave(size, dim=0)])
    return critic.network(pairs).reshape(size, size)


def nce(scores: Tensor, ids: Tensor) -> Tensor:
    """I_NCE; other copies of a sample are not its negatives."""
    seen = visible(ids)
    counts = seen.sum(dim=1).to(scores)
    return (scores.diag() - scores.masked_fill(~seen, -torch.inf).logsumexp(dim=1) + counts.log()).mean()


def club(scores: Tensor, ids: Tensor) -> Tensor:
    """I_CLUB, likewise."""
    seen = visible(ids)
    return (scores.diag() - (scores * seen).sum(dim=1) / seen.sum(dim=1)).mean()


def visible(ids: Tensor) -> Tensor:
    """bool [N, N]."""
    return (ids[:, None] != ids) | torch.eye(len(ids), dtype=torch.bool)
