"""What `mmpretrain explain` and `mmpretrain information` write."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mmpretrain.explain.explain import Explanation
from mmpretrain.explain.explain_figures import draw_explained, draw_sanity, draw_scores
from mmpretrain.explain.information import Report
from mmpretrain.explain.information_figures import draw_report
from mmpretrain.explain.opened import Opened
from mmpretrain.explain.settings import Wanted
from mmpretrain.files import replace_text
from mmpretrain.release_folder import release_name

DPI = 110


def write_explanation(explanation: Explanation, opened: Opened, wanted: Wanted, folder: Path) -> list[Path]:
    """scores.csv (every sample), explain.json, scores.png, sanity.png if the maps were checked, and a picture for every
    explained sample; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "scores.csv", scores_csv(explanation))
    content = {**summary(explanation), "wanted": asdict(wanted)}
    replace_text(folder / "explain.json", json.dumps(content, indent=2) + "\n")
    features = opened.info.features if opened.info else {}
    written = [folder / "scores.csv", folder / "explain.json", _save(draw_scores(explanation), folder / "scores.png")]
    for old in (*folder.glob("sample-*.png"), folder / "sanity.png"):  # of another pair, or other keys
        old.unlink(missing_ok=True)
    if explanation.sanity is not None:
        written.append(_save(draw_sanity(explanation.sanity), folder / "sanity.png"))
    for one in explanation.explained:
        name = re.sub(r"[^A-Za-z0-9._-]", "_", one.key)
        written.append(_save(draw_explained(one, explanation, features), folder / f"sample-{name}.png"))
    return written


def write_report(report: Report, release: str, folder: Path) -> list[Path]:
    """information.json and information.png; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "information.json", json.dumps(report.to_json(), indent=2) + "\n")
    title = f"{release_name(release)}: {' and '.join(report.decomposition.pair)}"
    return [folder / "information.json", _save(draw_report(report, title), folder / "information.png")]


def scores_csv(explanation: Explanation) -> str:
    """A line per sample: its key, its label if there are labels, its scores."""
    scores, text = explanation.scores, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    labels = {} if scores.labels is None else {"label": scores.labels.tolist()}
    columns = {name: [f"{value:.6g}" for value in column] for name, column in scores.columns.items()}
    writer.writerow(["key", *labels, *columns])
    writer.writerows(zip(scores.keys, *labels.values(), *columns.values(), strict=True))
    return text.getvalue()


def summary(explanation: Explanation) -> dict[str, Any]:
    """Plain numbers: what the split's scores are on average, and those of the explained samples."""
    fitted, scores = explanation.decomposition, explanation.scores
    return {
        "pair": list(fitted.pair),
        "towers": explanation.towers,
        "codes": fitted.origin.value,
        "common_dimension": len(fitted.rho),
        "correlations": fitted.rho.tolist(),
        "samples": {"fitted": fitted.samples, "scored": len(scores.keys)},
        "common": {
            "mean": float(scores.columns["common"].mean()),
            "unrelated": float(scores.mismatched.mean()),
            "expected": explanation.expected,
        },
        "means": {name: float(column.mean()) for name, column in scores.columns.items()},
        "explained": [
            {"key": one.key, **{name: float(column[one.row]) for name, column in scores.columns.items()}}
            for one in explanation.explained
        ],
        "sanity": None if explanation.sanity is None else explanation.sanity.to_json(),
    }


def _save(figure: Figure, path: Path) -> Path:
    partial = path.with_name(f".{path.name}.tmp")
    figure.savefig(partial, format="png", dpi=DPI)
    partial.replace(path)
    return path
