"""Hard negatives through the model: further texts of every sample, encoded as their modality is."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from mmpretrain.data.batch import NEGATIVES, PRESENT, Batch


def encode_negatives(model: Any, batch: Batch) -> dict[str, Tensor]:
    """Modality -> [b, count, d], of modalities with hard negatives: one more call of the model, if there are any."""
    view = batch.views.get(NEGATIVES, {})
    if not view:
        return {}
    # A modality that samples may lack says so to the model; else a place without a hard negative holds another text.
    flat = {
        name: {
            key: tensor.flatten(0, 1)
            for key, tensor in tensors.items()
            if key != PRESENT or PRESENT in batch.inputs[name]
        }
        for name, tensors in view.items()
    }
    embeds = model(**flat).embeds
    return {name: embeds[name].unflatten(0, (len(batch), -1)) for name in view}
