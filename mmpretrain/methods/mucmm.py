"""MUCMM: multimodal understanding through correlation maximization and minimization (Shi and Niethammer, 2023).

arXiv 2305.03125. A RECONSTRUCTION: of the paper, only title, abstract and the first lines of the introduction were
read. They say that each modality gets a common and an individual code on top of pretrained networks, by maximizing and
minimizing correlation. The formulas are this project's, from the literature of canonical correlations
(docs/methods/mucmm.md).

With embeddings h_m, common codes c_m [k_c], individual codes u_m [k_u], K(a, b) the whitened cross-correlation and
rho_i its singular values (losses/correlation.py), over all pairs m, l of modalities:

    L = L_common + alpha (w_individual L_individual + w_own L_own + w_other L_other) + gamma L_reconstruction

    L_common         = - mean over m < l of 1/k_c sum_i rho_i(c_m, c_l)                      maximization (deep CCA)
    L_individual     = sum over m < l of ||K(u_m, u_l)||_F^2 / min(k_u)                      minimization
    L_own            = sum over m of ||K(u_m, c_m)||_F^2 / min(k_u, k_c)
    L_other          = sum over m != l of ||K(u_m, c_l)||_F^2 / min(k_u, k_c)
    L_reconstruction = sum over m of the share of h_m's variance that [c_m, u_m] leave to a linear decoder

Options: max_power=2 sums rho^2; among=maxvar correlates all c_m with one code; corr=soft takes plain correlations of
standardized codes (Soft-CCA, Barlow Twins) in the place of K and of L_common. All are functions of the moments of
[h, c, u] over the whole batch, averaged over past batches (momentum): moments travel, samples do not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import combinations, permutations
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.methods.names import Among, Corr, MucmmConfig, Start
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.modes import evaluating
from mmpretrain.distributed.moments import Moments, PooledMoments, RunningMoments, moments
from mmpretrain.distributed.replicas import broadcast_module, broadcast_tensors
from mmpretrain.distributed.world import World
from mmpretrain.losses.correlation import (
    Blocks,
    Name,
    agreement,
    mean_correlation,
    redundancy,
    standardize,
    sum_of_correlations,
    sum_of_squares,
    unexplained,
    whiten,
)
from mmpretrain.methods.base import Features, Losses, Method, Once
from mmpretrain.methods.mucmm_closed_form import COMMON, EMBED, INDIVIDUAL, columns, finish, raw, start
from mmpretrain.models.components_mmpretrain import Components
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel


class Mucmm(Method):
    """See the module's docstring; two or more modalities, no labels, a model with components.

    heads: ``moments``, the running ones (none with momentum=0).
    """

    def __init__(self, config: Config, model: MMPretrainModel, augmenter: Augmenter | None = None) -> None:
        super().__init__(config, model, augmenter)
        assert isinstance(config.method, MucmmConfig)
        self.settings = config.method
        self.dtype: torch.dtype = getattr(torch, config.engine.precision.value)
        self.log_every_steps, self.total_steps = config.train.log_every_steps, config.total_steps
        self.components = {name: _components(model, name) for name in self.modalities}
        self.embeds = {(EMBED, name): model.embed_sizes[name] for name in self.modalities}
        self.codes = {(COMMON, name): part.common.width for name, part in self.components.items()}
        self.codes |= {(INDIVIDUAL, name): part.individual.width for name, part in self.components.items()}
        self.widths = (self.embeds if self.settings.gamma else {}) | self.codes
        if self.settings.momentum:
            self.heads["moments"] = RunningMoments(sum(self.widths.values()), self.settings.momentum)

    def initialize(self, batches: Callable[[int], Iterable[Batch]], world: World) -> None:
        """Whitening, and linear heads at the closed form, by ``start_samples`` samples of the stream."""
        pooled = PooledMoments()
        self.model.to(device=world.device)  # type: ignore[call-arg]
        with evaluating(self.model), torch.no_grad():
            for batch in batches(self.settings.start_samples):
                # DeepSpeed, which brings autocast, takes the model over later.
                with torch.autocast(world.device.type, self.dtype, enabled=self.dtype is not torch.float32):
                    rows = _rows(self.encode(self.model, batch), self.embeds)
                pooled.add(rows)
        known = _finite(
            pooled.moments(world), "embeddings are not finite before the first step: look at data and encoders"
        )
        means, found = columns(known, self.embeds)
        start(self.components, means, found, self.settings.variance, solve=self.settings.start is Start.closed_form)
        # Decompositions need not agree between machines: a sign, or directions that vary equally.
        for part in self.components.values():
            broadcast_module(part, world)

    def taken_over(self, parts: Collection[str]) -> bool:
        """See :class:`Method`: whitening and heads of all modalities; codes of a release become what heads give."""
        if not {f"components.{name}" for name in self.components} <= set(parts):
            return False
        raw(self.components.values())
        return True

    def encode(self, model: Any, batch: Batch) -> Features:
        """One call of the model."""
        output = model(**batch.inputs)
        return Features.of(batch, output.embeds, views={COMMON: output.shared_embeds, INDIVIDUAL: output.unique_embeds})

    def objective(self, features: Features, step: Step, world: World) -> Losses:
        """The terms that have a weight; unexplained variances and, on steps that are logged, correlations as
        diagnostics."""
        found = self.average(moments(_rows(features, self.widths), world=world))
        return self.losses(found, told=self._told(step), ahead=world.ahead)

    def conclude(self, model: Any, batches: Iterable[Once], world: World) -> None:
        """Freeze means, whitening and rotation of the codes, by the whole training split."""
        raw(self.components.values())
        pooled, widths = PooledMoments(), self.embeds | self.codes
        with evaluating(model), torch.no_grad():
            for batch, counted in batches:
                pooled.add(_rows(self.encode(model, batch), widths), counted)
        known = _finite(
            pooled.moments(world),
            "embeddings or codes are not finite after the last step: training has diverged; lower optim.lr or set"
            " optim.clip",
        )
        finish(self.components, *columns(known, widths))
        # Buffers alone: parameters may be shards by now.
        broadcast_tensors((buffer for part in self.components.values() for buffer in part.buffers()), world)

    def average(self, batch: Moments) -> Moments:
        """``batch``, or the running moments up to it."""
        found: Moments = self.heads["moments"](batch) if self.settings.momentum else batch
        return found

    def losses(self, found: Moments, *, told: bool = True, ahead: bool = False) -> Losses:
        """All terms as functions of the moments of the columns ``widths``.

        told: whether correlations are diagnosed even where that takes a decomposition of their own. ahead: whether the
        host must not wait for decompositions.
        """
        settings, every = self.settings, Blocks(found.covariance, self.widths)
        codes = every.only(list(self.codes))
        cross = standardize(codes) if settings.corr is Corr.soft else whiten(codes, settings.ridge)
        weights = {
            "common": 1.0,
            "individual": settings.alpha * settings.w_individual,
            "own": settings.alpha * settings.w_own,
            "other": settings.alpha * settings.w_other,
            "reconstruction": settings.gamma,
        }
        left = self._unexplained(every)
        common, correlated = self._common(cross, ahead)
        terms = {
            "common": common,
            "individual": self._minimized(cross, [((INDIVIDUAL, m), (INDIVIDUAL, n)) for m, n in self.pairs]),
            "own": self._minimized(cross, [((INDIVIDUAL, m), (COMMON, m)) for m in self.modalities]),
            "other": self._minimized(
                cross, [((INDIVIDUAL, m), (COMMON, n)) for m, n in permutations(self.modalities, 2)]
            ),
            "reconstruction": sum(left.values(), found.mean.new_zeros(())),
        }
        kept = {name: term for name, term in terms.items() if weights[name]}
        if correlated is None and told:
            correlated = self._correlations(cross, ahead)
        diagnostics = {f"correlation/{m}-{n}": of for (m, n), of in zip(self.pairs, correlated or (), strict=False)}
        diagnostics |= {f"unexplained/{m}": share.detach() for m, share in left.items()}
        return Losses(kept, {name: weights[name] for name in kept}, diagnostics)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All unordered pairs of modalities."""
        return list(combinations(self.modalities, 2))

    def _told(self, step: Step) -> bool:
        """Whether the step is one of those that are logged as a matter of course."""
        done = step.index + 1
        return done % self.log_every_steps == 0 or done == self.total_steps

    def _common(self, cross: Blocks, ahead: bool) -> tuple[Tensor, list[Tensor] | None]:
        """The term, and the mean correlation of each pair; None where the term doesn't hold them."""
        width = cross.widths[COMMON, self.modalities[0]]
        if self.settings.among is Among.maxvar:
            return -agreement(cross.only([(COMMON, name) for name in self.modalities]), width, ahead=ahead), None
        blocks = [cross.of((COMMON, m), (COMMON, n)) for m, n in self.pairs]
        if self.settings.corr is Corr.soft:
            plain = [block.detach().diagonal().mean() for block in blocks]
            return torch.stack([redundancy(block) for block in blocks]).mean(), plain
        if self.settings.max_power == 2:
            return -torch.stack([sum_of_squares(block) for block in blocks]).mean() / width, None
        sums = torch.stack([sum_of_correlations(block, ahead=ahead) for block in blocks])
        return -sums.mean() / width, list(sums.detach() / width)

    def _minimized(self, cross: Blocks, pairs: list[tuple[Name, Name]]) -> Tensor:
        blocks = [cross.of(a, b) for a, b in pairs]
        return torch.stack([sum_of_squares(block) / min(block.shape) for block in blocks]).sum()

    def _unexplained(self, every: Blocks) -> dict[str, Tensor]:
        """Of every modality, if anything is to be reconstructed."""
        if not self.settings.gamma:
            return {}
        given = {name: [(COMMON, name), (INDIVIDUAL, name)] for name in self.modalities}
        return {m: unexplained(every, (EMBED, m), codes, self.settings.ridge) for m, codes in given.items()}

    def _correlations(self, cross: Blocks, ahead: bool) -> list[Tensor]:
        """The mean correlation of the common codes of each pair of modalities."""
        return [mean_correlation(cross.of((COMMON, m), (COMMON, n)), ahead=ahead) for m, n in self.pairs]


def _finite(found: Moments, otherwise: str) -> Moments:
    """``found``. Raises ValueError on all ranks, as moments are the same on all of them."""
    if not (found.mean.isfinite().all() and found.covariance.isfinite().all()):
        raise ValueError(otherwise)
    return found


def _components(model: MMPretrainModel, name: str) -> Components:
    found = model.components[name]
    assert isinstance(found, Components)
    return found


def _rows(features: Features, widths: Iterable[Name]) -> Tensor:
    """[b, D]: the columns ``widths`` of a batch side by side."""
    parts = {EMBED: features.embeds, **features.views}
    return torch.cat([parts[kind][name] for kind, name in widths], dim=1)
