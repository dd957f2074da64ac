"""Bimodal Trifeatures (Dufumier et al. 2025, arXiv 2409.07402): which method learns what two images share, what each
of them alone knows, and what is known from both together only. In a size for CPUs: 5 levels, 32 pixels.

    python -m experiments.trifeatures [--seeds 3] [--controls] [--quick]

Builds the data, trains every method with seeds 0, 1, ... through the launcher, two runs side by side, and writes
table.md and figure.png to runs/trifeatures. Settings and lengths are fixed here; nothing is selected by results.
Complete runs are only read. Ends with an error if the pattern is not there. --controls adds Cross and FactorCL on
biased pairs, and CoMM before training, on unbiased pairs, and with a linear fusion; --quick tries everything on a few
hundred pairs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from experiments.training import TrainingJob, cell, check_dataset, evaluation, markdown, mean_of, train_side_by_side
from mmpretrain.figures import COLORS, INK
from shards.trifeatures import SIZES, Size, build_trifeatures, default_folder
from shards.trifeatures_pairs import Pairs

EPOCH = 156 * 64  # of 10,000 pairs, full batches only
CROP = [f"data.modalities.{name}.train={{crop: [0.5, 1.0]}}" for name in ("first", "second")]
HEADS = ["method.hidden=256", "method.width=128"]


@dataclass(frozen=True)
class Variant:
    """One row of the table. subject: the representation that is probed. epochs: None: one step that changes nothing."""

    title: str
    name: str
    pairs: Pairs
    epochs: int | None
    subject: str
    tokens: Sequence[str]

    def overrides(self, data: Path, steps: int | None) -> list[str]:
        """Tokens for the launcher; steps: at most so many."""
        wanted = 64 if self.epochs is None else self.epochs * EPOCH
        samples = wanted if steps is None else min(wanted, 64 * steps)
        still = ["optim.lr=1e-12"] if self.epochs is None else []
        return ["experiment=trifeatures", f"data.path={data}", f"train.samples={samples}", *self.tokens, *still]


# The released code's form of the loss, which made the published figures.
COMM = ["method=comm", "method.pairing=code", "method.head_hidden=256", "method.head_width=128"]
LINEAR = "model.fusion.form=linear"  # of table 4
SELF = ["method=cross_self", *HEADS]
# The released code compares lightly cropped images with their strong augmentation. 512 hidden units of its critics are
# scaled down like everything else.
FACTORCL = ["method=factorcl", *CROP, "method.critic_hidden=128"]
CROSS = ["method=clip", "model.embed_dim=16", *CROP]
# Unbiased pairs are for R and U; only biased ones have synergy to be learned from, so that S compares like with like
# among the biased rows alone.
VARIANTS = [
    Variant("Cross (CLIP), unbiased", "cross", Pairs.unbiased, 10, "first+second", CROSS),
    Variant("Cross+Self, unbiased", "cross-self", Pairs.unbiased, 12, "first+second", SELF),
    Variant("Cross+Self, biased", "cross-self-biased", Pairs.biased, 8, "first+second", SELF),
    Variant("FactorCL, unbiased", "factorcl", Pairs.unbiased, 10, "shared+unique", FACTORCL),
    Variant("CoMM, biased", "comm-biased", Pairs.biased, 10, "fused", COMM),
]
CONTROLS = [
    Variant("Cross (CLIP), biased", "cross-biased", Pairs.biased, 10, "first+second", CROSS),
    Variant("FactorCL, biased", "factorcl-biased", Pairs.biased, 10, "shared+unique", FACTORCL),
    Variant("CoMM, before training", "comm-untrained", Pairs.unbiased, None, "fused", COMM),
    Variant("CoMM, linear fusion, biased", "comm-linear", Pairs.biased, 10, "fused", [*COMM, LINEAR]),
    Variant("CoMM, unbiased", "comm", Pairs.unbiased, 10, "fused", COMM),
]
COLUMNS = {
    "R (shape)": ["shape/balanced_accuracy"],
    "U texture": ["texture1/balanced_accuracy", "texture2/balanced_accuracy"],
    "U color": ["colour1/balanced_accuracy", "colour2/balanced_accuracy"],
    "S": ["synergy/balanced_accuracy"],
    "S weighted": ["synergy/weighted_balanced_accuracy"],
    "S AUROC": ["synergy/roc_auc"],
}
CHANCE = {"R (shape)": 0.2, "U texture": 0.2, "U color": 0.2, "S": 0.5, "S weighted": 0.5, "S AUROC": 0.5}
# Table 7 and figure 4: 10 levels, AlexNet, 100 epochs; the released code's probe searches C.
PAPER = {
    "Cross": ("100.0 ± 0.02", "11.6 ± 0.9", "50.0 ± 0.0"),
    "FactorCL": ("99.8", "62.5", "46.5"),
    "Cross+Self": ("99.7 ± 0.2", "86.9 ± 0.8", "50.0 ± 0.03"),
    "CoMM": ("99.9 ± 0.03", "87.8 ± 1.6", "71.9 ± 2.0"),
}
Scores = dict[str, list[float]]  # column -> a share for each seed
# What the pattern is, as (row, column, at least, at most) of the mean over seeds; set before anything was run.
PATTERN = [
    *((variant.title, "R (shape)", 0.95, 1.0) for variant in VARIANTS),
    ("Cross (CLIP), unbiased", "U texture", 0.0, 0.55),
    ("Cross (CLIP), unbiased", "U color", 0.0, 0.35),
    ("Cross (CLIP), unbiased", "S weighted", 0.0, 0.53),
    ("Cross+Self, unbiased", "U texture", 0.75, 1.0),
    ("Cross+Self, unbiased", "S weighted", 0.0, 0.53),
    ("Cross+Self, biased", "S weighted", 0.0, 0.53),
    ("CoMM, biased", "U texture", 0.75, 1.0),
    ("CoMM, biased", "U color", 0.9, 1.0),
    ("CoMM, biased", "S weighted", 0.6, 1.0),
    ("CoMM, biased", "S AUROC", 0.65, 1.0),
]


def data_folders(size: Size, folder: Path) -> dict[Pairs, Path]:
    """Both datasets, built where they are missing."""
    found = {pairs: folder / default_folder(size, pairs).name for pairs in Pairs}
    samples = {"train": size.train, "probe": size.probe, "test": size.test}
    for pairs, path in found.items():
        if not check_dataset(path, samples):
            build_trifeatures(path, size, pairs)
    return found


def scores_of(runs: Sequence[Path], subject: str, columns: Mapping[str, list[str]]) -> Scores:
    """Every column's share in each of ``runs``."""
    results = [evaluation(run) for run in runs]
    return {
        column: mean_of(results, [f"factors/{subject}/{name}" for name in names]) for column, names in columns.items()
    }


def table(results: Mapping[str, Scores], seeds: int) -> str:
    """The measured rows, the additive reference, and the paper's."""
    measured = [[title, *(cell(scores.get(column, [])) for column in COLUMNS)] for title, scores in results.items()]
    chance = ["chance", *(f"{100 * value:.0f}" for value in CHANCE.values())]
    text = f"Balanced accuracy in percent (S AUROC: area under the curve), {seeds} seeds.\n\n"
    text += markdown(["method, pretraining pairs", *COLUMNS], [*measured, chance])
    text += "\nPublished: 10 levels, 224 pixels, AlexNet, 100 epochs (chance 10, 10, 50).\n\n"
    return text + markdown(["method", "R", "U texture", "S"], [[name, *row] for name, row in PAPER.items()])


def against_the_pattern(results: Mapping[str, Scores]) -> list[str]:
    """Which means lie outside of it, one sentence each."""
    means = [(*entry, float(np.mean(results[entry[0]][entry[1]]))) for entry in PATTERN]
    return [
        f"{row}: {column} is {100 * mean:.1f}, expected were {100 * least:.0f} to {100 * most:.0f}"
        for row, column, least, most, mean in means
        if not least <= mean <= most
    ]


def figure(results: Mapping[str, Scores]) -> Figure:
    """Bars of the means and a point for each seed, beside chance."""
    columns = ["R (shape)", "U texture", "U color", "S weighted", "S AUROC"]
    drawn = Figure(figsize=(11, 4.2), facecolor="white", layout="constrained")
    axes = drawn.subplots()
    width = 0.8 / len(results)
    for number, (title, scores) in enumerate(results.items()):
        color, hatch = COLORS[number % len(COLORS)], "//" if number >= len(COLORS) else None
        for place, column in enumerate(columns):
            values = 100 * np.array(scores.get(column, []))
            if len(values):
                x = place + (number - (len(results) - 1) / 2) * width
                label = title if column == "S weighted" else None  # the one that every row has
                axes.bar(x, values.mean(), 0.92 * width, edgecolor="white", label=label, color=color, hatch=hatch)
                axes.plot(np.full(len(values), x), values, ".", color=INK, markersize=4)
    for place, column in enumerate(columns):
        axes.hlines(100 * CHANCE[column], place - 0.42, place + 0.42, color=INK, linestyle="--", linewidth=1)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_ylabel("percent (dashed: chance)")
    axes.set_ylim(0, 105)
    axes.spines[["top", "right"]].set_visible(False)
    drawn.legend(loc="outside right upper", frameon=False, fontsize=9)
    return drawn


def main() -> None:
    """Build and train what is missing, then write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs per row, with seeds 0, 1, ...")
    parser.add_argument("--controls", action="store_true", help="biased Cross and FactorCL, three rows of CoMM")
    parser.add_argument("--quick", action="store_true", help="a few hundred pairs, a few steps")
    parser.add_argument("--root", type=Path, default=Path("runs/trifeatures"), help="where everything goes")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the datasets are")
    options = parser.parse_args()
    root, size, steps = options.root, SIZES[5], None
    if options.quick:
        root, size, steps = root / "quick", replace(size, train=384, probe=384, test=384), 6
    folders = data_folders(size, root / "data" if options.quick else options.data)
    variants = [*VARIANTS, *(CONTROLS if options.controls else [])]
    jobs = [
        TrainingJob(f"{variant.name}-seed{seed}", variant.overrides(folders[variant.pairs], steps), seed)
        for variant in variants
        for seed in range(options.seeds)
    ]
    runs = train_side_by_side(jobs, root)
    results: dict[str, Scores] = {}
    for number, variant in enumerate(variants):
        own = runs[number * options.seeds : (number + 1) * options.seeds]
        results[variant.title] = scores_of(own, variant.subject, COLUMNS)
    # A function of the pairs alone, so that any run tells it.
    additive = {column: names for column, names in COLUMNS.items() if column.startswith("S")}
    results["additive reference (true factors, no interaction)"] = scores_of(runs[:1], "one_hot", additive)
    (root / "table.md").write_text(table(results, options.seeds))
    figure(results).savefig(root / "figure.png", dpi=140)
    print((root / "table.md").read_text())
    if not options.quick and (problems := against_the_pattern(results)):
        sys.exit("\n".join(problems))


if __name__ == "__main__":
    main()
