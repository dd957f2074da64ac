"""MUCMM on a linear world whose solution is known. The method is a reconstruction: of the paper, only title, abstract
and the first lines of the introduction were read.

    python -m experiments.mucmm_linear [--quick]

Builds the world's shards, trains linear heads on the bare vectors through the launcher on one process, from the closed
form and from random orthogonal projections, and compares each release with the closed form on the training samples.
Writes table.md and figure.png to runs/mucmm_linear. Complete runs are only read. The gate is that of the design:
at least 99 % of the optimum's correlation, at most 1e-3 of everything that is minimized, loadings within 5 degrees.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from torch import Tensor

from experiments.training import TrainingJob, check_dataset, markdown, train_side_by_side
from mmpretrain.config.kind import Kind
from mmpretrain.data.index import load_index
from mmpretrain.data.reader import (
    Reader,
    read_sample,
)
from mmpretrain.distributed.moments import moments
from mmpretrain.distributed.world import World
from mmpretrain.figures import COLORS, INK
from mmpretrain.losses.canonical import Canonical, canonical_of_rows
from mmpretrain.losses.correlation import Blocks, sum_of_squares, unexplained, whiten
from mmpretrain.methods.mucmm_closed_form import COMMON, EMBED, INDIVIDUAL
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.summary.panels import smooth
from shards.linear import CORRELATIONS, NAMES, PRIVATE, SAMPLES, build_linear

STARTS = {"closed_form": "closed form", "orthogonal": "random"}
SHARED = len(CORRELATIONS)
LEAST_RHO, MOST_MINIMIZED, MOST_DEGREES = 0.99, 1e-3, 5.0
Sides = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Recovered:
    """rho: sum of the correlations of the common codes, on training and held-out samples. minimized: all three terms.

    left: the largest share of a modality's variance that its codes leave. common, individual: degrees between loadings
    and those of the closed form, the larger of both modalities.
    """

    rho: float
    held_out: float
    minimized: float
    left: float
    common: float
    individual: float

    def passes(self, optimum: float) -> bool:
        """Whether the gate lets it through."""
        near = max(self.common, self.individual) < MOST_DEGREES
        return self.rho >= LEAST_RHO * optimum and self.minimized <= MOST_MINIMIZED and near


def read_sides(data: Path, split: str) -> Sides:
    """h_1 [n, 8] and h_2 [n, 6] of a split, float64."""
    index = load_index(data / split)
    reader = Reader(index)
    kinds = dict.fromkeys(NAMES, Kind.vector)
    samples = [read_sample(reader, kinds, ordinal) for ordinal in range(len(index))]
    reader.close()
    first, second = (torch.from_numpy(np.stack([np.asarray(s[name]) for s in samples])).double() for name in NAMES)
    return first, second


@torch.no_grad()
def codes_of(run: Path, sides: Sides) -> dict[tuple[str, str], Tensor]:
    """What the run's release makes of the samples, float64 [n, k] each; and the samples."""
    model = MMPretrainModel.from_pretrained(run / "release").eval()
    output = model(**{name: {"values": rows.float()} for name, rows in zip(NAMES, sides, strict=True)})
    found = {(EMBED, name): rows for name, rows in zip(NAMES, sides, strict=True)}
    found |= {(COMMON, name): rows.double() for name, rows in output.shared_embeds.items()}
    return found | {(INDIVIDUAL, name): rows.double() for name, rows in output.unique_embeds.items()}


def covariances(columns: Mapping[tuple[str, str], Tensor]) -> Blocks:
    """Of all columns."""
    joint = moments(torch.cat(list(columns.values()), dim=1), world=World.single())
    return Blocks(joint.covariance, {name: rows.shape[1] for name, rows in columns.items()})


def compare(run: Path, train: Sides, test: Sides, right: Canonical) -> Recovered:
    """A release with the closed form on the same training samples."""
    found, held_out = covariances(codes_of(run, train)), covariances(codes_of(run, test))
    cross = whiten(found.only([n for n in found.widths if n[0] != EMBED]), 0.0)
    first, second = NAMES
    pairs = [((INDIVIDUAL, first), (INDIVIDUAL, second))]
    pairs += [((INDIVIDUAL, m), (COMMON, n)) for m in NAMES for n in NAMES]
    minimized = [sum_of_squares(cross.of(a, b)) / min(cross.widths[a], cross.widths[b]) for a, b in pairs]
    left = [unexplained(found, (EMBED, m), [(COMMON, m), (INDIVIDUAL, m)], 0.0) for m in NAMES]
    return Recovered(
        rho=float(cross.of((COMMON, first), (COMMON, second)).diagonal().sum()),
        # A release's codes are canonical on the training samples: held-out ones need no rotation of their own.
        held_out=float(held_out.of((COMMON, first), (COMMON, second)).diagonal().sum()),
        minimized=float(torch.stack(minimized).sum()),
        left=float(torch.stack(left).max()),
        common=degrees(found, COMMON, right.common(SHARED), right),
        individual=degrees(found, INDIVIDUAL, right.individual(SHARED, PRIVATE), right),
    )


def degrees(found: Blocks, kind: str, maps: Sides, right: Canonical) -> float:
    """The largest angle between the spans of loadings Cov(h, code) and S A of the closed form."""
    angles = []
    for name, covariance, own in zip(NAMES, right.covariances, maps, strict=True):
        bases = [torch.linalg.qr(loadings)[0] for loadings in (found.of((EMBED, name), (kind, name)), covariance @ own)]
        cosines = torch.linalg.svdvals(bases[0].T @ bases[1])
        angles.append(cosines.min().clamp(max=1.0).acos().rad2deg())
    return float(torch.stack(angles).max())


def table(found: Mapping[str, Recovered], optimum: float, held_out: float, samples: int) -> str:
    """Each start's figures, and the optimum's."""
    header = ["start", "sum of rho", "held out", "minimized", "unexplained", "common, degrees", "individual", "gate"]
    rows = [["closed form itself", f"{optimum:.4f}", f"{held_out:.4f}", "", "", "", "", ""]]
    for name, result in found.items():
        figures = [f"{result.rho:.4f}", f"{result.held_out:.4f}", f"{result.minimized:.1e}", f"{result.left:.1e}"]
        angles = [f"{result.common:.2f}", f"{result.individual:.2f}"]
        rows.append([STARTS[name], *figures, *angles, "passed" if result.passes(optimum) else "FAILED"])
    return f"MUCMM (reconstruction), {samples} samples seen.\n\n" + markdown(header, rows)


def figure(runs: Mapping[str, Path], optimum: float) -> Figure:
    """Correlation and what is minimized, by samples seen."""
    drawn = Figure(figsize=(8.5, 3.6), facecolor="white", layout="constrained")
    left, right = drawn.subplots(1, 2)
    for color, (name, run) in zip(COLORS, runs.items(), strict=False):
        lines = [line for line in read_lines(RunFolder(run).metrics) if "loss" in line]
        seen = [line["samples"] for line in lines]
        rho = SHARED * np.array([line["correlation/first-second"] for line in lines])
        parts = [np.array([line[f"loss/{term}"] for line in lines]) for term in ("individual", "own", "other")]
        left.plot(seen, smooth(rho), color=color, label=f"start: {STARTS[name]}")
        right.plot(seen, smooth(np.sum(parts, axis=0)), color=color)
    left.axhline(optimum, color=INK, linestyle="--", linewidth=1, label="closed form")
    right.axhline(MOST_MINIMIZED, color=INK, linestyle=":", linewidth=1)
    right.set_yscale("log")
    for axes, title in (
        (left, "Sum of the common codes' correlations"),
        (right, "Squared correlations (running moments)"),
    ):
        axes.set_title(title, fontsize=10.5, loc="left")
        axes.set_xlabel("samples seen")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=9)
    return drawn


def main() -> None:
    """Build and train what is missing, then write table and figure; the exit status says whether the gate is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps")
    parser.add_argument("--samples", type=int, default=153_600, help="samples that each run sees")
    parser.add_argument("--root", type=Path, default=Path("runs/mucmm_linear"), help="where everything goes")
    parser.add_argument("--data", type=Path, default=Path("data/linear"), help="where the dataset is")
    options = parser.parse_args()
    root, seen = (options.root / "quick", 20_480) if options.quick else (options.root, options.samples)
    if not check_dataset(options.data, SAMPLES):
        build_linear(options.data)
    tokens = ["experiment=linear", f"data.path={options.data}", f"train.samples={seen}"]
    jobs = [TrainingJob(start, [*tokens, f"method.start={start}"], seed=0) for start in STARTS]
    runs = dict(zip(STARTS, train_side_by_side(jobs, root, at_once=1), strict=True))
    train, test = read_sides(options.data, "train"), read_sides(options.data, "test")
    right = canonical_of_rows(*train, ridge=0.0)
    optimum = float(right.rho[:SHARED].sum())
    first, second = ((h - mean) @ m for h, mean, m in zip(test, right.means, right.common(SHARED), strict=True))
    held_out = float((first * second).sum(1).mean())
    found = {start: compare(run, train, test, right) for start, run in runs.items()}
    (root / "table.md").write_text(table(found, optimum, held_out, seen))
    figure(runs, optimum).savefig(root / "figure.png", dpi=140)
    print((root / "table.md").read_text())
    sys.exit(0 if all(result.passes(optimum) for result in found.values()) else "the gate is not passed")


if __name__ == "__main__":
    main()
