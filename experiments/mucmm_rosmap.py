"""ROSMAP's omics views as modalities: what do two views share, beyond what unrelated data would, and what says each
view's own part about the disease? (Experiment on MUCMM, arXiv 2305.03125, a reconstruction; docs/explain.md.)

    mmpretrain shards build omics --name rosmap --source FOLDER
    python -m experiments.mucmm_rosmap [--data data/rosmap] [--root runs/mucmm_rosmap]

Every pair of views is decomposed in closed form, on features standardized by the train split: common and individual
codes, fitted on 245 persons and scored on the other 106. Writes table.md and a picture per pair to --root. Nothing is
random but the shuffles of the null, whose seed is fixed.
"""

from __future__ import annotations

import argparse
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

from experiments.training import markdown
from mmpretrain.config.kind import Kind
from mmpretrain.data.index import load_index
from mmpretrain.data.members import Holders
from mmpretrain.data.reader import (
    Reader,
    read_sample,
)
from mmpretrain.data.samples import label_of
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.decomposition import CodesOrigin
from mmpretrain.explain.information import Report, advice, information_report
from mmpretrain.explain.information_figures import draw_report
from mmpretrain.explain.settings import Settings
from mmpretrain.words import command

VIEWS = ("mrna", "methylation", "mirna")
SUBJECTS = ("common", "individual", "both")


def read_views(folder: Path) -> Embeddings:
    """A split's views as they are, with labels."""
    reader = Reader(load_index(folder))
    kinds = dict.fromkeys(VIEWS, Kind.vector)
    ordinals = range(len(reader.index))
    samples = [read_sample(reader, kinds, ordinal) for ordinal in ordinals]
    labels = [label_of(reader.sample(ordinal), Holders(("label.cls",)), 2) for ordinal in ordinals]
    reader.close()
    views = {name: np.stack([np.asarray(sample[name]) for sample in samples]) for name in VIEWS}
    return Embeddings(np.arange(len(samples)), views, labels=np.array(labels))


def standardized(train: Embeddings, test: Embeddings) -> tuple[Embeddings, Embeddings]:
    """Every feature with mean 0 and deviation 1 in ``train``."""
    scales = {name: (rows.mean(axis=0), np.maximum(rows.std(axis=0), 1e-8)) for name, rows in train.embeds.items()}

    def scale(split: Embeddings) -> Embeddings:
        views = {name: (rows - scales[name][0]) / scales[name][1] for name, rows in split.embeds.items()}
        return Embeddings(split.ordinals, views, labels=split.labels)

    return scale(train), scale(test)


def row(report: Report) -> list[str]:
    """A line of the table."""
    fitted = report.decomposition
    areas = {score.subject: score.value for score in report.probes}
    variance = [f"{100 * share:.0f}" for name in fitted.pair for share in fitted.parts[name].shares]
    largest, held = (f"{float(rho[0]):.2f}" for rho in (fitted.spectrum, report.held_out))
    counts = [str(len(fitted.rho)), str(report.confirmed_dimensions)]
    probes = [f"{100 * areas[subject]:.1f}" if subject in areas else "" for subject in SUBJECTS]
    return [" and ".join(fitted.pair), largest, held, f"{fitted.threshold:.2f}", *counts, *variance, *probes]


def table(reports: list[Report]) -> str:
    """One line per pair, and what the report says."""
    header = ["views", "largest correlation", "held out", "unrelated, 95 %", "common dimensions", "held out"]
    header += ["first: in common directions, %", "own, %", "second: in common directions, %", "own, %"]
    header += [f"AUC from {subject}, %" for subject in SUBJECTS]
    text = markdown(header, [row(report) for report in reports]) + "\n"
    for report in reports:
        components = ", ".join(str(report.decomposition.parts[name].components) for name in report.decomposition.pair)
        text += f"- {' and '.join(report.decomposition.pair)} ({components} principal components): {advice(report)}.\n"
    return text


def main() -> None:
    """Write the table and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/rosmap"), help="the dataset")
    parser.add_argument("--root", type=Path, default=Path("runs/mucmm_rosmap"), help="where everything goes")
    options = parser.parse_args()
    if not (options.data / "train").is_dir():
        build = f"mmpretrain shards build omics --name rosmap --source FOLDER --out {command(options.data)}"
        sys.exit(f"{options.data} is missing: {build}")
    train, test = standardized(*(read_views(options.data / split) for split in ("train", "test")))
    options.root.mkdir(parents=True, exist_ok=True)
    reports = []
    for pair in combinations(VIEWS, 2):
        reports.append(information_report(train, test, pair, Settings(), CodesOrigin.closed_form, {}))
        draw_report(reports[-1], f"ROSMAP: {pair[0]} and {pair[1]}").savefig(
            options.root / f"{'-'.join(pair)}.png", dpi=120
        )
    (options.root / "table.md").write_text(table(reports))
    print(table(reports))


if __name__ == "__main__":
    main()
