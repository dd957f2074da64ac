"""Whether a run that goes on finds the shards that its checkpoint knows."""

from __future__ import annotations

from contextlib import suppress

from launcher.planning.going_on import Differences, both_ways
from mmpretrain.config.root import Config
from mmpretrain.data.changed_index import KEY, changed_index
from mmpretrain.data.index import ShardError
from mmpretrain.data.sources import open_data
from mmpretrain.data.split import TRAIN
from mmpretrain.engine.checkpoint_files import read_manifest, step_folder
from mmpretrain.run_folder import RunFolder


def changed_data(folder: RunFolder, config: Config, step: int, typed: str) -> Differences:
    """What is to be said of shards that have changed since the checkpoint after ``step`` steps.

    typed: the command of this submission. Shards that cannot be read are no matter of this check.
    """
    found = None
    with suppress(OSError, ValueError, ShardError):  # of a damaged manifest an older checkpoint may take over
        known = read_manifest(step_folder(folder.checkpoints, step)).get("index")
        found = changed_index(open_data(config.data, TRAIN).index, known, config.data.accept_index)
    if found is None:
        return Differences()
    if found.accepted:
        return Differences(notes=(found.words(step * config.data.global_batch),))
    given = "" if config.data.accept_index is None else f" and are not those of {KEY}={config.data.accept_index}"
    return Differences(
        problems=(
            f"the shards in {config.data.place}, or their order, have changed since the checkpoint after step {step}"
            f"{given}: restore them; or, if the change is meant, go on with them by adding {found.token} to the same"
            f" command; or {both_ways(folder, typed, step)}",
        )
    )
