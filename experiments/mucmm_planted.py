"""Planted image pairs: does what is common show where the shared digit stands, and what is individual where the private
one does? (Experiment on MUCMM, arXiv 2305.03125, a reconstruction, whose own data are not known here; docs/explain.md.)

    python -m experiments.mucmm_planted [--seeds 1] [--quick] [--root runs/mucmm_planted] [--data data]

Builds both datasets, trains a CLIP model on pairs that agree in both digits, so that its features know digits and
little else, and freezes it. Then pairs that agree in the left digit alone are decomposed in closed form, and the scores
of 500 test pairs are traced to their pixels; once more with heads that method=mucmm trains on the frozen encoders.
Writes table.md and a figure of each to --root. Wanted: more than 0.7 of the common map's mass on the left half, more
than 0.7 of the individual map's on the right half, the shared class read from common and not from individual codes, and
the private one from individual codes. Ends with an error if a share is below that. Classes are read from codes by a
probe of strength 1 and by one whose strength is searched. Complete runs are only read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from sklearn.metrics import balanced_accuracy_score

from experiments.training import cell, check_dataset, markdown, train
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.factor_probes import searched_probe
from mmpretrain.explain.attribution_maps import attribution_maps
from mmpretrain.explain.decomposition import CodesOrigin, Decomposition, split_codes
from mmpretrain.explain.explain_figures import COMMON, OWN
from mmpretrain.explain.information import Report, information_report
from mmpretrain.explain.opened import Opened, open_release
from mmpretrain.explain.part_probes import targets_of
from mmpretrain.explain.settings import Attribution, AttributionForm, Settings
from mmpretrain.figures import INK
from shards.planted import SIDE, TEST, TRAIN, Right, build_planted, default_folder

# Of ten classes, whose means span nine directions.
DIMENSIONS = 9
SETTINGS = Settings(common=DIMENSIONS, individual=DIMENSIONS)
ATTRIBUTIONS = (Attribution.gradient, Attribution.smoothgrad)
GATE = 0.7
EXPLAINED, BATCH = 500, 25  # of the test pairs; the latter divides the former
PROBES = (
    "common/shared",
    "individual/shared",
    "individual/private_first",
    "individual/private_second",
    "common/private_first",
    "common/private_second",
)


@dataclass(frozen=True)
class Measured:
    """One seed. masses: (attribution, modality, part) -> [8, 16], mean over samples of maps that sum to 1. searched: of
    PROBES, the balanced accuracy of a probe whose strength is searched."""

    report: Report
    masses: dict[tuple[str, str, str], np.ndarray]
    searched: dict[str, float]


def dataset(data: Path, right: Right, quick: bool) -> Path:
    """The dataset, built if it is missing."""
    folder = data / default_folder(right).name
    train, test = (400, 100) if quick else (TRAIN[right], TEST)
    if not check_dataset(folder, {"train": train, "test": test}):
        build_planted(folder, right, train, test)
    return folder


def measure(run: Path, data: Path, explained: int) -> Measured:
    """Decompose the pairs of ``data`` by a run's release and trace the scores of ``explained`` test samples."""
    opened = open_release(str(run / "release"), str(data), None, torch.device("cpu"))
    assert opened.info is not None
    train_split, test_split = opened.embed("train", 10_000), opened.embed("test", 10_000)
    settings = SETTINGS if opened.origin is CodesOrigin.closed_form else Settings()
    report = information_report(train_split, test_split, opened.pair, settings, opened.origin, opened.info.factors)
    maps = masses(opened, report.decomposition, explained)
    return Measured(report, maps, searched(report.decomposition, (train_split, test_split), opened.info.factors))


def searched(
    fitted: Decomposition, splits: tuple[Embeddings, Embeddings], factors: Mapping[str, int]
) -> dict[str, float]:
    """What the probe of CoMM's released notebook reads of both images' codes, by the names of PROBES."""
    known, truth = (targets_of(split.labels, factors) for split in splits)
    codes = [split_codes(fitted, split).values() for split in splits]
    found = {}
    for name in PROBES:
        part, _, target = name.partition("/")
        train, test = (np.hstack([getattr(one, part).double().numpy() for one in split]) for split in codes)
        probe, _ = searched_probe(target, train, known[target])
        found[name] = float(balanced_accuracy_score(truth[target], probe.predict(test)))
    return found


def masses(opened: Opened, fitted: Decomposition, explained: int) -> dict[tuple[str, str, str], np.ndarray]:
    """Mean maps of |gradient| over samples, each scaled to the sum 1."""
    sums: dict[tuple[str, str, str], list[np.ndarray]] = {}
    for batch in opened.stream("test").split_batches(BATCH, explained):
        for how in ATTRIBUTIONS:
            found = attribution_maps(opened, fitted, AttributionForm(attribution=how), batch.inputs)
            for name, maps in found.items():
                for part, values in zip(("common", "individual"), maps, strict=True):
                    lengths = values.double().norm(dim=1)
                    shares = lengths / lengths.sum(dim=(1, 2), keepdim=True)
                    sums.setdefault((how.value, name, part), []).append(shares.numpy())
    return {key: np.concatenate(maps).mean(axis=0) for key, maps in sums.items()}


def trained_heads(run: Path, quick: bool) -> list[str]:
    """What trains common and individual heads on the frozen encoders of ``run``, for the launcher."""
    tokens = ["method=mucmm", "experiment=planted", "data.global_batch=256", "train.samples=30000"]
    tokens += [f"model.components.{kind}={DIMENSIONS}" for kind in ("common", "individual")]
    for name in ("first", "second"):
        at = f"model.encoders.{name}"
        tokens += [f"{at}.architecture=null", f"{at}.pretrained={run / 'release'}", f"{at}.freeze=true"]
    return [*tokens, "train.samples=1024", "optim.warmup_samples=128"] if quick else tokens


def shares(found: Sequence[Measured]) -> list[tuple[list[str], list[float]]]:
    """(attribution, image, score, half) and the share of that half of each seed."""
    rows = []
    for how, name, part in found[0].masses:
        side, half = ("left", slice(None, SIDE)) if part == "common" else ("right", slice(SIDE, None))
        rows.append(([how, name, part, side], [float(one.masses[how, name, part][:, half].sum()) for one in found]))
    return rows


def below(title: str, found: Sequence[Measured]) -> list[str]:
    """Which mean shares miss the gate, one sentence each."""
    means = [(" ".join(row), float(np.mean(values))) for row, values in shares(found)]
    return [f"{title}: {row} has {100 * m:.1f} %, wanted are {100 * GATE:.0f}" for row, m in means if m <= GATE]


def table(title: str, found: Sequence[Measured]) -> str:
    """Shares of the maps' mass, probes, and correlations, over the seeds."""
    text = f"## {title}\n\nShare of the mass of |gradient| in percent, {len(found)} seeds"
    text += f" (wanted: above {100 * GATE:.0f}).\n\n"
    rows = [[*row, cell(values)] for row, values in shares(found)]
    text += markdown(["attribution", "image", "score", "half", "share"], rows)
    text += "\nBalanced accuracy of linear probes in percent (chance 10).\n\n"
    probes = [{f"{s.subject}/{s.name}": s.value for s in one.report.probes} for one in found]
    rows = [[key, cell([p[key] for p in probes]), cell([one.searched[key] for one in found])] for key in PROBES]
    text += markdown(["codes/class", "strength 1", "strength searched"], rows)
    text += "\nCorrelations of the common codes (percent), fitted and on held-out samples.\n\n"
    pairs = [(one.report.decomposition.rho.tolist(), one.report.confirmed.tolist()) for one in found]
    rows = [
        [str(i + 1), cell([rho[i] for rho, _ in pairs]), cell([held[i] for _, held in pairs])]
        for i in range(DIMENSIONS)
    ]
    return text + markdown(["direction", "fitted", "held out"], rows) + "\n"


def figure(found: Sequence[Measured]) -> Figure:
    """The mean maps of both images: common on the left, individual on the right."""
    drawn = Figure(figsize=(8.4, 4.6), layout="constrained")
    grid = drawn.subplots(2, 2)
    for axes, name in zip(grid, ("first", "second"), strict=True):
        for axis, part, color in zip(axes, ("common", "individual"), (COMMON, OWN), strict=True):
            mass = np.mean([one.masses["smoothgrad", name, part] for one in found], axis=0)
            colors = LinearSegmentedColormap.from_list(part, ["#ffffff", color])
            axis.imshow(mass, cmap=colors, vmin=0, interpolation="nearest")
            axis.axvline(SIDE - 0.5, color=INK, linewidth=1, linestyle="--")
            left = 100 * mass[:, :SIDE].sum()
            axis.set_title(f"{name}, {part}: {left:.0f} % left, {100 - left:.0f} % right", fontsize=9.5, color=color)
            axis.set_xticks([SIDE / 2 - 0.5, 1.5 * SIDE - 0.5], labels=["shared digit", "private digit"], fontsize=9)
            axis.set_yticks([])
    drawn.suptitle("Where scores come from: mean |gradient| over the test images (SmoothGrad)", fontsize=11, color=INK)
    return drawn


def main() -> None:
    """Build and train what is missing, then write table and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="runs, with seeds 0, 1, ...")
    parser.add_argument("--quick", action="store_true", help="a few hundred pairs, a few steps")
    parser.add_argument("--root", type=Path, default=Path("runs/mucmm_planted"), help="where everything goes")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the datasets are")
    options = parser.parse_args()
    root, data, quick = options.root, options.data, options.quick
    tokens = ["method=clip", "experiment=planted"]
    if quick:
        root, data = root / "quick", root / "quick" / "data"
        tokens += ["train.samples=1024", "optim.warmup_samples=128"]
    planted, pretraining = (dataset(data, right, quick) for right in (Right.private, Right.shared))
    tokens.append(f"data.path={pretraining}")
    runs = [train(f"clip-seed{seed}", tokens, root, seed) for seed in range(options.seeds)]
    heads = [
        train(f"mucmm-seed{seed}", [*trained_heads(run, quick), f"data.path={planted}"], root, seed)
        for seed, run in enumerate(runs)
    ]
    explained = 50 if quick else EXPLAINED
    closed, trained = ([measure(run, planted, explained) for run in of] for of in (runs, heads))
    both = {"Closed form": closed, "Trained heads": trained}
    (root / "table.md").write_text("".join(table(title, found) for title, found in both.items()))
    figure(closed).savefig(root / "figure.png", dpi=140)
    figure(trained).savefig(root / "figure-trained.png", dpi=140)
    print((root / "table.md").read_text())
    if not quick and (missed := [line for title, found in both.items() for line in below(title, found)]):
        sys.exit("\n".join(missed))


if __name__ == "__main__":
    main()
