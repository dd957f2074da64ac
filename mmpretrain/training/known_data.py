"""Whether a run that goes on reads the stream that its checkpoint knows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mmpretrain.config.root import Config
from mmpretrain.data.changed_index import changed_index, other_scores
from mmpretrain.data.split import TRAIN
from mmpretrain.data.stream import Stream
from mmpretrain.engine.checkpoint_files import CheckpointError

logger = logging.getLogger(__name__)


def measured_on(before: Mapping[str, str], splits: Mapping[str, Stream]) -> dict[str, str]:
    """Split -> fingerprint of its index, of all but the training split that scores are of: ``before``, as an earlier
    manifest has it, and ``splits``, as they are open now."""
    return {**before, **{name: stream.index.fingerprint for name, stream in splits.items() if name != TRAIN}}


def same_tokenizers(manifest: Mapping[str, Any], tokenizers: Mapping[str, str]) -> None:
    """tokenizers: modality -> fingerprint of its tokenizer now. Raises CheckpointError if a checkpoint knows another
    one; those of earlier versions know none."""
    for name, known in (manifest.get("tokenizers") or {}).items():
        if name in tokenizers and tokenizers[name] != known:
            raise CheckpointError(
                f"the tokenizer of {name} is not the one that the checkpoint was trained with, and would give words"
                f" other numbers: give model.encoders.{name}.tokenizer the place where that one lies now (a release of"
                f" this run has it as tokenizer_{name}), or start a run with another run.name"
            )


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
