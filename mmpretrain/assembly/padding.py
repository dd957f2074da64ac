"""May the texts and sequences of a batch be padded to its longest? Where that would change an embedding, never.

Most encoders are told by a mask what is padding, and give a sample the same however much of it there is. Others attend
to it, count it in a mean, mix it into its neighbors (Fourier transforms, convolutions), or look for the last token at
the end of the tensor. Lists of such architectures grow old, so every encoder is tried before it trains: a few samples,
padded a little and a lot, must get the same embedding (or, for a fusion, the same tokens).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpretrain.assembly.trial import doubled, tried, without_zeros
from mmpretrain.config.data import ModalityConfig, Padding
from mmpretrain.config.root import Config
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.inputs_mmpretrain import KINDS, MULTIPLE
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import one_line

BUCKET = 8  # places: what matrix units are fed by; costs a text 3.5 tokens of padding, and 77 come in 10 shapes
SMALL = 200_000_000  # parameters: 0.8 GB, and for a moment 1.6
EXACT, ROUNDED = (
    1e-6,
    1e-4,
)  # of the largest number of an output, in float64 and float32; deep encoders amplify rounding
# What they do to neighbors shows little in some weights, or only at some lengths.
_BY_LENGTH = {"big_bird", "canine", "convbert", "fnet", "funnel", "nystromformer", "reformer", "yoso"}
_TEXTS = ("a", " ".join("abcdefghijklmnopqrstuvwxyz"))  # little padding, and none

Tensors = dict[str, Tensor]


def padding_faults(config: Config, model: MMPretrainModel, processor: MMPretrainProcessor) -> dict[str, str]:
    """Modality -> why its samples cannot be padded by the batch, empty if they can; those where it matters and is
    wanted, in the order of the model.

    model: whole, on the CPU, in float32; its weights, modes and torch's random numbers stay as they are. Costs a
    forward pass of two samples at three lengths, the full one among them.
    """
    found = {}
    for name, encoder in model.encoders.items():
        matters = _matters(config.data.modalities[name], processor.modalities[name])
        if matters and isinstance(encoder, Encoder):
            found[name] = _fault(name, encoder, processor, config.fuses_tokens)
    return found


def pad_by_batch(
    config: Config, processor: MMPretrainProcessor, faults: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    """Let ``processor`` pad by the batch where nothing is at fault: (problems, notes), a sentence for each other
    modality, a problem where the config insists.

    faults: of :func:`padding_faults`, the same on all ranks.
    """
    problems, notes = [], []
    for name, fault in faults.items():
        key = f"data.modalities.{name}.padding"
        if not fault:
            processor.modalities[name][MULTIPLE] = BUCKET
        elif config.data.modalities[name].padding is Padding.batch:
            problems.append(f"{key} is batch, but model.encoders.{name} {fault}: leave it out, or set it to full")
        else:
            notes.append(f"{name}: every sample is padded to the full length, since model.encoders.{name} {fault}")
    return problems, notes


def _matters(modality: ModalityConfig, entry: Mapping[str, Any]) -> bool:
    return modality.padding is not Padding.full and modality.kind.row.padded and full_length(entry) > BUCKET


def full_length(entry: Mapping[str, Any]) -> int:
    """The length that nothing is padded beyond."""
    length: int = entry["size"][0] if "size" in entry else entry["max_length"]
    return length


def _fault(name: str, encoder: Encoder, processor: MMPretrainProcessor, fused: bool) -> str:
    """What speaks against padding by the batch; empty if nothing does."""
    if getattr(getattr(encoder.backbone, "config", None), "model_type", None) in _BY_LENGTH:
        return "works on a text in pieces that depend on its length"
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in encoder.modules()):
        return "has a batch norm, whose statistics count padding"
    full, tokenizer = full_length(processor.modalities[name]), processor.reader(name)
    tensors, filler = made_up(name, processor), 0 if tokenizer is None else tokenizer.pad_token_id
    trials = [padded_to(tensors, length, filler) for length in (BUCKET, min(2 * BUCKET, full), full)]
    try:
        with without_zeros(encoder):
            least, *others = outputs_of(encoder, trials, fused)
    except Exception as error:  # Architectures that need a certain length refuse others in their own ways.
        return f"could not be tried at several lengths ({one_line(error)})"
    if all(same(*pair) for other in others for pair in zip(least, other, strict=True)):
        return ""
    return "gives a sample another embedding where it has more padding"


def outputs_of(encoder: Encoder, trials: list[Tensors], fused: bool, *, told: bool = True) -> list[list[Tensor]]:
    """The outputs for each of these tensors; in float64, unless that takes much memory or the encoder refuses. told:
    whether the backbone gets the mask."""
    if sum(parameter.numel() for parameter in encoder.parameters()) <= SMALL:
        try:
            with doubled(encoder), tried(encoder):
                return [_outputs(encoder, tensors, fused, told) for tensors in trials]
        except Exception:  # Some set the type of what they compute themselves, and mix it with that of their weights.
            pass
    with tried(encoder):
        return [_outputs(encoder, tensors, fused, told) for tensors in trials]


def made_up(name: str, processor: MMPretrainProcessor) -> Tensors:
    """Two samples that are made up, of which one fills the shortest length, as the processor makes them."""
    entry = processor.modalities[name]
    samples: Any = _TEXTS
    if "size" in entry:
        samples, entry = _sequences(entry["size"][1]), entry | {"size": [BUCKET, entry["size"][1]]}
    else:
        entry = entry | {"max_length": BUCKET}
    return KINDS[entry["kind"]].tensors(name, list(samples), entry, processor.reader(name))


def _sequences(features: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.standard_normal((length, features)) for length in (3, BUCKET)]


def padded_to(tensors: Tensors, length: int, filler: int) -> Tensors:
    """``tensors`` [b, n, ...] with padding behind to [b, length, ...]."""
    more = length - BUCKET
    found = {}
    for key, tensor in tensors.items():
        value = filler if key == "input_ids" else 0
        found[key] = F.pad(tensor, (0, 0) * (tensor.ndim - 2) + (0, more), value=value)
    return found


def _outputs(encoder: Encoder, tensors: Tensors, fused: bool, told: bool) -> list[Tensor]:
    """The states of tokens that count, and, unless a fusion takes those, the embeddings: a pooling may show little of
    what it depends on, and may depend on padding itself."""
    seen: list[Any] = []
    masked = encoder.masked
    encoder.masked = masked and told
    hook = encoder.backbone.register_forward_hook(lambda module, arguments, output: seen.append(output))
    try:
        if fused:
            return [_counted(*encoder.states(**tensors))]
        pooled = encoder(**tensors)
    finally:
        hook.remove()
        encoder.masked = masked
    states = seen[0] if isinstance(seen[0], Tensor) else seen[0].last_hidden_state
    return [_counted(states, tensors["attention_mask"] if encoder.masked else None), pooled]


def _counted(states: Tensor, mask: Tensor | None) -> Tensor:
    """States [b, n, w] where ``mask`` [b, n] is set, [m, w]; all of them where it is of another shape, so that theirs
    is another one for every length."""
    return states if mask is None or mask.shape != states.shape[:2] else states[mask.bool()]


def same(first: Tensor, second: Tensor) -> bool:
    """Whether two outputs differ by rounding alone."""
    if first.shape != second.shape or not second.isfinite().all():
        return False
    tolerance = EXACT if first.dtype is torch.float64 else ROUNDED
    return bool((first - second).abs().max() <= tolerance * first.abs().max())
