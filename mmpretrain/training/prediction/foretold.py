"""The prediction as the preflight tells it: plain values, and notes about what does not fit or cannot be known."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.root import Config
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.training.prediction.fit import GIB, advice, fits
from mmpretrain.training.prediction.predict import predict
from mmpretrain.words import shortened


def foretold(
    config: Config, sources: EncoderSources, model: MMPretrainModel, ranks: int, *, gpu: bool, limit: int | None
) -> tuple[dict[str, Any] | None, list[str]]:
    """(prediction, notes). model: on the meta device, spoiled afterwards. limit: bytes of a GPU, None if not known.

    Nothing is raised: a run that can be trained is not stopped because it cannot be predicted.
    """
    kept = deepcopy(model)
    again = partial(_predicted, sources=sources, ranks=ranks, gpu=gpu)
    try:
        prediction = again(config, model)
        notes = []
        if prediction.untraced is not None:
            notes.append(f"memory and traffic are not predicted: an encoder needs real values ({prediction.untraced})")
        if limit is not None and not fits(prediction, limit):
            assert prediction.memory is not None
            needed = f"{prediction.memory.total / GIB:.3g} of {limit / GIB:.3g} GiB per GPU, of which CUDA takes a part"
            notes.append(f"does not fit: {needed}; {advice(config, kept, ranks, limit, again)}")
        return prediction.to_json(), notes
    except Exception as error:  # whatever a model or a method does when it is only played
        cause = shortened(f"{type(error).__name__}: {error}")
        return None, [f"what the run will need is not predicted ({cause})"]


def _predicted(config: Config, model: MMPretrainModel, *, sources: EncoderSources, ranks: int, gpu: bool) -> Any:
    return predict(config, sources, model, ranks, gpu=gpu)
