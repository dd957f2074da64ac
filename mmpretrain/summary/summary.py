"""A run at a glance: one picture (``summary.png``) and a short text, from the files of its folder."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure, SubFigure

from mmpretrain import figures
from mmpretrain.config.evaluation import Metric
from mmpretrain.figures import INK
from mmpretrain.records import Score, parse_scores, read_evaluation, read_evaluations, read_training
from mmpretrain.run_folder import RunFolder
from mmpretrain.summary import panels
from mmpretrain.summary.grid_file import GRID_FILE, Grid, load_grid

PICTURE = "summary.png"
WIDTH = 13.0
TITLES: dict[str, str] = {metric.value: metric.heading for metric in Metric}
Row = tuple[float, Callable[[SubFigure], None]]  # height in inches, and what draws it
HEADLINE = re.compile(r"(accuracy|f1\w*|roc_auc|recall@10|class_recall@1)$")
# The scores of a metric that pictures show, where it has many.
BARS = {
    "linear_probe": re.compile("accuracy|average_precision|r2"),
    "robustness": re.compile("probe|probe/without/.*"),
}
PLAIN = ("median_rank", "mae", "mse", "strength")  # no shares, and not in percent


def draw_summary(run_folder: Path) -> Path:
    """Write ``summary.png`` into ``run_folder`` and return its path.

    Drawn is what is there: training curves (metrics.jsonl), bounds and norms of methods that learn critics, the final
    evaluation beside chance (evaluation.json), the retrieval grid (retrieval_grid.npz). Raises FileNotFoundError if
    none of the three has anything in it.
    """
    run = RunFolder(run_folder)
    rows = [row for row in (_curves(run), _critics(run), _bars(run), _grids(run)) if row is not None]
    if not rows:
        raise FileNotFoundError(f"{run_folder}: nothing to draw; no training step was logged and nothing evaluated")
    heights = [height for height, _ in rows]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.5), facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.06)
    figure.suptitle(headline(run), fontsize=13, fontweight="bold", x=0.01, ha="left")
    subfigures = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights, hspace=0.04).ravel()
    for subfigure, (_, draw) in zip(subfigures, rows, strict=True):
        draw(subfigure)
    picture = run_folder / PICTURE
    partial = picture.with_name(f".{PICTURE}.tmp")
    figure.savefig(partial, format="png", dpi=120)
    partial.replace(picture)
    return picture


def headline(run: RunFolder) -> str:
    """Name, state, steps and samples of a run, in one line."""
    status, steps = run.status(), read_training(run)
    parts = [run.path.resolve().name, str(status.get("state", "state unknown"))]
    done = status.get("step", steps[-1]["step"] if steps else 0)
    parts.append(f"{done:,} of {status['total_steps']:,} steps" if "total_steps" in status else f"{done:,} steps")
    parts += ["stopped early"] if status.get("stopped_early") else []
    if steps:
        epochs = f" ({steps[-1]['epoch']:.1f} epochs)" if "epoch" in steps[-1] else ""
        parts.append(f"{steps[-1]['samples']:,} samples{epochs}")
    return " · ".join(parts)


def _curves(run: RunFolder) -> Row | None:
    steps = read_training(run)
    if not steps:
        return None
    curves = labeled_curves({name: curve for name, curve in read_evaluations(run).items() if _is_headline(name)})
    batch = steps[-1]["samples"] / max(steps[-1]["step"], 1)

    def draw(figure: SubFigure) -> None:
        ratios = [1.2, 1.2, 1.0] if curves else [1.8, 1.0]
        axes = figure.subplots(1, len(ratios), gridspec_kw={"width_ratios": ratios})
        panels.draw_loss(axes[0], steps)
        if curves:
            panels.draw_evaluations(axes[1], curves, batch)
        panels.draw_learning_rate(axes[-1], steps)

    return 3.6, draw


def _critics(run: RunFolder) -> Row | None:
    """Bounds of information and the critics that make them, of methods that have both (factorcl)."""
    steps = read_training(run)
    if not any(key.startswith("critic_norm/") for step in steps for key in step):
        return None

    def draw(figure: SubFigure) -> None:
        axes = figure.subplots(1, 3)
        panels.draw_group(axes[0], steps, "nats/", "Bounds of information (running mean)", "nats")
        panels.draw_group(axes[1], steps, "critics/", "Loss of the upper bounds' critics", "nats")
        axes[1].axhline(0, color=INK, linewidth=0.8, linestyle=":")
        panels.draw_group(axes[2], steps, "critic_norm/", "Norm of the critics' weights", "norm")

    return 3.6, draw


def _is_headline(key: str) -> bool:
    """Whether the curve of ``eval/SPLIT/...`` is shown."""
    score = parse_scores({key.split("/", 2)[2]: 0.0})[0]
    wanted = BARS.get(score.metric)
    return bool(HEADLINE.search(key)) and (wanted is None or bool(wanted.fullmatch(score.name)))


def labeled_curves(curves: Mapping[str, dict[int, float]]) -> dict[str, dict[int, float]]:
    """``eval/test/retrieval/left->right/recall@10`` as ``left → right recall@10``.

    Where two metrics would be called alike, each has its name in front: ``knn left accuracy``.
    """
    scores = {key: parse_scores({key.split("/", 2)[2]: 0.0})[0] for key in curves}
    counts = Counter((score.subject, score.name) for score in scores.values())
    found = {}
    for key, score in scores.items():
        metric = f"{score.metric} " if counts[score.subject, score.name] > 1 else ""
        label = f"{metric}{_arrow(score.subject)} {score.name}".strip()
        found[label.replace("_", " ").replace("\n", "")] = curves[key]
    return found


def _arrow(subject: str) -> str:
    return subject.replace("->", " → ").replace("+", " +\n")


def _bars(run: RunFolder) -> Row | None:
    panels = bar_panels(parse_scores(read_evaluation(run)))
    if not panels:
        return None
    columns = len(panels) if len(panels) < 4 else 2
    lines = math.ceil(len(panels) / columns)
    most = max(sum(len(scores) for scores in groups.values()) for groups in panels.values())

    def draw(figure: SubFigure) -> None:
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for axis, (title, groups) in zip(axes, panels.items(), strict=False):
            figures.draw_bars(axis, title, groups)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()

    return lines * min(max(2.3, 1.1 + 0.13 * most), 9.0), draw


def _grids(run: RunFolder) -> Row | None:
    path = run.path / GRID_FILE
    if not path.exists():
        return None
    grid: Grid = load_grid(path)

    def draw(figure: SubFigure) -> None:
        parts = figure.subfigures(1, len(grid.pairs), squeeze=False, wspace=0.03).ravel()
        for part, pair in zip(parts, grid.pairs, strict=True):
            panels.draw_grid_pair(part, grid, pair)

    return 0.5 + 0.95 * max(len(pair.queries) for pair in grid.pairs), draw


def bar_panels(scores: Sequence[Score]) -> dict[str, dict[str, list[Score]]]:
    """Panel title -> label -> scores to draw as bars: all shares apart from the recalls of single classes, and of a
    linear probe and of robustness the ones that their titles name."""
    panels: dict[str, dict[str, list[Score]]] = {}
    for score in scores:
        wanted = BARS.get(score.metric)
        if score.name.startswith("recall/") or _plain(score) or (wanted and not wanted.fullmatch(score.name)):
            continue
        title, label = TITLES.get(score.metric, score.metric), _arrow(score.subject) or score.name
        if score.name.startswith("class_recall"):
            title = "Retrieval of the same class at rank 1"
        panels.setdefault(title, {}).setdefault(label, []).append(score)
    return panels


def summarize(run_folder: Path) -> str:
    """What a run did and reached, as a few lines of text: length, throughput, loss, scores, where the release is."""
    run = RunFolder(run_folder)
    steps = read_training(run)
    blocks = [headline(run), *([_training_text(steps)] if steps else [])]
    cause = run.status().get("cause")
    blocks += [f"Cause: {cause}"] if cause else []
    scores = parse_scores(read_evaluation(run))
    blocks += ["\n" + score_table(scores)] if scores else ["No final evaluation."]
    blocks.append(_release_text(run))
    return "\n".join(blocks) + "\n"


def score_table(scores: Sequence[Score]) -> str:
    """One table per metric: a row per subject, a column per score; percent, with chance in brackets."""
    lines = ["Evaluation in percent (chance in brackets; median rank counts from 1)"]
    for metric in dict.fromkeys(score.metric for score in scores):
        shown = [s for s in scores if s.metric == metric and not s.name.startswith("recall/")]
        names = list(dict.fromkeys(score.name for score in shown))
        wide = max([16, *map(len, names)]) + 2
        lines.append(f"  {metric.replace('_', ' '):<28}" + "".join(f"{name:>{wide}}" for name in names))
        for subject in dict.fromkeys(score.subject for score in shown):
            cells = {score.name: _cell(score) for score in shown if score.subject == subject}
            label = subject.replace("->", " -> ") or "model"
            lines.append(f"    {label:<26}" + "".join(f"{cells.get(name, ''):>{wide}}" for name in names))
    return "\n".join(lines)


def _plain(score: Score) -> bool:
    return score.name.rpartition("/")[2] in PLAIN


def _cell(score: Score) -> str:
    scale, places = (1, 1) if score.name == "median_rank" else (1, 3) if _plain(score) else (100, 1)
    chance = "" if score.chance is None else f" ({scale * score.chance:.{places}f})"
    return f"{scale * score.value:.{places}f}{chance}"


def _training_text(steps: Sequence[dict[str, Any]]) -> str:
    last = steps[-10:]
    text = f"Loss {np.mean([s['loss'] for s in last]):.4g} (mean of the last {len(last)} logged steps), "
    text += f"{steps[0]['loss']:.4g} at the first"
    speeds = [step["samples_per_s"] for step in steps if step.get("samples_per_s")]
    return text + (f"\nThroughput {np.median(speeds):,.0f} samples/s (median)" if speeds else "")


def _release_text(run: RunFolder) -> str:
    if not run.release.exists():
        return "No release."
    opened = f"AutoModel.from_pretrained({json.dumps(str(run.release))}, trust_remote_code=True)"
    return f"\nRelease: {run.release}\nOpen it: {opened}"
