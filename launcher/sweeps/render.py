"""The plan of a sweep, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launcher.launching.render import summary
from launcher.planning.plan import RunPlan
from launcher.planning.predicted import prediction_lines
from launcher.planning.previous_run import Action
from launcher.planning.resources import Cluster
from launcher.sweeps.array import array_script
from launcher.sweeps.plan import Element, Fate, SweepPlan
from mmpretrain.config.folding import folded_text
from mmpretrain.config.merging import show
from mmpretrain.words import without_secrets

MOST = 40  # rows of the table where a sweep is started; a dry run shows all
WIDE = 1000  # columns, where nobody looks at a terminal


def show_sweep(plan: SweepPlan, console: Console, *, whole: bool) -> None:
    """The runs, what they share, and the notes. whole: also the config and the sbatch script, as a dry run does."""
    if not console.is_terminal:
        console = Console(width=WIDE)
    for name, value in _head(plan).items():
        _say(console, f"{name:<9} {value}")
    _say(console, "")
    shown = plan.elements if whole else plan.elements[:MOST]
    console.print(_table(plan, shown))
    if len(shown) < len(plan.elements):
        _say(console, f"and {len(plan.elements) - len(shown)} more: --dry-run shows all")
    for note in plan.notes:
        _say(console, f"note: {note}")
    if whole and plan.starting:
        _say(console, f"\nconfig of {plan.starting[0].run_folder.name}, where it differs from the defaults")
        _say(console, folded_text(plan.starting[0].config))
        if script := _script(plan):
            _say(console, f"\nsbatch script\n{script}")


def sweep_as_json(plan: SweepPlan) -> str:
    """The sweep with all its runs; of each that is started its plan, with the whole config once, in ``plan``."""
    starting = plan.starting
    content = {
        "sweep": plan.name,
        "folder": str(plan.folder),
        "command": plan.command,
        "at_once": plan.at_once,
        "shared": list(plan.shared),
        "runs": [_element(element) for element in plan.elements],
        "notes": list(plan.notes),
        "plan": starting[0].to_json() if starting else None,
        "sbatch": _script(plan),
    }
    return json.dumps(content, indent=2, ensure_ascii=False, default=str)


def _element(element: Element) -> dict[str, Any]:
    plan = element.plan.to_json() if element.plan is not None else {}
    plan.pop("config", None)
    return {
        "name": element.name,
        "run_folder": str(element.folder),
        "fate": element.fate.value,
        "why": element.why or None,
        "tokens": list(element.own),
        "values": dict(element.values),
        "plan": plan or None,
    }


def _script(plan: SweepPlan) -> str | None:
    if plan.resources.cluster is Cluster.local or not plan.starting:
        return None
    return array_script(plan)


def _head(plan: SweepPlan) -> Mapping[str, str]:
    counts = {fate: sum(element.fate is fate for element in plan.elements) for fate in Fate}
    words = {
        Fate.start: "to start",
        Fate.complete: "complete already",
        Fate.living: "in the queue or running already",
        Fate.double: "twice in it",
    }
    told = ", ".join(f"{count} {words[fate]}" for fate, count in counts.items() if count)
    if not plan.starting:
        return {"sweep": str(plan.folder), "runs": told}
    # Which of these rows differ from run to run stands in the table.
    rows = [summary(run) for run in plan.starting]
    same = {key: value for key, value in rows[0].items() if key != "run" and all(row.get(key) == value for row in rows)}
    return {"sweep": str(plan.folder), "runs": f"{told}{_pace(plan)}", **same, **_foretold(plan, same)}


def _foretold(plan: SweepPlan, same: Mapping[str, str]) -> Mapping[str, str]:
    """What the run with the largest model will need, where it does not stand among what all runs share."""
    largest = next((run for run in plan.starting if run.prediction is not None), None)
    if largest is None:
        return {}
    rows = prediction_lines(largest.prediction, largest.resources)
    return {
        name: f"{said} ({largest.run_folder.name}, the largest model)"
        for name, said in rows.items()
        if name not in same
    }


def _pace(plan: SweepPlan) -> str:
    if plan.resources.cluster is Cluster.local:
        return f"; {plan.at_once or 1} at a time"
    return f"; one Slurm array, {plan.at_once} at a time" if plan.at_once else "; one Slurm array"


def _table(plan: SweepPlan, elements: tuple[Element, ...]) -> Table:
    keys = [key for key in plan.elements[0].values if len({str(e.values[key]) for e in plan.elements}) > 1]
    made = Table(box=None, pad_edge=False)
    for column in ("run", *keys, "what"):
        made.add_column(column, overflow="fold")
    for element in elements:
        cells = [without_secrets(show(element.values[key])) for key in keys]
        made.add_row(*map(Text, (element.name, *cells, _what(element))))
    return made


def _what(element: Element) -> str:
    if element.plan is not None:
        return _action(element.plan)
    said = {Fate.complete: "complete", Fate.double: "not run twice", Fate.living: "left alone"}[element.fate]
    return f"{said} ({element.why})" if element.why else said


def _action(plan: RunPlan) -> str:
    if plan.action is Action.resume:
        return "start over, no checkpoint yet" if plan.step is None else f"resume after step {plan.step}"
    return plan.action.value


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
