"""Texts whose encoder looks back alone: padding stands behind them, and their attention need not be told of it.

Without a mask torch takes its flash kernel for texts of several lengths, too, and transformers does not ask the device
whether there is any padding. Whether it changes an embedding is tried, as in assembly/padding.py.
"""

from __future__ import annotations

from mmpretrain.assembly.padding import BUCKET, full_length, made_up, outputs_of, padded_to, same
from mmpretrain.assembly.trial import without_zeros
from mmpretrain.config.root import Config
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import one_line


def take_masks(config: Config, model: MMPretrainModel, processor: MMPretrainProcessor) -> list[str]:
    """Let encoders with ``padding_mask: false`` do without; a sentence for each whose embeddings that would change.

    model: whole, on the CPU, in float32; nothing of it changes but who is given a mask, which its release does not
    know. Call it after :func:`padding_faults`, which looks at masks.
    """
    problems = []
    for name, entry in config.model.encoders.items():
        encoder = model.encoders[name]
        if entry.padding_mask:
            continue
        fault = "" if config.data.modalities[name].kind.row.padded else "takes nothing that is padded"
        if not fault and isinstance(encoder, Encoder):
            fault = _fault(name, encoder, processor, config.fuses_tokens)
            encoder.masked = False
        elif not fault:
            fault = "is not transformers' own"
        if fault:
            problems.append(f"model.encoders.{name}.padding_mask is false, but the encoder {fault}: leave it out")
    return problems


def _fault(name: str, encoder: Encoder, processor: MMPretrainProcessor, fused: bool) -> str:
    """What speaks against it; empty if nothing does."""
    if not encoder.masked:
        return "is given no mask in any case"
    tensors, tokenizer = made_up(name, processor), processor.reader(name)
    filler = 0 if tokenizer is None else tokenizer.pad_token_id
    full = full_length(processor.modalities[name])
    lengths = {BUCKET, min(2 * BUCKET, full), full}
    trials = [padded_to(tensors, length, filler) for length in sorted(lengths)]
    try:
        with without_zeros(encoder):
            masked = outputs_of(encoder, trials, fused)
            bare = outputs_of(encoder, trials, fused, told=False)
    except Exception as error:  # every architecture refuses in its own way
        return f"could not be tried without one ({one_line(error)})"
    pairs = (pair for outputs in zip(masked, bare, strict=True) for pair in zip(*outputs, strict=True))
    return "" if all(same(*pair) for pair in pairs) else "gives a sample another embedding without a mask"
