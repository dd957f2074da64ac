"""The page: one HTML file that needs nothing else, by the template beside this file.

Names, captions and causes are strangers' texts. The template escapes whatever is no Markup; the page forbids itself
every request, and every script but its own by the hash of that.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mmpretrain import __version__
from mmpretrain.report import overview
from mmpretrain.report.axis import count, duration, short
from mmpretrain.report.chart import COLORS, Chart, Panel, chart
from mmpretrain.report.configs import differences, sections
from mmpretrain.report.data_summary import Pairs, data_facts
from mmpretrain.report.headlines import Headline, headlines
from mmpretrain.report.panels import evaluation_panels, training_panels
from mmpretrain.report.pictures import GridView, MapView, embedding_map, grids
from mmpretrain.report.record import Record
from mmpretrain.report.scores import tables
from mmpretrain.words import without_secrets

TEMPLATE, CSS, SCRIPT = "page.html", "page.css", "page.js"
MOST_DIFFERENCES = 80
MOST_REMARKS = 30


@dataclass(frozen=True)
class RunView:
    """What the template says of one run."""

    record: Record
    style: str
    state: str
    progress: float | None
    left: str
    cause: str
    ending: list[str]
    headlines: list[Headline]
    numbers: list[tuple[str, str, str]]
    grids: list[GridView]
    map: MapView | None
    data: Pairs
    attempts: list[str]
    checkpoints: str
    command: str
    release: list[str]
    remarks: list[str]
    config: list[tuple[str, str]]


def page(records: Sequence[Record], title: str | None = None) -> str:
    """The whole page of one run or several."""
    several = len(records) > 1
    shown, rest = training_panels(records)
    evaluated, more_evaluated = evaluation_panels(records)
    charts = [_charts(panels) for panels in (shown, rest, evaluated, more_evaluated)]
    script = _file(SCRIPT)
    content = {
        "title": title or (f"{len(records)} runs compared" if several else records[0].name),
        "subtitle": _subtitle(records),
        "several": several,
        "runs": [_view(record, place) for place, record in enumerate(records)],
        "facts": overview.facts(records),
        "differences": differences(records),
        "most_differences": MOST_DIFFERENCES,
        "tables": tables(records),
        "comparing": several or any(record.before for record in records),
        "charts": charts[0],
        "more_charts": charts[1],
        "evaluated": charts[2],
        "more_evaluated": charts[3],
        "version": __version__,
        "written": overview.clock(datetime.now()),
        "css": Markup(_file(CSS)),
        "script": Markup(script),
        "script_hash": Markup(_hash(script)),
    }
    content["notes"] = _notes(records, content)
    content["sections"] = _sections(content)
    return _environment().get_template(TEMPLATE).render(content)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers: dict[int, int] = {}
    environment.filters["id"] = lambda value: numbers.setdefault(id(value), len(numbers))
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment


def _view(record: Record, place: int) -> RunView:
    return RunView(
        record,
        f"c{place % COLORS}" + (f" d{place // COLORS % 3}" if place >= COLORS else ""),
        overview.state_words(record),
        overview.progress(record),
        _time_left(record),
        overview.cause(record),
        overview.ending(record),
        headlines(record),
        _numbers(record),
        grids(record),
        embedding_map(record),
        data_facts(record),
        [_attempt(record, place) for place in range(len(record.attempts))],
        overview.checkpoints_words(record),
        overview.command_of(record),
        overview.release_commands(record),
        [without_secrets(str(note)) for note in (record.plan.get("notes") or [])[:MOST_REMARKS]],
        sections(record),
    )


def _subtitle(records: Sequence[Record]) -> str:
    if len(records) > 1:
        return ", ".join(record.name for record in records)
    record = records[0]
    method, data = record.setting("method.name"), overview.data_name(record)
    ended = overview.clock(record.touched) if record.touched else ""
    return " · ".join(filter(None, (f"method {method}" if method else "", data, ended)))


def _numbers(record: Record) -> list[tuple[str, str, str]]:
    """What stands beside the scores: name, text, remark."""
    loss, speed = overview.last_loss(record), overview.speed(record)
    column = record.columns.get("loss")
    found = []
    if column is not None:
        ended = "nan" if loss is None else short(loss)
        found.append(("Loss", ended, f"at the end; {short(float(column.values[0]))} at first"))
    if speed is not None:
        found.append(("Samples per second", count(speed), "median"))
    return found


def _time_left(record: Record) -> str:
    done, total, speed = record.status.get("step"), record.status.get("total_steps"), overview.speed(record)
    batch = record.setting("data.global_batch")
    numbers = (done, total, batch)
    if overview.state_words(record) != "running" or not speed or not all(isinstance(number, int) for number in numbers):
        return ""
    return f"about {duration((total - done) * batch / speed / 60)} left at its usual speed"  # type: ignore[operator]


def _attempt(record: Record, place: int) -> str:
    attempt = record.attempts[place]
    what = "began" if place == 0 else "went on"
    ranks = "1 rank" if attempt.ranks == 1 else f"{attempt.ranks} ranks"
    began = f"{overview.clock(attempt.started)}: job {attempt.job} {what} with {ranks}"
    return f"{began}, and wrote for {duration(attempt.minutes)}"


def _charts(panels: Sequence[Panel]) -> list[Chart]:
    return [made for panel in panels if (made := chart(panel)) is not None]


def _notes(records: Sequence[Record], content: dict[str, Any]) -> list[str]:
    """What is missing, in one line each."""
    several = len(records) > 1
    found = [f"{record.name}: {note}" if several else note for record in records for note in record.notes]
    if not (content["charts"] or content["more_charts"]):
        found.append("No training step was logged yet.")
    without = [record.name for record in records if not record.scores]
    if without:
        found.append(f"No final evaluation{' of ' + ', '.join(without) if several else ''}.")
    return found


def _sections(content: dict[str, Any]) -> list[tuple[str, str]]:
    """Anchors and names of the sections that there are."""
    runs: list[RunView] = content["runs"]
    there = {
        ("facts", "at a glance"): True,
        ("differences", "differences"): content["several"],
        ("scores", "evaluation"): bool(content["tables"]),
        ("curves", "curves"): any(content[key] for key in ("charts", "more_charts", "evaluated", "more_evaluated")),
        ("retrieval", "retrieval"): any(run.grids for run in runs),
        ("map", "map"): any(run.map for run in runs),
        ("data", "data"): True,
        ("course", "course and release"): True,
        ("config", "configs"): any(run.config for run in runs),
    }
    return [section for section, is_there in there.items() if is_there]


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
