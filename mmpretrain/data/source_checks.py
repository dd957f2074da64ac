"""What is known of all sources of a run before it reads them (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from mmpretrain.config.data import DataConfig
from mmpretrain.data.index import ShardError
from mmpretrain.data.index_checks import Checked, check_split
from mmpretrain.data.info import contradictory_classes
from mmpretrain.data.mixture import Mixture
from mmpretrain.data.sources import OpenedData, open_data, parts_with
from mmpretrain.data.split import TRAIN

REPEATED = 10  # epochs of a source that are worth a word
ROUNDED = Fraction(1, 1000)  # of a share


@dataclass(frozen=True)
class SourceUse:
    """What a run takes of a source. shares: of the stream, in every stage. taken: samples. epochs: of the source."""

    name: str
    samples: int
    shares: tuple[float, ...]
    taken: int
    epochs: float


def check_data_split(config: DataConfig, split: str) -> Checked:
    """As :func:`check_split`, of all sources that have the split, and whether their labels are of the same classes."""
    if config.classes and len(config.paths) > 1 and (problem := contradictory_classes(config)):
        return Checked((problem,), ())
    if not config.sources:
        return check_split(config, split)
    checked = {name: check_split(part, split, lacking=True) for name, part in parts_with(config, split).items()}
    problems = [f"data.sources.{name}: {problem}" for name, one in checked.items() for problem in one.problems]
    notes = [f"source {name}: {note}" for name, one in checked.items() for note in one.notes]
    if problems:
        return Checked(tuple(problems), tuple(notes))
    try:
        opened = open_data(config, split)
    except ShardError as error:
        return Checked((str(error),), tuple(notes))
    return Checked((), (*notes, *(_lacking(opened) if split == TRAIN else [])), len(opened.index))


def source_uses(config: DataConfig, opened: OpenedData, seed: int, samples: int) -> tuple[SourceUse, ...]:
    """What a run of so many samples takes of each source; empty without sources. Raises ValueError as mixtures do."""
    plan = opened.plan(config, TRAIN, seed)
    if not isinstance(plan, Mixture):
        return ()
    stages = [shares for first, shares in plan.stages() if first < samples]
    return tuple(
        SourceUse(name, size, tuple(float(shares[name]) for shares in stages), taken, taken / size)
        for name, (taken, size) in plan.by_source(samples).items()
    )


def use_notes(uses: tuple[SourceUse, ...]) -> list[str]:
    """A sentence for each source that a run repeats very often, does not use up while it repeats others, or leaves."""
    found = []
    most = max((use.epochs for use in uses), default=0.0)
    for use in uses:
        named = f"source {use.name}: the run takes {use.taken} of its {use.samples} samples"
        if not use.taken:
            found.append(f"{named}: its weight is too small, or 0")
        elif use.epochs > REPEATED and use.epochs == most:
            found.append(f"{named}, {use.epochs:.3g} epochs: a smaller weight repeats it less often")
        elif use.epochs < 1 <= most:
            found.append(f"{named}: it is not used up while others are repeated; a larger weight takes more of it")
    return found


def _lacking(opened: OpenedData) -> list[str]:
    """A note for each modality that a source does not hold."""
    return [
        f"source {name} has no {modality}: its samples go without"
        for name, part in opened.parts.items()
        for modality, holders in part.members.modalities.items()
        if not holders.members
    ]
