"""Learned critics of pairs, and the two bounds of mutual information that FactorCL estimates with them.

With scores F_ij = f(a_j, b_i) / temperature for anchors b_i and candidates a_j of all ranks (Liang et al. 2023,
arXiv 2306.05268, equations 10 and 11 as its code evaluates them; natural logarithms, so nats):

    I_NCE = 1/N sum_i [F_ii - log sum_j exp F_ij + log N],  at most log N;    nce returns -I_NCE
    I_CLUB = 1/N sum_i [F_ii - 1/N sum_j F_ij],              at least I_NCE;   club returns I_CLUB

Both are to be minimized. Candidates are negatives for the anchors, not the other way round.

Missing modalities and copies: anchors are the samples whose both sides are valid; their candidates are all valid a_j
but, with ``sample_ids``, other copies of the anchor's sample. N is the number of anchors in means over i and that of an
anchor's candidates elsewhere.

Cost for b own anchors: 3 passes through the critic's inner layers per pair (one forward, two backward), 2 when the
critic is frozen. Memory: losses/critic_strips.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.objective import ObjectiveConfig
from mmpretrain.distributed.world import World
from mmpretrain.losses.agreement import agree
from mmpretrain.losses.critic_networks import Critic
from mmpretrain.losses.critic_strips import Estimator, Strips, swept
from mmpretrain.losses.similarity import at_least_float32, negatives_from
from mmpretrain.losses.visibility import Visible

__all__ = ["CriticTerm", "Estimator", "club", "critic_losses", "nce"]


@dataclass(frozen=True)
class CriticTerm:
    """What to estimate from own rows a [b, da] (candidates for all ranks) and b [b, db] (anchors) of the same samples.

    a_valid, b_valid: bool [b], False for rows of a missing modality, whose contents are ignored.
    """

    critic: Critic
    a: Tensor
    b: Tensor
    estimator: Estimator
    a_valid: Tensor | None = None
    b_valid: Tensor | None = None


def critic_losses(
    terms: Sequence[CriticTerm],
    *,
    world: World,
    settings: ObjectiveConfig | None = None,
    temperature: float = 1.0,
    sample_ids: Tensor | None = None,
) -> list[Tensor]:
    """Scalar per term, this rank's share: its mean over the ranks is that of one process. One gather for all terms.

    Candidates of all ranks are gathered whatever ``settings.negatives`` says, unless it says local: their scores cost
    so much time that their rows never fill the memory. sample_ids: int64 [b], equal for copies of one sample. The
    gradients are made together with the losses; the one that flows into a loss must be the same on all ranks.
    Raises ValueError, on all ranks, when a term's sides or the ranks have different numbers of rows or none, and for a
    temperature that is not a finite number above 0.
    """
    settings = settings or ObjectiveConfig()
    world = negatives_from(world, settings.negatives)
    if not terms:
        raise ValueError("there is no critic to compute a loss of: give at least one term")
    agree(len(terms[0].a), terms[0].a.device, lambda: _check(terms, temperature), world)
    with torch.autocast(terms[0].a.device.type, enabled=False):
        own = [_travels(term) for term in terms]
        gathered = _gather(own, world)
        everyone = Visible.of_terms([(term.a_valid, term.b_valid) for term in terms], own[0], sample_ids, world)
        losses = []
        for term, arrived, visible in zip(terms, gathered, everyone, strict=True):
            columns = term.critic.columns(arrived) if _is_input(term) else arrived
            rows = term.critic.rows(_seen(term.b, term.b_valid))
            strips = Strips(term.critic, term.estimator, temperature, settings, visible)
            losses.append(swept(strips, rows, columns))
    return losses


def nce(critic: Critic, a: Tensor, b: Tensor, *, world: World, **options: Any) -> Tensor:
    """-I_NCE of one critic; options as in :func:`critic_losses`."""
    return critic_losses([CriticTerm(critic, a, b, Estimator.nce)], world=world, **options)[0]


def club(critic: Critic, a: Tensor, b: Tensor, *, world: World, **options: Any) -> Tensor:
    """I_CLUB of one critic; options as in :func:`critic_losses`."""
    return critic_losses([CriticTerm(critic, a, b, Estimator.club)], world=world, **options)[0]


def _check(terms: Sequence[CriticTerm], temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"the critics' temperature is {temperature:g}: it must be a finite number above 0")
    sizes = {len(side) for term in terms for side in (term.a, term.b)}
    if len(sizes) > 1:
        raise ValueError(f"critics compare rows of the same samples, but the sides have {sorted(sizes)} rows")


def _seen(rows: Tensor, valid: Tensor | None) -> Tensor:
    rows = at_least_float32(rows)
    return rows if valid is None else torch.where(valid[:, None], rows, 0)


def _is_input(term: CriticTerm) -> bool:
    return term.critic.travels_as_input(term.a.shape[1])


def _travels(term: CriticTerm) -> Tensor:
    """What other ranks need of the candidates, in its shorter form: the inputs themselves, or what the critic makes of
    them."""
    seen = _seen(term.a, term.a_valid)
    return seen if _is_input(term) else term.critic.columns(seen)


def _gather(own: Sequence[Tensor], world: World) -> list[Tensor]:
    """Everyone's rows of each tensor; without a gradient where this rank's need none."""
    gathered = world.all_gather_rows(torch.cat(list(own), dim=1)).split([rows.shape[1] for rows in own], dim=1)
    return [rows if mine.requires_grad else rows.detach() for rows, mine in zip(gathered, own, strict=True)]
