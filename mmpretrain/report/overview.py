"""What a run is and came to, as short texts: the head of the page and its table of facts."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeGuard

import numpy as np

from mmpretrain.records import sizes_in_words, told_ending
from mmpretrain.report.axis import count, duration, percent, short
from mmpretrain.report.record import Record, inner, silent_for
from mmpretrain.words import listed, without_secrets

LONG_SILENT_S = 600.0
LAST = 10  # logged steps that the last loss is the mean of


@dataclass(frozen=True)
class Fact:
    """A row of the table of facts: a text per run, "" where it is not known."""

    name: str
    values: list[str]


def facts(records: Sequence[Record]) -> list[Fact]:
    """Rows that at least one run has something to say to."""
    rows = [Fact(name, [ask(record) for record in records]) for name, ask in ROWS.items()]
    return [row for row in rows if any(row.values)]


def state_words(record: Record) -> str:
    """The state, and for one that runs how long it has been silent."""
    silent = silent_for(record)
    if silent is None or silent < LONG_SILENT_S:
        return record.state
    return f"{record.state}, but silent for {duration(silent / 60)}"


def progress(record: Record) -> float | None:
    """Steps done in percent; None where it is not known, or where all is done."""
    done, total = record.status.get("step"), record.status.get("total_steps")
    if not _is_number(done) or not _is_number(total) or not total or record.state == "completed":
        return None
    return round(100 * min(1.0, float(done) / float(total)), 1)


def cause(record: Record) -> str:
    """Why the run ended, where somebody noted it."""
    text = record.status.get("cause")
    return without_secrets(str(text)) if text else ""


def ending(record: Record) -> list[str]:
    """Lines on how a run ended in other than the plain way."""
    try:
        return told_ending(record.status)
    except (KeyError, TypeError, ValueError, AttributeError):
        return []  # of another version


def last_loss(record: Record) -> float | None:
    """The mean of the last logged losses that are numbers."""
    column = record.columns.get("loss")
    values = column.values[-LAST:] if column else np.zeros(0)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def speed(record: Record) -> float | None:
    """Samples per second, the median over the run."""
    column = record.columns.get("samples_per_s")
    values = column.values[np.isfinite(column.values)] if column else np.zeros(0)
    return float(np.median(values)) if len(values) else None


def _method(record: Record) -> str:
    return str(record.setting("method.name", ""))


def data_name(record: Record) -> str:
    """What the data are called."""
    return str(inner(record.facts, "dataset.title") or record.setting("data.name") or "")


def _steps(record: Record) -> str:
    done, total = record.status.get("step"), record.status.get("total_steps")
    if not _is_number(done):
        return ""
    return f"{count(done)} of {count(total)}" if _is_number(total) else count(done)


def _samples(record: Record) -> str:
    seen, epochs = _last(record, "samples"), _last(record, "epoch")
    if seen is None:
        return ""
    return count(seen) + (f" ({epochs:.3g} epochs)" if epochs is not None else "")


def _loss(record: Record) -> str:
    value = last_loss(record)
    return "" if value is None else short(value)


def _speed(record: Record) -> str:
    value = speed(record)
    return "" if value is None else f"{count(value)} / s"


def _waiting(record: Record) -> str:
    """The share of time that steps waited for data."""
    wait, rate = record.columns.get("data_wait_s"), record.columns.get("samples_per_s")
    batch = record.setting("data.global_batch")
    if wait is None or rate is None or not _is_number(batch) or len(wait.values) != len(rate.values):
        return ""
    with np.errstate(all="ignore"):
        shares = wait.values * rate.values / batch
    shares = shares[np.isfinite(shares)]
    return percent(float(np.median(shares))) + " of the time" if len(shares) else ""


def _parameters(record: Record) -> str:
    for note in record.plan.get("notes") or []:
        if str(note).startswith("model: "):
            return str(note).removeprefix("model: ")
    return ""


def _hardware(record: Record) -> str:
    known = record.facts.get("hardware")
    if known:
        return str(known)
    ranks = record.plan.get("world_size")
    return (f"{ranks} ranks" if ranks != 1 else "1 rank") if ranks else ""


def _sizes(record: Record) -> str:
    found = record.status.get("sizes")
    try:
        return (sizes_in_words(found) if isinstance(found, list) else None) or ""
    except (KeyError, TypeError):
        return ""


def _where(record: Record) -> str:
    plan = record.plan
    if not plan:
        return ""
    nodes = plan.get("nodes")
    parts = [plan.get("cluster"), plan.get("host"), f"{nodes} nodes" if _is_number(nodes) and nodes > 1 else None]
    return ", ".join(str(part) for part in parts if part)


def _when(record: Record) -> str:
    started = record.attempts[0].started if record.attempts else None
    ended = record.touched
    if started and ended and ended > started:
        minutes = (ended - started).total_seconds() / 60
        return f"{clock(started)} to {clock(ended)} ({duration(minutes)})"
    return clock(ended) if ended else ""


def _released(record: Record) -> str:
    step = record.status.get("released_step")
    alpha = inner(record.status, "interpolation.alpha")
    said = [f"step {count(step)}"] if _is_number(step) and record.release else []
    if alpha is not None:
        said.append(f"interpolated with its start, alpha {alpha}")
    return "; ".join(said)


def _best(record: Record) -> str:
    step, value = inner(record.status, "best.step"), inner(record.status, "best.value")
    if not _is_number(step):
        return ""
    return f"step {count(step)}" + (f", {short(value)}" if _is_number(value) else "")


def _held_out(record: Record) -> str:
    evaluated = record.status.get("evaluated")
    if not isinstance(evaluated, dict):
        return ""
    why = evaluated.get("not_held_out")
    return (
        f"no held-out data: {without_secrets(str(why))}" if why else f"on {evaluated.get('split', 'a split')}, held out"
    )


def _setting(key: str) -> Callable[[Record], str]:
    def ask(record: Record) -> str:
        value = record.setting(key)
        return "" if value is None else str(value)

    return ask


ROWS: dict[str, Callable[[Record], str]] = {
    "State": state_words,
    "Method": _method,
    "Data": data_name,
    "Steps": _steps,
    "Samples seen": _samples,
    "Loss at the end": _loss,
    "Speed": _speed,
    "Waiting for data": _waiting,
    "Released": _released,
    "Best on validation": _best,
    "Evaluated": _held_out,
    "Batch": _setting("data.global_batch"),
    "Learning rate": _setting("optim.lr"),
    "Seed": _setting("seed"),
    "Parameters": _parameters,
    "Hardware": _hardware,
    "Ranks": _sizes,
    "Where": _where,
    "When": _when,
}


def clock(moment: datetime) -> str:
    """A time to the minute."""
    return moment.strftime("%Y-%m-%d %H:%M")


def command_of(record: Record) -> str:
    """The command that started it last."""
    return without_secrets(str(record.plan.get("command") or ""))


def checkpoints_words(record: Record) -> str:
    """The steps of which there are checkpoints."""
    steps = record.checkpoints
    return f"step {listed([count(step) for step in steps[::-1]], 10)}" if steps else ""


def release_commands(record: Record) -> list[str]:
    """What opens the release, and what measures it."""
    if record.release is None:
        return []
    path = str(record.release)
    return [
        "from transformers import AutoModel, AutoProcessor",
        f"model = AutoModel.from_pretrained({path!r}, trust_remote_code=True)",
        f"processor = AutoProcessor.from_pretrained({path!r}, trust_remote_code=True)",
        "",
        "# in a shell: evaluate it on other data, look into it",
        f"mmpretrain evaluate {shlex.quote(path)} --data DATA",
    ]


def _last(record: Record, name: str) -> float | None:
    column = record.columns.get(name)
    if column is not None and len(column.values) and np.isfinite(column.values[-1]):
        return float(column.values[-1])
    known = record.status.get(name)
    return float(known) if _is_number(known) else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
