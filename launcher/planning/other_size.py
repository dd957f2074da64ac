"""A run that goes on with other ranks, at another ZeRO stage or in another precision than its newest checkpoint."""

from __future__ import annotations

from typing import Any

from launcher.planning.going_on import Differences
from mmpretrain.config.objective import Negatives
from mmpretrain.config.root import Config
from mmpretrain.engine.checkpoint_files import newest_manifest
from mmpretrain.engine.checkpoint_layout import Layout, layout_of, not_divisible, written_layout
from mmpretrain.run_folder import RunFolder

SAME = "the samples of every step are the same, and losses are equal up to rounding, not bit for bit"
DROPOUT = "dropout draws other numbers"


def other_size(folder: RunFolder, plan: dict[str, Any], stored: Config, asked: Config, ranks: int) -> Differences:
    """What going on from the newest checkpoint with ``ranks`` ranks means.

    plan: that of the last submission, whose number of ranks counts where the checkpoint does not tell its own.
    """
    step, manifest = newest_manifest(folder.checkpoints)
    if step is None:
        return Differences()
    own = layout_of(asked.engine, ranks)
    written = written_layout(manifest) or layout_of(stored.engine, int(plan.get("world_size", ranks)))
    if written == own:
        return Differences()
    wrong = not_divisible(written) or not_divisible(own) or _another_loss(asked, written, own)
    if wrong:
        return Differences(
            (f"{folder.path} cannot go on with {own} after step {step}, which {written} wrote: {wrong}",)
        )
    return Differences(
        notes=(f"goes on after step {step}, which {written} wrote, with {own}: {_meaning(written, own)}",)
    )


def _another_loss(asked: Config, written: Layout, own: Layout) -> str | None:
    if asked.objective.negatives is not Negatives.local or written.ranks == own.ranks:
        return None
    return (
        "objective.negatives=local compares the samples of each rank with one another alone, so that the loss would be"
        f" another one; go on with {written.ranks} rank{'s' * (written.ranks > 1)}"
    )


def _meaning(written: Layout, own: Layout) -> str:
    said = SAME if written.ranks == own.ranks else f"{SAME}; {DROPOUT}"
    if written.precision == own.precision:
        return said
    return f"{said}; encoders compute in {own.precision} from now on"
