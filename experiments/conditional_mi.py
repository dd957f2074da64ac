"""Estimates of conditional information I(X; Y | Z) by learned critics, beside the truth (FactorCL's tables 9 and 10).

    python -m experiments.conditional_mi [--seeds 3] [--quick] [--steps 1500] [--out runs/conditional_mi]

Data as Mukherjee et al. (2020, arXiv 1906.01824) draw them: Z uniform in (-1/2, 1/2)^d, X ~ N(0, 1), noise ~ N(Z_1,
0.01), Y = X + noise, so that I(X; Y | Z) = 1/2 log 101 = 2.308 nats (the paper says 2.32). A critic f(x, y, z), two
hidden layers, scores the own y of each of n samples beside 63 others drawn from p(y | z): the paper's equations 13 to
16, with the true conditional density where the paper does not say how it sampled (no code for these tables is
released). Conditional InfoNCE is the critic's bound, which it learns from, and conditional InfoNCE-CLUB what equation
15 makes of the same critic; both on fresh samples, at several steps: with the true density as critic the latter is 100
nats, whatever Z is. Writes table.md. Settings and lengths are fixed here; nothing is selected by results.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.measure import finish
from experiments.training import markdown

NOISE = 0.1  # its standard deviation
TRUTH = 0.5 * math.log(1 + 1 / NOISE**2)
BATCH, CANDIDATES, HIDDEN, RATE, HELD_OUT = 64, 64, 128, 1e-3, 4096
SHARES = (1 / 6, 1 / 3, 2 / 3, 1.0)  # of all steps: where estimates are made
# Table 9 and 10: (width of z, samples) -> conditional InfoNCE, conditional InfoNCE-CLUB, and CCMI, another estimator.
PUBLISHED = {
    (20, 5000): (2.19, 3.45, 2.03),
    (20, 10000): (2.20, 3.53, 2.06),
    (20, 20000): (2.20, 2.98, 2.15),
    (20, 50000): (2.20, 2.86, 2.20),
    (1, 20000): (2.18, 3.70, 2.30),
    (10, 20000): (2.20, 2.95, 2.18),
    (50, 20000): (2.26, 2.79, 1.98),
    (100, 20000): (2.30, 2.86, 1.67),
}


@dataclass(frozen=True)
class Samples:
    """x, y: [n]; z: [n, d]."""

    x: Tensor
    y: Tensor
    z: Tensor

    @classmethod
    def draw(cls, count: int, dim: int, generator: torch.Generator) -> Samples:
        """Of the joint distribution."""
        z = torch.rand(count, dim, generator=generator) - 0.5
        x, noise = torch.randn(2, count, generator=generator)
        return cls(x, x + z[:, 0] + NOISE * noise, z)

    def candidates(self, generator: torch.Generator) -> Tensor:
        """[n, CANDIDATES]: the own y first, then others of the same z."""
        others = torch.randn(len(self.x), CANDIDATES - 1, generator=generator)
        return torch.cat([self.y[:, None], self.z[:, :1] + math.sqrt(1 + NOISE**2) * others], dim=1)

    def rows(self, which: Tensor | slice) -> Samples:
        """Some of them."""
        return Samples(self.x[which], self.y[which], self.z[which])


class ConditionalCritic(nn.Module):
    """f(x, y, z): an MLP, whose first layer adds what it makes of (x, z) to what it makes of each y."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.anchor, self.candidate = nn.Linear(dim + 1, HIDDEN), nn.Linear(1, HIDDEN, bias=False)
        self.further = nn.Sequential(nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, samples: Samples, candidates: Tensor) -> Tensor:
        """[n], [n, k] -> [n, k] scores."""
        anchor = self.anchor(torch.cat([samples.x[:, None], samples.z], dim=1))
        return self.further(anchor[:, None] + self.candidate(candidates[..., None]))[..., 0]


def estimates(scores: Tensor) -> tuple[Tensor, Tensor]:
    """[n, k] scores, the own first -> conditional InfoNCE and conditional InfoNCE-CLUB, in nats."""
    own = scores[:, 0]
    bound = own - scores.logsumexp(dim=1) + math.log(scores.shape[1])
    return bound.mean(), (own - scores.mean(dim=1)).mean()


def train(dim: int, count: int, steps: int, seed: int) -> list[tuple[float, float]]:
    """Both estimates on fresh samples, after each of SHARES of the steps."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    known, held_out = (Samples.draw(size, dim, generator) for size in (count, HELD_OUT))
    critic = ConditionalCritic(dim)
    optimizer = torch.optim.Adam(critic.parameters(), lr=RATE)
    asked = [max(1, round(share * steps)) for share in SHARES]
    found = []
    for step in range(1, steps + 1):
        batch = known.rows(torch.randint(count, (BATCH,), generator=generator))
        optimizer.zero_grad()
        (-estimates(critic(batch, batch.candidates(generator)))[0]).backward()
        optimizer.step()
        if step in asked:
            found.append(measured(critic, held_out, generator))
    return found


@torch.no_grad()
def measured(critic: ConditionalCritic, samples: Samples, generator: torch.Generator) -> tuple[float, float]:
    """Means over batches."""
    parts = [samples.rows(slice(start, start + BATCH)) for start in range(0, len(samples.x), BATCH)]
    values = [[value.item() for value in estimates(critic(p, p.candidates(generator)))] for p in parts]
    bound, club = np.mean(values, axis=0).tolist()
    return bound, club


def table(found: dict[tuple[int, int], list[list[tuple[float, float]]]], steps: int) -> str:
    """Markdown: mean and deviation over seeds at the end, and means on the way."""
    asked = [round(share * steps) for share in SHARES]
    on_the_way = " / ".join(str(step) for step in asked)
    header = ["width of z", "samples", "InfoNCE", "published", "InfoNCE-CLUB", "published"]
    header += [f"InfoNCE-CLUB after {on_the_way} steps", "CCMI, published"]
    return f"Truth: {TRUTH:.3f} nats.\n\n" + markdown(header, _rows(found))


def _rows(found: dict[tuple[int, int], list[list[tuple[float, float]]]]) -> Iterator[list[str]]:
    for (dim, count), runs in found.items():
        curves = np.array(runs)  # [seeds, shares, 2]
        bound, club = (_cell(curves[:, -1, which]) for which in (0, 1))
        way = " / ".join(f"{value:.2f}" for value in curves[:, :, 1].mean(axis=0))
        theirs = [f"{value:.2f}" for value in PUBLISHED[dim, count]]
        yield [str(dim), str(count), bound, theirs[0], club, theirs[1], way, theirs[2]]


def _cell(values: np.ndarray) -> str:
    return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two settings, a few steps")
    parser.add_argument("--seeds", type=int, default=3, help="runs per setting, with seeds 0, 1, ...")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=Path("runs/conditional_mi"))
    options = parser.parse_args(arguments)
    settings, steps = (list(PUBLISHED)[:2], 30) if options.quick else (list(PUBLISHED), options.steps)
    torch.set_num_threads(1)
    start = time.process_time()
    found = {}
    for dim, count in settings:
        found[dim, count] = [train(dim, count, steps, seed) for seed in range(options.seeds)]
        print(f"z of {dim}, {count} samples: {time.process_time() - start:.0f} s of processor time", file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(table(found, steps))
    print(table(found, steps))
    seconds = round(time.process_time() - start)
    finish({"steps": steps, "seeds": options.seeds, "cpu_s": seconds, "out": str(options.out)})


if __name__ == "__main__":
    main()
