"""In which keys two configs differ, and which of these a run may change when it goes on (no torch here)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any

from mmpretrain.config.keys import Freedom, freedom_of
from mmpretrain.config.merging import leaves, show
from mmpretrain.config.root import Config
from mmpretrain.words import without_secrets

DEEPSPEED = "engine.deepspeed"
# Keys of DeepSpeed's config that say where state lies, how it travels and what is logged; others may change results.
EXACT_DEEPSPEED = (
    "zero_optimization",
    "aio",
    "checkpoint",
    "communication_data_type",
    "prescale_gradients",
    "gradient_predivide_factor",
    "activation_checkpointing",
    "comms_logger",
    "dump_state",
    "memory_breakdown",
    "timers",
    "wall_clock_breakdown",
)


@dataclass(frozen=True)
class Change:
    """A dotted key and its two values, None where a config has no such key."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return without_secrets(f"{self.key}: {show(self.before)} -> {show(self.after)}")


def changes(old: Config, new: Config) -> list[Change]:
    """All keys in which two configs differ."""
    before, after = (dict(leaves(asdict(config))) for config in (old, new))
    keys = [key for key in (before | after) if before.get(key) != after.get(key)]
    return [Change(key, before.get(key), after.get(key)) for key in keys]


def may_change(key: str, old: Config, new: Config) -> bool:
    """Whether a run of the config ``old`` may go on with another value of ``key``, as in ``new``: that changes neither
    weights, but for rounding, nor which of them are released, nor what is compared with the scores of the start. Where
    data lie may change; that they are the same is known by their index, which is asked elsewhere."""
    freedom = _freedom(key, new)
    compared = old.finetune.before or new.finetune.before
    if freedom is Freedom.measured:
        return not (compared or old.evaluation.best.score or new.evaluation.best.score)
    if compared and key == "evaluation.split":
        return False
    return freedom in (Freedom.free, Freedom.place) or rounds(key, new)


def rounds(key: str, config: Config) -> bool:
    """Whether another value of ``key`` forms the same sums in another way: weights are then equal up to rounding."""
    if _freedom(key, config) is not Freedom.rounding:
        return False
    section, _, rest = key.partition(f"{DEEPSPEED}.")
    return bool(section) or rest.split(".")[0] in EXACT_DEEPSPEED


def _freedom(key: str, config: Config) -> Freedom:
    """The mark of a key, or of the section that it stands in."""
    place: Any = config
    for part in key.split("."):
        if isinstance(place, dict):  # sections by names of the user's
            place = place.get(part)
            continue
        if not is_dataclass(place):
            return Freedom.fixed
        found = next((freedom_of(entry) for entry in fields(place) if entry.name == part), Freedom.fixed)
        if found is not Freedom.fixed:
            return found
        place = getattr(place, part, None)
    return Freedom.fixed


def settles(key: str, config: Config) -> bool:
    """Whether another value of ``key`` makes another run of it: it decides weights or scores, and not merely where and
    under which name they are kept."""
    return not key.startswith("run.") and _freedom(key, config) is not Freedom.free
