"""SigLIP, SupCon and Cross+Self once more, from their papers' equations, with whole N x N matrices on one process."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import torch
from torch import Tensor, nn

from mmpretrain.config.methods.names import CrossInputs, CrossLoss, CrossSelfConfig, SupconConfig
from mmpretrain.config.objective import HardNegatives
from mmpretrain.config.root import Config
from mmpretrain.data.batch import NEGATIVES, Inputs
from mmpretrain.data.step import Step
from mmpretrain.losses.temperature import Temperature
from mmpretrain.methods.base import Method
from mmpretrain.methods.cross_self import CrossSelf
from mmpretrain.methods.siglip import Bias
from mmpretrain.models.heads_mmpretrain import MLPHead
from tests.losses import oracle
from tests.losses.dense_negatives import Further, contrast_further, further_of
from tests.methods.toys import having_both, make_batch
from tests.submodules import linear_layers, submodule


def siglip_total(method: Method, config: Config, step: Step) -> Tensor:
    """Equation 1, the mean over all pairs; other copies of a sample are left out."""
    batch = make_batch(config)
    embeds = {name: oracle.unit(rows) for name, rows in method.model(**batch.inputs).embeds.items()}
    scale = submodule(method.heads, "temperature", Temperature).logit_scale.exp()
    bias = submodule(method.heads, "bias", Bias).value
    view = batch.views.get(NEGATIVES, {})
    further = {name: further_of(method, name, tensors) for name, tensors in view.items()}
    losses = []
    for a, b in combinations(method.modalities, 2):
        both = having_both(batch, a, b)
        size, ids = int(both.sum()), batch.sample_ids[both]
        itself = torch.eye(size, dtype=torch.bool)
        logits = scale * embeds[a][both] @ embeds[b][both].T + bias
        terms = torch.log1p(torch.exp((1 - 2 * itself.double()) * logits))
        total = terms[(ids[:, None] != ids) | itself].sum()
        for rows, name in ((embeds[a], b), (embeds[b], a)):
            if name in further:
                total = total + unlike(rows[both], further[name], both, ids, scale, bias, config)
        losses.append(total / size)
    return torch.stack(losses).mean()


def unlike(
    rows: Tensor, further: Further, both: Tensor, ids: Tensor, scale: Tensor, bias: Tensor, config: Config
) -> Tensor:
    """Sum over these rows [n, d] and the hard negatives that they see, with z = -1."""
    itself = torch.eye(len(rows), dtype=torch.bool)
    own = config.objective.hard_negatives is HardNegatives.own
    seen = itself if own else (ids[:, None] != ids) | itself
    logits = (
        scale
        * torch.einsum("id,jkd->ijk", rows, oracle.unit(further.rows[both].flatten(0, 1)).unflatten(0, (len(rows), -1)))
        + bias
    )
    return torch.log1p(torch.exp(logits))[seen[:, :, None] & further.there[both]].sum()


def supcon_total(method: Method, config: Config, step: Step) -> Tensor:
    """Equation 2 with the modalities as views, the mean over all pairs."""
    assert isinstance(config.method, SupconConfig)
    batch = make_batch(config)
    labels = batch.labels
    assert labels is not None
    rows = {}
    for name, embed in method.model(**batch.inputs).embeds.items():
        head = submodule(method.heads, f"projection_{name}", MLPHead)
        hidden, output = head.hidden, head.output
        rows[name] = (embed @ hidden.weight.T + hidden.bias).clamp(min=0) @ output.weight.T + output.bias
    losses = [out_of_2n(rows[a], rows[b], labels, config.method.temperature) for a, b in combinations(rows, 2)]
    return torch.stack(losses).mean()


def out_of_2n(first: Tensor, second: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The mean over the 2N rows i of - 1/|P(i)| sum over P(i) of log softmax over A(i)."""
    rows, classes = oracle.unit(torch.cat([first, second])), labels.repeat(2)
    itself = torch.eye(len(rows), dtype=torch.bool)
    log_share = (rows @ rows.T / temperature).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    alike = (classes[:, None] == classes) & ~itself
    return -torch.stack([log_share[i][alike[i]].mean() for i in range(len(rows))]).mean()


def cross_self_total(method: Method, config: Config, step: Step) -> Tensor:
    """Comparisons of modalities and of views; only the random draws come from the method."""
    assert isinstance(method, CrossSelf) and isinstance(config.method, CrossSelfConfig)
    settings, batch, scale = config.method, make_batch(config), 1 / config.method.temperature
    views = method.prepare(batch, step).views
    plain = views["first"] if settings.cross_inputs is CrossInputs.view else batch.inputs
    ids, margin = batch.sample_ids, config.objective.false_negative_margin
    contrast = oracle.contrast if margin is None else partial(contrast_further, margin=margin)

    def project(inputs: Inputs) -> dict[str, Tensor]:
        embeds = method.model(**inputs).embeds
        return {name: batch_norm_mlp(method.heads[f"projection_{name}"], embed) for name, embed in embeds.items()}

    pairs = list(combinations(method.modalities, 2))
    if settings.cross is CrossLoss.clip:
        learned = submodule(method.heads, "temperature", Temperature).logit_scale.exp()
        embeds = method.model(**plain).embeds
        rows = {m: e @ submodule(method.heads, f"linear_{m}", nn.Linear).weight.T for m, e in embeds.items()}
        cross = [contrast(rows[a], rows[b], learned, ids=ids).loss for a, b in pairs]
    else:
        rows = project(plain)
        cross = [contrast(rows[a], rows[b], scale, ids=ids, same_side=True).loss for a, b in pairs]
    total = torch.stack(cross).mean()
    if settings.self_weight:
        first, second = project(views["first"]), project(views["second"])
        for name in method.modalities:
            term = contrast(first[name], second[name], scale, ids=ids, same_side=True).loss
            total = total + settings.self_weight * term
    return total


def batch_norm_mlp(head: nn.Module, x: Tensor) -> Tensor:
    """Three linear layers, the first two followed by batch norm over these rows and by ReLU."""
    linear = linear_layers(head)
    norms = [layer for layer in head.modules() if isinstance(layer, nn.BatchNorm1d)]
    for layer, norm in zip(linear[:2], norms, strict=True):
        x = x @ layer.weight.T + layer.bias
        deviation = (x - x.mean(dim=0)).pow(2).mean(dim=0)
        x = ((x - x.mean(dim=0)) / (deviation + norm.eps).sqrt() * norm.weight + norm.bias).clamp(min=0)
    return x @ linear[2].weight.T + linear[2].bias
