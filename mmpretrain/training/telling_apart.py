"""Before the first step: do different inputs of a modality get different embeddings?

Where they do not, every batch costs ln N for ever, and a run ends as if it had learned. Causes are a pooling that sees
only the first token of a causal encoder, a tokenizer that knows none of the words, texts cut before they begin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmpretrain.assembly.lora import noted_calls, without_effect
from mmpretrain.assembly.trial import tried
from mmpretrain.config.data import DataConfig, Kind, Verify
from mmpretrain.config.root import Config
from mmpretrain.data.decode import Raw, SampleError
from mmpretrain.data.reader import read_sample
from mmpretrain.data.stream import Stream
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor

LOOKED_AT = 64  # samples, the first of the stream
DIFFERENT = 8  # of them that are compared: one pair may be the same to a model, all of them may not
SAME = 2e-7  # of the largest number of an embedding: rounding of float32
_SPECIAL = ("pad", "unk", "bos", "eos", "cls", "sep", "mask")


def indistinct(config: Config, model: MMPretrainModel, processor: MMPretrainProcessor) -> list[str]:
    """What makes inputs of one modality all the same, one sentence each; reads the first samples of the stream.

    model: whole, on the CPU, in float32. Its mode, torch's random numbers and ``config`` stay as they are. Raises
    ShardError.
    """
    encoders = {name: encoder for name, encoder in model.encoders.items() if isinstance(encoder, Encoder)}
    if not encoders:  # embeddings that are connected
        return []
    found = []
    for name, raws in different_samples(config.data, config.seed, list(encoders), processor).items():
        if len(raws) > 1:  # else the data says too little
            found += same_embeddings(name, config.data.modalities[name].kind, encoders[name], raws, processor)
    return found


def different_samples(
    data: DataConfig, seed: int, names: Sequence[str], processor: MMPretrainProcessor
) -> dict[str, list[Raw]]:
    """Modality -> up to 8 samples that differ, of the first 64 of the stream."""
    # The stream that trains verifies its shards itself.
    stream = Stream(replace(data, verify=Verify.never, workers=0), "train", seed, 0, 1, processor)
    kinds = {name: data.modalities[name].kind for name in names}
    found: dict[str, list[Raw]] = {name: [] for name in names}
    for ordinal in stream.plan.samples(0, min(LOOKED_AT, len(stream.index))).tolist():
        try:
            sample = read_sample(stream.reader, kinds, ordinal)
        except SampleError:
            continue
        for name in names:
            if name in sample and not any(_equal(sample[name], other) for other in found[name]):
                found[name].append(sample[name])
        if all(len(raws) >= DIFFERENT for raws in found.values()):
            break
    stream.reader.close()
    return {name: raws[:DIFFERENT] for name, raws in found.items()}


def same_embeddings(
    name: str, kind: Kind, encoder: Encoder, raws: Sequence[Raw], processor: MMPretrainProcessor
) -> list[str]:
    """What is wrong if all of these different samples of modality ``name`` get one embedding; at most one sentence."""
    # Together, so that all have one length, and then one by one: rows of a batch would differ by rounding alone.
    together = processor(**{name: list(raws)})[name]
    inputs = [{key: tensor[row : row + 1] for key, tensor in together.items()} for row in range(len(raws))]
    several = f"{len(raws)} different {kind.value}s of the training data"
    if kind.row.tokenized and not any(_has_words(tensors, processor.tokenizers[name]) for tensors in inputs):
        return [
            f"data.modalities.{name}: of {several} the tokenizer leaves no known word within max_length: take one that"
            f" was made for such texts (model.encoders.{name}.tokenizer), or a larger data.modalities.{name}.max_length"
        ]
    if all(torch.equal(inputs[0][key], tensors[key]) for tensors in inputs[1:] for key in tensors):
        return [f"data.modalities.{name}: {several} become the same input: {_look_at(name, kind)}"]
    with tried(encoder), noted_calls(encoder) as passed_over:
        # All of them, whatever the first ones show: of a model in parts every rank must run as much as the others.
        embeddings = [encoder(**{k: t for k, t in tensors.items() if k != "present"}) for tensors in inputs]
        first, *others = embeddings
        finite = bool(first.isfinite().all())
        differ = finite and any((other - first).abs().max() > SAME * first.abs().max() for other in others)
    if passed_over:
        return [without_effect(name, passed_over)]
    if not finite:
        return [f"model.encoders.{name} gives numbers that are not finite: are the weights damaged?"]
    if differ:
        return []
    return [f"model.encoders.{name} gives {several} the same embedding with pool={encoder.pool}: {_fix(name, encoder)}"]


def _has_words(tensors: Mapping[str, Tensor], tokenizer: Any) -> bool:
    """Whether any token stands for something in the text."""
    special = {getattr(tokenizer, f"{role}_token_id", None) for role in _SPECIAL}
    return not set(tensors["input_ids"][tensors["attention_mask"].bool()].tolist()) <= special


def _look_at(name: str, kind: Kind) -> str:
    """What to look at where different samples are read the same."""
    if kind.row.tokenized:
        return f"raise data.modalities.{name}.max_length, or take another tokenizer (model.encoders.{name}.tokenizer)"
    if kind.row.resized:
        return f"look at data.modalities.{name}.size and .resize, and at what the images show"
    if kind.row.extracted:
        return f"look at data.modalities.{name}.seconds, and at what the sounds begin with"
    return f"look at data.modalities.{name}.size and at the numbers"


def _fix(name: str, encoder: Encoder) -> str:
    if encoder.pool == "cls" and encoder.backbone.main_input_name == "input_ids":
        return (
            "its first token sees nothing of the others, as in causal encoders; leave the pool to the architecture"
            f" (model.encoders.{name}.pool=null), or set it to last or mean"
        )
    return f"set another model.encoders.{name}.pool, or look at its weights and model.encoders.{name}.config"


def _equal(first: Raw, second: Raw) -> bool:
    if isinstance(first, Image.Image) and isinstance(second, Image.Image):
        return first.size == second.size and first.mode == second.mode and first.tobytes() == second.tobytes()
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    if isinstance(first, dict) and isinstance(second, dict):
        same_rate = first["sampling_rate"] == second["sampling_rate"]
        return same_rate and np.array_equal(first["array"], second["array"])
    return first == second
