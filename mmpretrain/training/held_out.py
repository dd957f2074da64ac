"""Whether what is measured was kept from training: a score of seen samples is no claim about new ones."""

from __future__ import annotations

from mmpretrain.config.root import Config
from mmpretrain.data.index import Index
from mmpretrain.data.info import dataset_info
from mmpretrain.data.split import TRAIN


def not_held_out(config: Config, trained: Index, measured: Index) -> str | None:
    """Why scores on ``measured``, the index of ``evaluation.split``, are not of held-out data; None if they are.

    trained: the index of the training split. The shards are compared by what is in them, whatever they are called.
    """
    split = config.evaluation.split
    if split == TRAIN or measured.fingerprint == trained.fingerprint:
        return "they are the samples that the model learned from"
    seen = {shard.sha256: shard for shard in trained.shards}
    common = sum(s.sha256 in seen and s.shares_samples(seen[s.sha256]) for s in measured.shards)
    if common:
        return f"{common} of the {len(measured.shards)} shards of {split} are shards that the model learned from"
    info = dataset_info(config.data)
    if info is not None and any(key.endswith("_memory") for key in info.provenance):
        return "partners in it were made by models (`mmpretrain pair`) and nobody knows the true ones"
    return None
