"""The Trifeatures tables and pictures: what was measured beside what is published, and where their orders differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.training import cell, markdown
from experiments.trifeatures_rows import EPOCH_STEPS, REFERENCE, ROWS, SHORT, Part, Row
from mmpretrain.figures import COLORS, INK

Scores = Mapping[str, float]  # ``factors/SUBJECT/NAME`` -> share
Runs = Mapping[int, Scores]  # seed -> scores
Results = Mapping[str, Runs]  # row's name -> its complete runs

PLAIN, SEARCHED = "balanced_accuracy", "searched_balanced_accuracy"
FACTORS = {
    "R (shape)": ["shape"],
    "U texture": ["texture1", "texture2"],
    "U color": ["colour1", "colour2"],
    "S": ["synergy"],
}
COLUMNS = {
    **{column: [f"{factor}/{PLAIN}" for factor in factors] for column, factors in FACTORS.items()},
    "S weighted": ["synergy/weighted_balanced_accuracy"],
    "S AUROC": ["synergy/roc_auc"],
    **{f"{column}, searched": [f"{factor}/{SEARCHED}" for factor in of] for column, of in FACTORS.items()},
}
CHANCE = {column: 0.5 if column.startswith("S") else 0.2 for column in COLUMNS}
ADDITIVE = "additive reference (true factors, no interaction)"
FIXED_COLUMNS = [column for column in COLUMNS if "searched" not in column]
SEARCHED_COLUMNS = [column for column in COLUMNS if "searched" in column]
# Table 7 and figure 4: 10 levels, AlexNet, 100 epochs, probes of a searched strength.
PUBLISHED = {
    "Cross": ("100.0 ± 0.02", "11.6 ± 0.9", "50.0 ± 0.0"),
    "FactorCL": ("99.8", "62.5", "46.5"),
    "Cross+Self": ("99.7 ± 0.2", "86.9 ± 0.8", "50.0 ± 0.03"),
    "CoMM": ("99.9 ± 0.03", "87.8 ± 1.6", "71.9 ± 2.0"),
}
# Tables 4 and 5: R, U texture 1, U texture 2, S; of table 4 U is the mean of both. None: a figure without values.
PUBLISHED_ABLATIONS = {
    "comm-biased": ("99.9", "84.4", "91.2", "71.9"),
    "comm-linear": ("99.7", "81.5", "81.5", "50.0"),
    "comm-all-none": ("99.7", "79.9", "46.4", "50.0"),
    "comm-none-all": ("99.6", "53.9", "86.0", "50.0"),
    "comm-uncropped-all": ("88.8", "25.7", "84.0", "50.0"),
    "comm-all-uncropped": ("90.5", "83.2", "21.7", "50.0"),
}
# What the published figures say of two rows: column, the row that is above, the other, and by how much.
ORDERS = [
    ("U texture", "comm", "cross-self", 0.9),
    ("U texture", "comm", "factorcl", 25.3),
    ("U texture", "comm", "cross", 76.2),
    ("U texture", "cross-self", "factorcl", 24.4),
    ("S", "comm-biased", "cross-self-biased", 21.9),
]
# What the pattern is, as (row, column, at least, at most) of the mean over seeds; set before anything was run.
PATTERN = [
    *((row.name, "R (shape)", 0.95, 1.0) for row in ROWS if row.part is Part.main),
    ("cross", "U texture", 0.0, 0.55),
    ("cross", "U color", 0.0, 0.35),
    ("cross", "S weighted", 0.0, 0.53),
    ("cross-self", "U texture", 0.75, 1.0),
    ("cross-self", "S weighted", 0.0, 0.53),
    ("cross-self-biased", "S weighted", 0.0, 0.53),
    ("comm-biased", "U texture", 0.75, 1.0),
    ("comm-biased", "U color", 0.9, 1.0),
    ("comm-biased", "S weighted", 0.6, 1.0),
    ("comm-biased", "S AUROC", 0.65, 1.0),
]


def values(runs: Runs, subject: str, column: str) -> dict[int, float]:
    """Seed -> a column's share; without the seeds whose evaluation lacks it."""
    keys = [f"factors/{subject}/{name}" for name in COLUMNS[column]]
    return {
        seed: float(np.mean([scores[key] for key in keys]))
        for seed, scores in runs.items()
        if all(key in scores for key in keys)
    }


def main_tables(rows: Sequence[Row], results: Results) -> str:
    """The measured rows by either probe, with the additive reference and chance, and the published ones."""
    text = "Probe of strength 1; balanced accuracy in percent (S AUROC: area under the curve).\n\n"
    text += _rows_table(rows, results, FIXED_COLUMNS)
    text += "\nProbe whose strength is searched, as in CoMM's released notebook; balanced accuracy in percent.\n\n"
    text += _rows_table(rows, results, SEARCHED_COLUMNS)
    text += "\nPublished: 10 levels, 224 pixels, AlexNet, 100 epochs (chance 10, 10, 50).\n\n"
    return text + markdown(["method", "R", "U texture", "S"], [[name, *row] for name, row in PUBLISHED.items()])


def _rows_table(rows: Sequence[Row], results: Results, columns: Sequence[str]) -> str:
    found = []
    for row in rows:
        if runs := results.get(row.name):
            cells = [cell(list(values(runs, row.subject, column).values())) for column in columns]
            found.append([row.title, str(len(runs)), *cells])
    # A function of the pairs alone, so that any run tells it.
    some: Runs = next(({0: scores} for runs in results.values() for scores in runs.values()), {})
    of_pairs = [list(values(some, "one_hot", column).values()) if column.startswith("S") else [] for column in columns]
    found.append([ADDITIVE, "", *map(cell, of_pairs)])
    found.append(["chance", "", *(f"{100 * CHANCE[column]:.0f}" for column in columns)])
    return markdown(["method, pretraining pairs", "seeds", *columns], found)


def orders_table(results: Results) -> str:
    """Paired differences over the seeds that both rows have, beside the published ones."""
    found = []
    titles, subjects = ({row.name: getattr(row, key) for row in ROWS} for key in ("title", "subject"))
    for column, upper, lower, published in ORDERS:
        for probe in (column, f"{column}, searched"):
            high, low = (values(results.get(name, {}), subjects[name], probe) for name in (upper, lower))
            if both := sorted(high.keys() & low.keys()):
                differences = [high[seed] - low[seed] for seed in both]
                row = [probe, f"{titles[upper]} − {titles[lower]}", f"{published:+.1f}", difference_cell(differences)]
                found.append([*row, str(len(both))])
    return markdown(["column", "difference", "published", "here (standard error)", "seeds"], found)


def difference_cell(differences: Sequence[float]) -> str:
    """Mean in points and, of several, its standard error."""
    mean = f"{100 * np.mean(differences):+.1f}"
    if len(differences) < 2:
        return mean
    return f"{mean} ({100 * np.std(differences, ddof=1) / np.sqrt(len(differences)):.1f})"


def ablation_table(rows: Sequence[Row], results: Results, reference: Runs) -> str:
    """Rows of SHORT epochs; reference: CoMM on biased pairs after as many."""
    columns = ["R (shape)", "U texture", "U color", "S", "S, searched", "S weighted", "S AUROC"]
    every: list[tuple[str, Row, Runs]] = [
        ("CoMM as it is", REFERENCE, reference),
        *((row.title, row, results.get(row.name, {})) for row in rows),
    ]
    found = []
    for title, row, runs in every:
        if runs:
            textures = [_texture(runs, row.subject, place) for place in (1, 2)]
            cells = [cell(list(values(runs, row.subject, column).values())) for column in columns]
            cells[1] = " / ".join(textures)
            published = PUBLISHED_ABLATIONS.get(row.name)
            found.append([title, str(len(runs)), *cells, ", ".join(published) if published else "plotted, no values"])
    header = ["CoMM, biased, 5 epochs", "seeds", *columns, "published: R, U texture 1, U texture 2, S"]
    header[3] = "U texture 1 / 2"
    return markdown(header, found)


def _texture(runs: Runs, subject: str, place: int) -> str:
    key = f"factors/{subject}/texture{place}/{PLAIN}"
    return cell([scores[key] for scores in runs.values()])


Curves = Mapping[str, Mapping[int, Mapping[str, Mapping[int, float]]]]  # row's name -> seed -> score -> step -> share


def at_step(curves: Curves, name: str, step: int) -> dict[int, Scores]:
    """Seed -> the scores of one row after ``step`` steps."""
    found: dict[int, Scores] = {}
    for seed, curve in curves.get(name, {}).items():
        scores = {score: points[step] for score, points in curve.items() if step in points}
        if scores:
            found[seed] = scores
    return found


def curve_rows(rows: Sequence[Row], curves: Curves) -> Iterator[tuple[Row, int, dict[int, Scores]]]:
    """Row, step, and the scores of its seeds there."""
    for row in rows:
        steps = {step for curve in curves.get(row.name, {}).values() for points in curve.values() for step in points}
        for step in sorted(steps):
            yield row, step, at_step(curves, row.name, step)


def curve_table(rows: Sequence[Row], curves: Curves) -> str:
    """A line for each row and evaluation while training."""
    columns = ["R (shape)", "U texture", "S", "S, searched", "S weighted", "S AUROC"]
    found = []
    for row, step, runs in curve_rows(rows, curves):
        cells = [cell(list(values(runs, row.subject, column).values())) for column in columns]
        found.append([row.title, f"{step / EPOCH_STEPS:.3g}", str(len(runs)), *cells])
    return markdown(["method, pretraining pairs", "epochs", "seeds", *columns], found)


def reference_runs(curves: Curves) -> dict[int, Scores]:
    """What ablations are compared to: CoMM on biased pairs after SHORT epochs."""
    return at_step(curves, REFERENCE.name, SHORT * EPOCH_STEPS)


def against_the_pattern(results: Results) -> list[str]:
    """Which means lie outside of it, one sentence each; rows that were not run are left out."""
    subjects, found = {row.name: row.subject for row in ROWS}, []
    for name, column, least, most in PATTERN:
        shares = list(values(results.get(name, {}), subjects[name], column).values())
        if shares and not least <= float(np.mean(shares)) <= most:
            wanted = f"expected were {100 * least:.0f} to {100 * most:.0f}"
            found.append(f"{name}: {column} is {100 * np.mean(shares):.1f}, {wanted}")
    return found


def bars(rows: Sequence[Row], results: Results) -> Figure:
    """Bars of the means and a point for each seed, beside chance."""
    columns = ["R (shape)", "U texture", "U color", "S", "S, searched", "S weighted", "S AUROC"]
    shown = [row for row in rows if results.get(row.name)]
    drawn = Figure(figsize=(12, 4.2), facecolor="white", layout="constrained")
    axes = drawn.subplots()
    width = 0.8 / max(len(shown), 1)
    for number, row in enumerate(shown):
        color, hatch = COLORS[number % len(COLORS)], "//" if number >= len(COLORS) else None
        for place, column in enumerate(columns):
            shares = 100 * np.array(list(values(results[row.name], row.subject, column).values()))
            if len(shares):
                x = place + (number - (len(shown) - 1) / 2) * width
                label = row.title if place == 0 else None
                axes.bar(x, shares.mean(), 0.92 * width, edgecolor="white", label=label, color=color, hatch=hatch)
                axes.plot(np.full(len(shares), x), shares, ".", color=INK, markersize=4)
    for place, column in enumerate(columns):
        axes.hlines(100 * CHANCE[column], place - 0.42, place + 0.42, color=INK, linestyle="--", linewidth=1)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_ylabel("percent (dashed: chance)")
    axes.set_ylim(0, 105)
    axes.spines[["top", "right"]].set_visible(False)
    drawn.legend(loc="outside right upper", frameon=False, fontsize=9)
    return drawn


def curves_picture(rows: Sequence[Row], curves: Curves) -> Figure:
    """Means over seeds against epochs, a panel for each of four columns."""
    columns = ["R (shape)", "U texture", "S, searched", "S AUROC"]
    drawn = Figure(figsize=(13, 3.4), facecolor="white", layout="constrained")
    for axes, column in zip(drawn.subplots(1, len(columns)), columns, strict=True):
        for number, row in enumerate(rows):
            points = [
                (step / EPOCH_STEPS, 100 * float(np.mean(list(shares.values()))))
                for _, step, runs in curve_rows([row], curves)
                if (shares := values(runs, row.subject, column))
            ]
            if points:
                label = row.title if column == columns[0] else None
                axes.plot(*zip(*points, strict=True), "o-", color=COLORS[number % len(COLORS)], label=label)
        axes.set_title(f"{column}, percent", fontsize=10)
        axes.set_xlabel("epochs")
        axes.spines[["top", "right"]].set_visible(False)
    drawn.legend(loc="outside right upper", frameon=False, fontsize=9)
    return drawn
