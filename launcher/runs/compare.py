"""Runs side by side: the keys in which their configs differ, their final scores, and their curves."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher.runs.reading import Reading
from launcher.runs.view import ABSENT, final_scores, number, shown
from mmpretrain.config.merging import leaves
from mmpretrain.records import Score, read_training
from mmpretrain.run_folder import RunFolder
from mmpretrain.words import without_secrets

OWN = ("run.name", "run.root")  # differ in any two runs
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40


def differences(runs: Sequence[Reading]) -> dict[str, list[str | None]]:
    """Key -> its value in each run, of keys whose values are not all the same; None where a config lacks the key."""
    configs = [_config(run) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    found = {key: [config.get(key) for config in configs] for key in keys if key not in OWN}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def _config(run: Reading) -> dict[str, str]:
    """The stored config's leaves, as they would be written; empty where it cannot be read."""
    try:
        loaded = yaml.safe_load(RunFolder(run.path).config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return {key: _written(value) for key, value in leaves(loaded)} if isinstance(loaded, dict) else {}


def _written(value: Any) -> str:
    return without_secrets(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def scores(runs: Sequence[Reading]) -> dict[str, list[Score | None]]:
    """``METRIC/SUBJECT/NAME`` -> the final score of each run; recalls of single classes are left out."""
    found = [{_key(score): score for score in shown(final_scores(RunFolder(run.path)))} for run in runs]
    return {key: [of.get(key) for of in found] for key in dict.fromkeys(key for of in found for key in of)}


def _key(score: Score) -> str:
    return "/".join(filter(None, (score.metric, score.subject, score.name)))


def curves(runs: Sequence[Reading]) -> list[tuple[list[float], list[float]]]:
    """(samples, loss) of the logged steps of each run."""
    found = []
    for run in runs:
        try:
            lines = read_training(RunFolder(run.path))
        except (OSError, ValueError, KeyError, TypeError):
            lines = []
        found.append(([float(line["samples"]) for line in lines], [float(line["loss"]) for line in lines]))
    return found


def sparkline(values: Sequence[float]) -> str:
    """Means of equal parts of ``values``, as heights from the lowest to the highest; a gap where one is not finite."""
    parts = min(WIDTH, len(values))
    means = [_mean(values[at * len(values) // parts : (at + 1) * len(values) // parts]) for at in range(parts)]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, span = min(finite, default=0.0), (max(finite, default=0.0) - min(finite, default=0.0)) or 1.0
    return "".join(BLOCKS[round(7 * (mean - low) / span)] if math.isfinite(mean) else " " for mean in means)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def as_json(runs: Sequence[Reading]) -> dict[str, Any]:
    """Differences by key, and final scores by name, each as one value per run."""
    return {
        "runs": [run.name for run in runs],
        "config": differences(runs),
        "scores": {
            key: [
                None if score is None else {"value": score.value, "low": score.low, "high": score.high}
                for score in of_runs
            ]
            for key, of_runs in scores(runs).items()
        },
        "loss_smoothed": [run.smoothed for run in runs],
        "samples_per_s": [run.speed for run in runs],
    }


def view(runs: Sequence[Reading]) -> RenderableType:
    """Tables with a column per run, and a line of the loss for each."""
    names = [run.name for run in runs]
    config = _table("Settings that differ", "key", names)
    for key, values in differences(runs).items():
        config.add_row(Text(key), *(Text(ABSENT if value is None else value) for value in values))
    results = _table("Final evaluation (interval)", "score", [*names, "chance"])
    for key, of_runs in scores(runs).items():
        chance = next((s for s in of_runs if s is not None and s.chance is not None), None)
        told = ABSENT if chance is None or chance.chance is None else number(chance, chance.chance)
        results.add_row(Text(key), *(Text(_cell(score)) for score in of_runs), Text(told))
    return Group(config, Text(), results, Text(), _losses(runs))


def _losses(runs: Sequence[Reading]) -> Table:
    made = _table("Loss over each run, from its lowest to its highest", "run", ["first", "curve", "last"])
    for run, (_, loss) in zip(runs, curves(runs), strict=True):
        ends = (f"{loss[0]:.4f}", sparkline(loss), f"{loss[-1]:.4f}") if loss else (ABSENT, ABSENT, ABSENT)
        made.add_row(Text(run.name), *map(Text, ends))
    return made


def _cell(score: Score | None) -> str:
    if score is None:
        return ABSENT
    if score.low is None or score.high is None:
        return number(score, score.value)
    return f"{number(score, score.value)} ({number(score, score.low)} to {number(score, score.high)})"


def _table(title: str, first: str, others: Sequence[str]) -> Table:
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in (first, *others):
        made.add_column(column, overflow="fold")
    return made


def draw(runs: Sequence[Reading], path: Path) -> None:
    """The losses of the runs against the samples that they have seen, as a picture. Raises OSError, ValueError."""
    from matplotlib.figure import Figure

    from mmpretrain.figures import COLORS, legend_below, style_axes

    figure = Figure(figsize=(8, 5), facecolor="white")
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for number_, (run, (samples, loss)) in enumerate(zip(runs, curves(runs), strict=True)):
        color = COLORS[number_ % len(COLORS)]
        axes.plot(samples, loss, color=color, alpha=0.2, linewidth=0.8)
        axes.plot(samples, _running(loss), color=color, linewidth=1.8, label=run.name)
    style_axes(axes, "Training loss (running mean)", "loss")
    legend_below(axes)
    figure.savefig(path, dpi=120)


def _running(values: Sequence[float]) -> list[float]:
    window = max(1, len(values) // 40)
    return [_mean(values[max(0, at - window + 1) : at + 1]) for at in range(len(values))]
