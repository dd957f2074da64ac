"""C-MCR (Wang et al. 2023, arXiv 2305.14381) with pictures: does a left half of a digit find its right half after two
spaces, (left, caption) and (right, caption), were connected through captions alone?

    python -m experiments.digits_connection [--seeds 5] [--quick]

For every seed the training digits are cut into two halves (`mmpretrain shards build digits-halves`): a CLIP learns
from left halves and captions of the one, another from right halves and captions of the other, so that neither ever has
a left half beside its right half. The captions of all training digits go into both spaces, pseudo partners come from
each half's pictures, and the spaces are connected in every variant, through the launcher, two runs side by side.
Retrieval on the 360 held-out digits uses what ships: pictures through the connection's release. Beside it stand maps in
closed form, and the same projectors trained on true pairs. table.md and found.png go to runs/digits_connection. Seeds,
settings and lengths are fixed here; nothing is selected by results. Complete runs are only read.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from transformers.utils.logging import disable_progress_bar

from experiments.connecting import UNCONNECTED, closed_forms, embedded, mapped, paired, read, recalls, ridge, true_pairs
from experiments.training import TrainingJob, cell, evaluation, markdown, train_side_by_side
from mmpretrain.config.kind import Kind
from mmpretrain.data.index import load_index
from mmpretrain.data.reader import Reader, read_sample
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.retrieval import class_scores
from mmpretrain.evaluation.similarity import unit_rows
from mmpretrain.summary.grid_picture import grid_picture
from mmpretrain.summary.retrieval_grid import retrieval_grid
from shards.digits import raw_samples, split_rows
from shards.digits_halves import build_digits_halves

HALVES = {"first": "left", "second": "right"}  # space -> its pictures
SHARED_ONLY = ["method.partner_weight=0", "method.intra=0", "method.noise=0"]
CONNECTED, SUPERVISED = "C-MCR", "true pairs of left and right"
VARIANTS: dict[str, Sequence[str]] = {
    "captions only, no noise": SHARED_ONLY,
    "C-MCR, no noise": ["method.noise=0"],
    CONNECTED: [],
    SUPERVISED: SHARED_ONLY,
}
COLUMNS = ("left → right R@1", "R@10", "right → left R@10", "same class at rank 1")
Scores = dict[str, list[tuple[float, ...]]]  # row -> COLUMNS of each seed


@dataclass(frozen=True)
class Setting:
    """Where everything is. short: training samples of every run, None for all."""

    root: Path
    short: int | None = None

    def job(self, name: str, seed: int, *tokens: str) -> TrainingJob:
        """A run of a seed."""
        short = [f"train.samples={self.short}"] if self.short else []
        return TrainingJob(f"{name}-seed{seed}", [*tokens, *short], seed)

    def data(self, seed: int) -> Path:
        """The folder of a seed's datasets; built if they are missing."""
        path = self.root / "data" / f"seed{seed}"
        if not all((path / name / "dataset.json").exists() for name in ("left", "right", "captions", "pairs")):
            build_digits_halves(path, seed)
        return path

    def release(self, name: str, seed: int) -> Path:
        """Of a run that is complete."""
        return self.root / f"{name}-seed{seed}" / "release"

    def embedded(self, data: str, name: str, seed: int, split: str = "train") -> Path:
        """A dataset as the release of a run embeds it."""
        out = self.root / "embedded" / f"{data}-by-{name}-seed{seed}"
        return embedded(out, self.release(name, seed), self.data(seed) / data, split)

    def pairs(self, seed: int) -> Path:
        """What C-MCR trains on."""
        corpora = {space: self.embedded("captions", space, seed) for space in HALVES}
        memories = {space: f"{self.embedded(half, space, seed)}:{half}" for space, half in HALVES.items()}
        return paired(self.root / "embedded" / f"pairs-seed{seed}", "caption", corpora, memories)

    def true_pairs(self, seed: int) -> Path:
        """Left and right halves of all training digits."""
        rows = {space: read(self.embedded("pairs", space, seed), "train", half) for space, half in HALVES.items()}
        return true_pairs(self.root / "embedded" / f"true-pairs-seed{seed}", rows, "left and right")

    def space(self, space: str, seed: int) -> TrainingJob:
        """Training of one of the two spaces."""
        half = HALVES[space]
        (unseen,) = set(HALVES.values()) - {half}
        data = self.data(seed) / half
        without = [f"data.modalities.{unseen}=null", f"model.encoders.{unseen}=null"]
        paths = [f"data.path={data}", f"model.encoders.caption.tokenizer={data}/tokenizer"]
        return self.job(space, seed, "experiment=digits", "method=clip", *paths, *without)

    def connection(self, number: int, row: str, seed: int) -> TrainingJob:
        """The run of one variant."""
        data = self.true_pairs(seed) if row == SUPERVISED else self.pairs(seed)
        releases = [f"method.{space}={self.release(space, seed)}" for space in HALVES]
        tokens = ["experiment=digits_connection", f"data.path={data}", *releases, *VARIANTS[row]]
        return self.job(f"variant{number}", seed, *tokens)

    def found(self, names: Mapping[str, str], seed: int) -> list[np.ndarray]:
        """The test halves, left and right, as the runs of ``names`` (half -> run) embed them; unit rows [n, d]."""
        return [unit_rows(read(self.embedded(half, name, seed, "test"), "test", half)) for half, name in names.items()]


def scored(left: np.ndarray, right: np.ndarray) -> tuple[float, ...]:
    """COLUMNS of embeddings of the test halves [n, d]."""
    labels = np.array([int(sample["label.cls"]) for sample in raw_samples(split_rows()["test"])])
    left, right = unit_rows(left), unit_rows(right)
    backward = recalls(right, left, (10,))
    return *recalls(left, right, (1, 10)), *backward, class_scores(left, right, labels)["class_recall@1"]


def measure(setting: Setting, seed: int) -> dict[str, tuple[float, ...]]:
    """Every row of one seed whose runs are complete."""
    left, right = setting.found({half: space for space, half in HALVES.items()}, seed)
    maps = closed_forms(setting.pairs(seed)) | {"ridge regression": ridge(setting.pairs(seed))}
    rows = {name: scored(mapped(left, matrix), right) for name, matrix in maps.items()}
    for number, row in enumerate(VARIANTS):
        rows[row] = scored(*setting.found(dict.fromkeys(HALVES.values(), f"variant{number}"), seed))
    return rows


def table(scores: Scores, within: Sequence[dict[str, float]]) -> str:
    """Mean and standard deviation over seeds in percent, paired differences to C-MCR, and what either space can do."""
    rows = [[row, *(cell([seed[i] for seed in found]) for i in range(len(COLUMNS)))] for row, found in scores.items()]
    text = f"360 held-out digits, {len(within)} seeds, percent.\n\n{markdown(['', *COLUMNS], rows)}\n"
    for row in (UNCONNECTED, "orthogonal Procrustes", "least squares", SUPERVISED):
        more = [100 * (ours[1] - theirs[1]) for ours, theirs in zip(scores[CONNECTED], scores[row], strict=True)]
        error = f" ± {np.std(more, ddof=1) / len(more) ** 0.5:.1f} (standard error)" if len(more) > 1 else ""
        text += f"C-MCR against {row}, R@10 left → right: {np.mean(more):+.1f}{error}.\n"
    for half in HALVES.values():
        inner = [seed[f"retrieval/{half}->caption/recall@10"] for seed in within]
        text += f"Within its space, {half} → caption R@10: {cell(inner)}.\n"
    return text


def picture(setting: Setting, seed: int = 0) -> bytes:
    """A PNG: the nearest right halves of some left halves, by C-MCR; the queries are the first of some classes."""
    number = list(VARIANTS).index(CONNECTED)
    left, right = setting.found(dict.fromkeys(HALVES.values(), f"variant{number}"), seed)
    labels = np.array([int(sample["label.cls"]) for sample in raw_samples(split_rows()["test"])])
    kinds = dict.fromkeys(HALVES.values(), Kind.image)
    reader = Reader(load_index(setting.data(seed) / "pairs" / "test"))
    embeddings = Embeddings(np.arange(len(left)), {"left": left, "right": right}, labels=labels)
    grid = retrieval_grid(embeddings, kinds, partial(read_sample, reader, kinds))
    assert grid is not None
    return grid_picture(grid)


def within_space(setting: Setting, seed: int) -> dict[str, float]:
    """The scores of both spaces on their own modalities."""
    return evaluation(setting.release("first", seed).parent) | evaluation(setting.release("second", seed).parent)


def complete(setting: Setting, seed: int, at_once: int) -> dict[str, tuple[float, ...]]:
    """Train what a seed lacks; its rows."""
    train_side_by_side([setting.space(space, seed) for space in HALVES], setting.root, at_once)
    jobs = [setting.connection(number, row, seed) for number, row in enumerate(VARIANTS)]
    train_side_by_side(jobs, setting.root, at_once)
    return measure(setting, seed)


def main() -> None:
    """Build and train what is missing, then write table and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ...")
    parser.add_argument("--quick", action="store_true", help="one seed, a few steps, no claims")
    parser.add_argument("--root", type=Path, default=Path("runs/digits_connection"), help="where everything goes")
    parser.add_argument("--at-once", type=int, default=2, help="runs side by side")
    options = parser.parse_args()
    disable_progress_bar()
    setting, seeds = Setting(options.root), range(options.seeds)
    if options.quick:
        setting, seeds = Setting(options.root / "quick", short=4096), range(1)
    measured = [complete(setting, seed, options.at_once) for seed in seeds]
    scores: Scores = {row: [found[row] for found in measured] for row in measured[0]}
    (setting.root / "table.md").write_text(table(scores, [within_space(setting, seed) for seed in seeds]))
    (setting.root / "found.png").write_bytes(picture(setting))
    print((setting.root / "table.md").read_text())


if __name__ == "__main__":
    main()
