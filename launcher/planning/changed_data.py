"""Whether a run that goes on finds the shards that its checkpoint knows."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from launcher.planning.going_on import Differences, both_ways
from mmpretrain.config.data import DataConfig
from mmpretrain.config.root import Config
from mmpretrain.data.changed_index import KEY, SHOWN, ChangedIndex, changed_index, other_scores
from mmpretrain.data.index import ShardError
from mmpretrain.data.sources import open_data
from mmpretrain.data.split import TRAIN
from mmpretrain.engine.checkpoint_files import read_manifest, step_folder
from mmpretrain.run_folder import RunFolder


def changed_data(folder: RunFolder, stored: Config, config: Config, step: int, typed: str) -> Differences:
    """What is to be said of shards that have changed since the checkpoint after ``step`` steps.

    stored: the config of the last start. typed: the command of this submission. Shards that cannot be read are no
    matter of this check.
    """
    before, found, scores = stored.data, None, None
    with suppress(OSError, ValueError, ShardError):  # of a damaged manifest an older checkpoint may take over
        manifest = read_manifest(step_folder(folder.checkpoints, step))
        if unknown := _tokenizers_not_known(stored, config, manifest.get("tokenizers") or {}):
            return Differences(problems=(f"{unknown}; or {both_ways(folder, typed, step)}",))
        if not manifest.get("accepted_index"):
            scores = other_scores(config, manifest.get("measured") or {})
        found = changed_index(open_data(config.data, TRAIN).index, manifest.get("index"), config.data.accept_index)
    if found is None:
        return Differences(problems=(f"{scores}; or {both_ways(folder, typed, step)}",) if scores else ())
    if not found.accepted and before.paths != config.data.paths:
        return Differences(problems=(_elsewhere(found, before, config.data, step, both_ways(folder, typed, step)),))
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


def _elsewhere(found: ChangedIndex, before: DataConfig, now: DataConfig, step: int, ways: str) -> str:
    """Of data that are said to lie in another place."""
    key = "data.sources" if now.sources else "data.path"
    return (
        f"{now.place} does not hold the data of the checkpoint after step {step} (index {found.before[:SHOWN]} ->"
        f" {found.now[:SHOWN]}), which lay in {before.place}: give {key} the place where they lie now; or, if the"
        f" change is meant, go on with other data by adding {found.token} to the same command; or {ways}"
    )


def _tokenizers_not_known(stored: Config, config: Config, known: Collection[str]) -> str | None:
    """A sentence if a tokenizer is to lie elsewhere of which the checkpoint knows nothing; whether one that it knows is
    the same, ranks see. known: modalities."""
    for name, encoder in config.model.encoders.items():
        before = stored.model.encoders.get(name)
        if before is not None and before.tokenizer != encoder.tokenizer and name not in known:
            key = f"model.encoders.{name}.tokenizer"
            return (
                f"{key}: {before.tokenizer} -> {encoder.tokenizer}, and the checkpoint is of an earlier version, which"
                " kept no fingerprint of tokenizers: give it the value from before"
            )
    return None
