"""Whether a run that goes on reads the stream that its checkpoint knows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmpretrain.config.root import Config
from mmpretrain.data.changed_index import changed_index, other_scores
from mmpretrain.data.stream import Stream
from mmpretrain.engine.checkpoint_files import CheckpointError

logger = logging.getLogger(__name__)


def known_data(manifest: Mapping[str, Any], stream: Stream, config: Config) -> list[dict[str, Any]]:
    """Every change of the shards that was accepted since the run began, for the next manifest.

    manifest: of the checkpoint that the run goes on from. Raises CheckpointError if the stream is another one and
    nobody has accepted it.
    """
    data = config.data
    accepted = list(manifest.get("accepted_index", []))
    found = changed_index(stream.index, manifest["index"], data.accept_index)
    if found is not None and found.accepted:
        logger.warning(found.words(manifest["position"]))
        return [*accepted, found.facts(manifest["step"])]
    if found is not None:
        raise CheckpointError(
            f"the shards in {data.place}, or their order, have changed since the checkpoint was written: restore them,"
            f" go on with them as they are by {found.token}, or start a run with another run.name"
        )
    if manifest.get("mixture", {}) != stream.plan.facts:
        raise CheckpointError(
            "the sources are mixed in other shares than when the checkpoint was written: restore data.sources,"
            " data.mixing and data.temperature, or start a run with another run.name"
        )
    if not accepted and (other := other_scores(config, manifest.get("measured") or {})):
        raise CheckpointError(f"{other}, or start a run with another run.name")
    return accepted
