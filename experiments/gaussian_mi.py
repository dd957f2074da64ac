"""Estimates of mutual information between Gaussians by learned critics, beside the truth (FactorCL's figure 3).

    python -m experiments.gaussian_mi [--quick] [--dims 20 50 100 200] [--steps 1500] [--out runs/gaussian_mi]

Pairs (a, b) of d coordinates each, independent but for a correlation rho between a_k and b_k, so that
I = -d/2 log(1 - rho^2) nats. As in the paper's code: batches of 64, Adam 5e-3, one hidden layer of 512 units, Softplus
on the score; a critic is trained on fresh batches through all levels of I in turn, and every fourth batch is estimated
before it is learned from. One critic gives NCE and NCE-CLUB, which are fitted alike; CLUB (Cheng et al. 2020, arXiv
2006.12013) has a Gaussian of learned mean and variance, fitted by likelihood. The paper takes 4000 steps per level.

Writes table.md, with means over the second half of each level beside what the same formulas make of the true density,
and figure.png, with all estimates and their running means.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.measure import finish
from mmpretrain.distributed.world import World
from mmpretrain.losses.critic_networks import Critic, PairwiseCritic
from mmpretrain.losses.critics import club, nce

LEVELS = (2.0, 4.0, 6.0, 8.0, 10.0)  # nats
BATCH, RATE, HIDDEN = 64, 5e-3, 512
EVERY, SPAN = 4, 50  # estimates are made every 4 steps, and smoothed over about 200 steps
TRUE_BATCHES = 400
COLORS = {"NCE": "#0072B2", "NCE-CLUB": "#D55E00", "CLUB": "#009E73"}
ALONE = World.single()
Curves = dict[str, np.ndarray]  # estimator -> an estimate every EVERY steps
Moments = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Source:
    """Pairs of ``dim`` coordinates with ``nats`` of mutual information."""

    dim: int
    nats: float

    @property
    def rho(self) -> float:
        """The correlation of each pair of coordinates."""
        return math.sqrt(1 - math.exp(-2 * self.nats / self.dim))

    @property
    def club(self) -> float:
        """What CLUB makes of the true density in an endless batch."""
        return self.dim * self.rho**2 / (1 - self.rho**2)

    def draw(self, generator: torch.Generator, size: int = BATCH) -> tuple[Tensor, Tensor]:
        """Candidates a and anchors b, [size, dim] each."""
        b, noise = torch.randn(2, size, self.dim, generator=generator)
        return self.rho * b + math.sqrt(1 - self.rho**2) * noise, b


class SoftplusCritic(PairwiseCritic):
    """The published critic: its scores are positive."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, HIDDEN, layers=0)

    def scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """[t, hidden], [c, hidden] -> [t, c]."""
        return F.softplus(super().scores(rows, columns))


class GaussianCritic(Critic):
    """log q(b | a), but for its constant: ``moments`` makes the mean and log-variance of b from a."""

    def __init__(self, dim: int, moments: Moments) -> None:
        super().__init__()
        self.pair_width = dim
        self.moments = moments

    def columns(self, a: Tensor) -> Tensor:
        """[c, dim] -> [c, 2 dim], means and log-variances."""
        return torch.cat(self.moments(a), dim=1)

    def rows(self, b: Tensor) -> Tensor:
        """[t, dim] -> the same."""
        return b

    def scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        """[t, dim], [c, 2 dim] -> [t, c]."""
        mean, log_variance = columns.chunk(2, dim=1)
        distances = (rows[:, None] - mean).square() * (-log_variance).exp()
        return (distances + log_variance).sum(dim=2) / -2

    def inner_parameters(self) -> list[nn.Parameter]:
        """None: both sides are done before they meet."""
        return []


def true_critic(source: Source) -> GaussianCritic:
    """The density that the pairs are drawn from: the best critic there is for NCE."""
    log_variance = math.log(1 - source.rho**2)
    return GaussianCritic(source.dim, lambda a: (source.rho * a, torch.full_like(a, log_variance)))


class LearnedMoments(nn.Module):
    """Mean and log-variance by a network each, the latter within (-1, 1), as CLUB's code has them."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mean, self.log_variance = (
            nn.Sequential(nn.Linear(dim, HIDDEN // 2), nn.ReLU(), nn.Linear(HIDDEN // 2, dim)) for _ in range(2)
        )

    def forward(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """[c, dim] -> two times [c, dim]."""
        return self.mean(a), self.log_variance(a).tanh()

    def loss(self, a: Tensor, b: Tensor) -> Tensor:
        """-2 log q(b | a), the mean over the batch, without its constant."""
        mean, log_variance = self(a)
        return ((b - mean).square() * (-log_variance).exp() + log_variance).sum(dim=1).mean()


def estimate_with_true_density(source: Source, seed: int) -> tuple[float, float]:
    """NCE and CLUB of the true density, means over TRUE_BATCHES batches."""
    generator = torch.Generator().manual_seed(seed)
    critic, found = true_critic(source), []
    for _ in range(TRUE_BATCHES):
        a, b = source.draw(generator)
        found.append([-nce(critic, a, b, world=ALONE).item(), club(critic, a, b, world=ALONE).item()])
    return tuple(np.mean(found, axis=0).tolist())


def train_nce(dim: int, steps: int, seed: int, levels: Sequence[float] = LEVELS) -> Curves:
    """One critic through all levels: its NCE and NCE-CLUB on batches that it has not learned from yet."""
    torch.manual_seed(seed)
    generator, critic = torch.Generator().manual_seed(seed), SoftplusCritic(dim)
    optimizer = torch.optim.Adam(critic.parameters(), RATE)
    found = []
    for step, source in enumerate(Source(dim, nats) for nats in levels for _ in range(steps)):
        a, b = source.draw(generator)
        loss = nce(critic, a, b, world=ALONE)
        if step % EVERY == 0:
            with torch.no_grad():
                found.append([-loss.item(), club(critic, a, b, world=ALONE).item()])
        _descend(optimizer, loss)
    return dict(zip(("NCE", "NCE-CLUB"), np.array(found).T, strict=True))


def train_club(dim: int, steps: int, seed: int, levels: Sequence[float] = LEVELS) -> Curves:
    """CLUB with its own Gaussian, likewise."""
    torch.manual_seed(seed)
    generator, moments = torch.Generator().manual_seed(seed), LearnedMoments(dim)
    critic, optimizer = GaussianCritic(dim, moments), torch.optim.Adam(moments.parameters(), RATE)
    found = []
    for step, source in enumerate(Source(dim, nats) for nats in levels for _ in range(steps)):
        a, b = source.draw(generator)
        if step % EVERY == 0:
            with torch.no_grad():
                found.append(club(critic, a, b, world=ALONE).item())
        _descend(optimizer, moments.loss(a, b))
    return {"CLUB": np.array(found)}


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def table(curves: Mapping[int, Curves], true: Mapping[Source, tuple[float, float]]) -> str:
    """Markdown: means over the second half of each level's steps, beside the values of the true density."""
    rows = [
        "| d | truth | NCE | NCE, true density | NCE-CLUB | CLUB | CLUB, true density | endless batch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for dim, of in curves.items():
        for number, nats in enumerate(LEVELS):
            source = Source(dim, nats)
            trained = {name: _second_half(curve, number) for name, curve in of.items()}
            values = [trained["NCE"], true[source][0], trained["NCE-CLUB"], trained["CLUB"], true[source][1]]
            cells = [f"{value:.2f}" for value in (*values, source.club)]
            rows.append(f"| {dim} | {nats:g} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _second_half(curve: np.ndarray, level: int) -> float:
    return float(np.mean(np.array_split(curve, 2 * len(LEVELS))[2 * level + 1]))


def draw(curves: Mapping[int, Curves], path: Path) -> None:
    """A panel per dimension: smoothed estimates over the raw ones, and the truth as steps."""
    figure = Figure(figsize=(max(6, 4.2 * len(curves)), 4.6), facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (dim, of) in zip(panels, curves.items(), strict=True):
        _panel(axes, dim, of)
    panels[0].set_ylabel("mutual information, nats")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3 * len(curves)), frameon=False)
    figure.savefig(path, dpi=120)


def _panel(axes: Axes, dim: int, curves: Curves) -> None:
    steps = EVERY * np.arange(len(curves["NCE"]))
    for name, curve in curves.items():
        axes.plot(steps, curve, color=COLORS[name], alpha=0.15, linewidth=0.4)
    for name, curve in curves.items():
        axes.plot(steps, smooth(curve), color=COLORS[name], linewidth=1.8, label=name)
    truth = [nats for nats, part in zip(LEVELS, np.array_split(steps, len(LEVELS)), strict=True) for _ in part]
    axes.plot(steps, truth, color="black", linewidth=1.5, label="truth")
    axes.axhline(math.log(BATCH), color="#777777", linewidth=1, linestyle=":", label=f"log {BATCH}, NCE's limit")
    axes.set_title(f"d = {dim}", loc="left", fontsize=11)
    axes.set_xlabel("step")
    axes.set_xlim(0, steps[-1])
    axes.set_yscale("log", base=2)
    axes.set_ylim(0.25, 48)
    axes.set_yticks([0.5, 1, 2, 4, 8, 16, 32], labels=["0.5", "1", "2", "4", "8", "16", "32"])
    axes.spines[["top", "right"]].set_visible(False)


def smooth(curve: np.ndarray) -> np.ndarray:
    """Exponentially weighted mean of span SPAN, with weights that sum to 1 from the first step on."""
    keep, total, weight, result = 1 - 2 / (SPAN + 1), 0.0, 0.0, []
    for value in curve:
        total, weight = keep * total + value, keep * weight + 1
        result.append(total / weight)
    return np.array(result)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, tell, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 steps per level in 20 dimensions: half a minute")
    parser.add_argument("--dims", type=int, nargs="+", default=[20, 50, 100, 200], help="coordinates of a and of b")
    parser.add_argument("--steps", type=int, default=1500, help="per level of mutual information")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/gaussian_mi"))
    options = parser.parse_args(arguments)
    dims, steps = ([20], 200) if options.quick else (options.dims, options.steps)
    torch.set_num_threads(1)
    start = time.process_time()
    curves: dict[int, Curves] = {}
    true: dict[Source, tuple[float, float]] = {}
    for dim in dims:
        curves[dim] = train_nce(dim, steps, options.seed) | train_club(dim, steps, options.seed)
        sources = [Source(dim, nats) for nats in LEVELS]
        true |= {source: estimate_with_true_density(source, options.seed) for source in sources}
        print(f"{dim} dimensions: done after {time.process_time() - start:.0f} s of processor time", file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(table(curves, true) + "\n")
    draw(curves, options.out / "figure.png")
    print(table(curves, true))
    seconds = round(time.process_time() - start)
    finish({"dims": dims, "steps_per_level": steps, "seed": options.seed, "cpu_s": seconds, "out": str(options.out)})


if __name__ == "__main__":
    main()
