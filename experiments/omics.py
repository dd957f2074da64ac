"""What the omics experiments share: settings of M3CoL, folds of a training split, a linear model to compare with."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.training import TrainingJob, markdown
from mmpretrain.data.index import load_index
from mmpretrain.evaluation.classification import classification_scores
from shards.matrix import find_csv, read_matrix
from shards.omics import VIEWS, build_omics

FOLD_SEED = 0
CHOOSING = {"cross-entropy": "neg_log_loss", "accuracy": "accuracy"}  # of the strength, in folds
STRENGTHS = [10.0**power for power in np.arange(-4, 2.01, 0.5)]  # C of the logistic regression


@dataclass(frozen=True)
class Length:
    """Of a run. steps: one full batch each, the paper's epochs. every: steps between two evaluations."""

    steps: int = 500
    every: int = 10


@dataclass(frozen=True)
class Setting:
    """What is varied. contrast: M3CoL, else its cross-entropies alone. dropout: in all heads."""

    contrast: bool
    lr: float
    dropout: float

    @property
    def name(self) -> str:
        """For folders: letters, digits and signs that a run's name may have."""
        return f"{'m3col' if self.contrast else 'ce'}-lr{self.lr:g}-drop{self.dropout:g}"

    @property
    def words(self) -> str:
        """For tables."""
        return f"{'M3CoL' if self.contrast else 'cross-entropy only'}, rate {self.lr:g}, dropout {self.dropout:g}"

    def job(self, experiment: str, data: Path, label: str, seed: int, length: Length) -> TrainingJob:
        """One run of full batches of ``data``, scored on its test split while training."""
        persons = len(load_index(data / "train"))
        tokens = [
            f"experiment={experiment}",
            f"data.path={data}",
            f"data.global_batch={persons}",
            f"train.samples={length.steps * persons}",
            f"optim.lr={self.lr:g}",
            f"model.classifier_dropout={self.dropout:g}",
            f"evaluation.every_steps={length.every}",
            "evaluation.intervals=false",
            f"checkpoint.every_steps={length.steps}",
            *([] if self.contrast else ["method.weight=0"]),
        ]
        return TrainingJob(f"{self.name}-{label}-seed{seed}", tokens, seed)


@dataclass(frozen=True)
class Matrices:
    """A folder of CSV files. views: name -> float32 [n, features], labels: int64 [n]; of both splits."""

    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    train_labels: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def read(cls, source: Path) -> Matrices:
        """From ``{1,2,3}_{tr,te}.csv[.gz]`` and ``labels_{tr,te}.csv[.gz]``. Raises FileNotFoundError, BuildError."""
        splits = [
            {view: _read(source, f"{number}_{split}") for number, view in enumerate(VIEWS, start=1)}
            for split in ("tr", "te")
        ]
        labels = [_read(source, f"labels_{split}")[:, 0].astype(np.int64) for split in ("tr", "te")]
        return cls(splits[0], splits[1], labels[0], labels[1])


def build_whole(source: Path, out: Path, name: str) -> Path:
    """The dataset itself at ``out``, built if it is not there."""
    if not (out / "dataset.json").exists():
        build_omics(source, out, name)
    return out


def build_folds(source: Path, out: Path, name: str, folds: int) -> list[Path]:
    """``folds`` datasets made of the training split alone, ``out/foldsK-k``; the test split of each is one stratified
    part of it, and its statistics are of the other parts."""
    found = Matrices.read(source)
    parts = StratifiedKFold(folds, shuffle=True, random_state=FOLD_SEED).split(found.train_labels, found.train_labels)
    made = []
    for number, (kept, held_out) in enumerate(parts):
        folder = out / f"folds{folds}-{number}"
        if not (folder / "dataset.json").exists():
            tables = out / "tables" / folder.name
            _write_tables(tables, found, {"tr": kept, "te": held_out})
            build_omics(tables, folder, name)
        made.append(folder)
    return made


def logistic_table(source: Path, scores: Sequence[str]) -> str:
    """A row for either way to choose the strength; no seed enters them. scores: ``classification/NAME``."""
    tables, rows = Matrices.read(source), []
    for words, scoring in CHOOSING.items():
        found, strength = logistic_scores(tables, scoring)
        values = [f"{100 * found[score.partition('/')[2]]:.2f}" for score in scores]
        rows.append([f"logistic regression, C = {strength:.4g} by {words}", *values])
    return markdown(["", *scores], rows)


def logistic_scores(found: Matrices, scoring: str) -> tuple[dict[str, float], float]:
    """(scores on the test split, strength) of a logistic regression on all features side by side, standardized.

    The strength has the best ``scoring`` of scikit-learn in 5 stratified folds of the training split, of equals the
    lowest one has it; scores as the metric ``classification`` names them.
    """
    search = GridSearchCV(_linear(), {"logisticregression__C": STRENGTHS}, scoring=scoring, cv=_five())
    search.fit(_side_by_side(found.train), found.train_labels)
    # Not the probabilities, of which strong models round many to 0 and 1.
    logits = search.decision_function(_side_by_side(found.test))
    logits = np.stack([np.zeros_like(logits), logits], axis=1) if logits.ndim == 1 else logits
    scores = classification_scores(logits, found.test_labels)
    return scores, float(search.best_params_["logisticregression__C"])


def _linear() -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=10_000))


def _five() -> StratifiedKFold:
    return StratifiedKFold(5, shuffle=True, random_state=FOLD_SEED)


def _side_by_side(views: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate(list(views.values()), axis=1)


def _read(folder: Path, stem: str) -> np.ndarray:
    path = find_csv(folder, stem)
    if path is None:
        raise FileNotFoundError(f"{folder}/{stem}.csv[.gz] is missing: name the folder of the benchmark by --source")
    return read_matrix(path)[0]


def _write_tables(folder: Path, found: Matrices, rows: Mapping[str, np.ndarray]) -> None:
    """The chosen rows of the training split as a folder of the same layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, chosen in rows.items():
        for number, view in enumerate(VIEWS, start=1):
            # Nine digits bring every float32 back.
            _write(folder / f"{number}_{split}.csv", [[f"{x:.9g}" for x in row] for row in found.train[view][chosen]])
        _write(folder / f"labels_{split}.csv", [[str(label)] for label in found.train_labels[chosen]])


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
