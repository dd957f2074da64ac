"""How much a representation says about known latents, in nats: a bound by linear maps, and FactorCL's learned probe.

Bound: with residuals r = w - (A z + b) of the least-squares map, and S_w, S_r the second moments of w and r,

    I(Z; W) >= 1/2 log det S_w - 1/2 log det S_r

holds for Gaussian W, since no residual has more entropy than a Gaussian of the same moments (Barber and Agakov, 2003);
it is exact when Z and W are Gaussian together. A is fitted on one split and the moments are those of another, so it is
no optimiztic figure. It takes a second and has nothing to converge.

Probe: a separable critic F_ij = g(z_i) . h(w_j) learns to tell pairs (z_i, w_i) of one sample from pairs of different
ones: logistic loss on all B x B pairs of a batch (Liang et al. 2023, arXiv 2306.05268, table 1 and released code). At
its optimum F_ij = log p(z, w) / (p(z) p(w)) - log (B - 1), so that

    I(Z; W) = mean_i F_ii + log (B - 1)         F_ii clipped to +-13.8 (probabilities to 1e-6)

A critic that has learned nothing yet says log (B - 1), and one that has learned little says little: between
representations of different shape it tells first of all which of them it learns from faster. ``PUBLISHED`` are the
released code's settings; by default ours takes 8 epochs at 1e-3, and features are centered and divided by one overall
standard deviation, so that the length of embeddings does not decide how fast the critic learns. The mean is always over
samples that the critic has not seen. Shapes: n samples, d width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mmpretrain.losses.critic_networks import SeparableCritic

# Of the largest singular value: what lies below is rounding of float32.
SMALLEST = 1e-6
LARGEST_LOGIT = math.log((1 - 1e-6) / 1e-6)

Pairs = tuple[np.ndarray, np.ndarray]  # representation [n, d] and latents [n, e] of the same samples


def linear_information(train: Pairs, test: Pairs) -> float:
    """The bound of I(representation; latents) in nats on ``test``, with the map fitted on ``train``.

    Slightly below 0 where there is nothing to find. Raises ValueError if ``train`` has fewer samples than features.
    """
    (z, w), (held_z, held_w) = ([np.asarray(side, dtype=np.float64) for side in pairs] for pairs in (train, test))
    if len(z) <= z.shape[1]:
        raise ValueError(f"{len(z)} samples do not determine a map from {z.shape[1]} features: take more samples")
    mean_z, mean_w = z.mean(axis=0), w.mean(axis=0)
    weights = np.linalg.lstsq(z - mean_z, w - mean_w, rcond=SMALLEST)[0]
    residuals = held_w - mean_w - (held_z - mean_z) @ weights
    return 0.5 * (_log_det(held_w - held_w.mean(axis=0)) - _log_det(residuals))


@dataclass(frozen=True)
class ProbeSettings:
    """How the probe learns. epochs: after which of them it is asked, in order. scaled: whether features are brought to
    zero mean and one overall deviation of 1."""

    epochs: Sequence[int] = (8,)
    batch: int = 256
    lr: float = 1e-3
    hidden: int = 512
    scaled: bool = True


# As the released code has it: features as they are, Adam 1e-4, batches of 256, 30 to 80 epochs.
PUBLISHED = ProbeSettings(epochs=(10, 20, 30, 40, 60, 80), lr=1e-4, scaled=False)


def information(
    train: Pairs, test: Pairs, *, epochs: int = 8, batch: int = 256, lr: float = 1e-3, hidden: int = 512
) -> float:
    """I(representation; latents) in nats as ``test`` shows it, with a critic of ``hidden`` units fitted on ``train``.

    Raises ValueError if ``train`` has fewer than ``batch`` samples.
    """
    return information_curve(train, test, ProbeSettings((epochs,), batch, lr, hidden))[-1]


def information_curve(train: Pairs, test: Pairs, settings: ProbeSettings) -> list[float]:
    """The same after each of ``settings.epochs``. Raises ValueError if ``train`` has fewer than a batch."""
    batch = settings.batch
    if len(train[0]) < batch:
        raise ValueError(f"{len(train[0])} samples do not fill a batch of {batch}: take more, or a smaller batch")
    prepared = _scaled if settings.scaled else _plain
    (z, w), (held_z, held_w) = zip(*(prepared(a, b) for a, b in zip(train, test, strict=True)), strict=True)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        critic = SeparableCritic(z.shape[1], w.shape[1], settings.hidden)
    optimizer = torch.optim.Adam(critic.parameters(), lr=settings.lr)
    same = torch.eye(batch)
    found = []
    for epoch in range(1, settings.epochs[-1] + 1):
        for rows in torch.randperm(len(z), generator=generator)[: len(z) // batch * batch].view(-1, batch):
            scores = critic.scores(critic.rows(w[rows]), critic.columns(z[rows]))
            optimizer.zero_grad(set_to_none=True)
            F.binary_cross_entropy_with_logits(scores, same).backward()
            optimizer.step()
        if epoch in settings.epochs:
            found.append(_estimate(critic, held_z, held_w, batch))
    return found


@torch.no_grad()
def _estimate(critic: SeparableCritic, z: Tensor, w: Tensor, batch: int) -> float:
    own = (critic.rows(w) * critic.columns(z)).sum(dim=1)
    return float(own.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).mean()) + math.log(batch - 1)


def _plain(train: np.ndarray, test: np.ndarray) -> tuple[Tensor, Tensor]:
    first, second = (torch.from_numpy(np.asarray(rows, dtype=np.float32)) for rows in (train, test))
    return first, second


def _scaled(train: np.ndarray, test: np.ndarray) -> tuple[Tensor, Tensor]:
    mean = train.mean(axis=0, dtype=np.float64)
    deviation = max(float((train - mean).std()), 1e-12)
    first, second = (torch.from_numpy(((rows - mean) / deviation).astype(np.float32)) for rows in (train, test))
    return first, second


def _log_det(rows: np.ndarray) -> float:
    return float(np.linalg.slogdet(rows.T @ rows / len(rows))[1])
