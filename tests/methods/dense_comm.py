"""CoMM once more: masked modalities are not passed at all, N x N similarities, on one process."""

from __future__ import annotations

import torch
from torch import Tensor

from mmpretrain.config.methods.names import CommConfig, Pairing, Terms
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Inputs
from mmpretrain.data.step import Step
from mmpretrain.methods.base import Method
from tests.losses.oracle import unit
from tests.methods.dense_baselines import batch_norm_mlp
from tests.methods.toys import make_batch


def comm_total(method: Method, config: Config, step: Step) -> Tensor:
    """The sum of equation 7, or the released code's mean."""
    terms = comm_terms(method, config, step)
    total = sum(terms.values(), torch.zeros(()))
    assert isinstance(config.method, CommConfig)
    return total if config.method.pairing is Pairing.paper else total / (len(method.modalities) + 1)


def comm_terms(method: Method, config: Config, step: Step) -> dict[str, Tensor]:
    """``fused`` and one by modality; only the random draws come from the method."""
    settings, batch = config.method, make_batch(config)
    assert isinstance(settings, CommConfig)
    views = method.prepare(batch, step).views
    head, ids, t = method.heads["projection"], batch.sample_ids, settings.temperature
    everyone = torch.ones(len(ids), dtype=torch.bool)
    first, second = (batch_norm_mlp(head, whole(method, views[name])) for name in ("first", "second"))

    def alone(inputs: Inputs, name: str, valid: Tensor) -> Tensor:
        embeds = method.model(**{name: {"values": inputs[name]["values"][valid]}}).embeds[name]
        return batch_norm_mlp(head, embeds)

    def term(name: str) -> Tensor:
        valid = batch.present.get(name, everyone)
        if settings.pairing is Pairing.paper:
            own = alone(batch.inputs, name, valid)
            return (info_nce(own, first, ids, valid, t) + info_nce(own, second, ids, valid, t)) / 2
        own_first, own_second = (alone(views[view], name, valid) for view in ("first", "second"))
        return (nt_xent(own_first, second, ids, valid, t) + nt_xent(own_second, first, ids, valid, t)) / 2

    compare = info_nce if settings.pairing is Pairing.paper else nt_xent
    terms = {"fused": compare(first, second, ids, everyone, t)} if settings.terms is not Terms.unimodal else {}
    return terms | ({name: term(name) for name in method.modalities} if settings.terms is not Terms.fused else {})


def whole(method: Method, inputs: Inputs) -> Tensor:
    """[N, d]: every sample on its own, with the modalities that it has."""
    count, rows = len(next(iter(inputs.values()))["values"]), []
    for i in range(count):
        having = {m: x["values"][i : i + 1] for m, x in inputs.items() if "present" not in x or x["present"][i]}
        rows.append(method.model(**{m: {"values": values} for m, values in having.items()}).fused_embeds)
    return torch.cat(rows)


def info_nce(own: Tensor, keys: Tensor, ids: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """-I_NCE(own, keys), from the ``valid`` samples' own rows to everyone's keys; other copies of a sample left out."""
    cosines = unit(own) @ unit(keys).T / temperature
    itself = torch.eye(len(ids), dtype=torch.bool)[valid]
    copies = (ids[valid][:, None] == ids) & ~itself
    return (cosines.masked_fill(copies, -torch.inf).logsumexp(dim=1) - cosines[itself]).mean()


def nt_xent(own: Tensor, keys: Tensor, ids: Tensor, valid: Tensor, temperature: float) -> Tensor:
    """Every row of ``own`` (of the ``valid`` samples) and ``keys`` out of all others; those of a pair count."""
    number = torch.arange(len(ids))
    rows, sample = torch.cat([unit(own), unit(keys)]), torch.cat([number[valid], number])
    logits = rows @ rows.T / temperature
    same, copy = sample[:, None] == sample, ids[sample][:, None] == ids[sample]
    itself = torch.eye(len(rows), dtype=torch.bool)
    counterpart = same & ~itself
    losses = logits.masked_fill(itself | (copy & ~same), -torch.inf).logsumexp(dim=1)[counterpart.any(dim=1)]
    return (losses - logits[counterpart]).mean()
