"""Maps of where in a sample's input its scores come from: of each modality one for what is common, one for its own.

Shapes: e explained samples.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmpretrain.config.kind import Kind
from mmpretrain.data.batch import PRESENT, Inputs
from mmpretrain.data.decode import Raw
from mmpretrain.embedding.space import PixelStatistics
from mmpretrain.explain.decomposition import Decomposition, ModalityPart
from mmpretrain.explain.opened import Opened
from mmpretrain.explain.saliency import TOKENS, GradientInput, attribute
from mmpretrain.explain.scores import Codes, common_score, individual_score
from mmpretrain.explain.settings import AttributionForm

PIXELS = "pixel_values"


@dataclass(frozen=True)
class ExplainedSide:
    """One modality of one explained sample.

    raw: the decoded object; of an image and of a sound, what the encoder sees of it. common, individual: attributions
    in the shape of what gradients were taken of: pixels [c, h, w], values [d] or [T, d], token embeddings [n, w], of
    sounds [frames, bands] or the samples of a waveform [n]. tokens: the pieces of
    a text; special: [n], which of them the tokenizer added.
    """

    kind: Kind
    raw: Image.Image | str | np.ndarray
    common: np.ndarray
    individual: np.ndarray
    tokens: tuple[str, ...] = ()
    special: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Scored:
    """The scores of one modality as functions of its input."""

    name: str
    part: ModalityPart
    source: GradientInput
    form: AttributionForm
    weights: Tensor | None

    def common(self, value: Tensor, *rest: Tensor) -> Tensor:
        """rest: the encoder's further tensors, then the other modality's common code [b, k] -> [b]."""
        *further, other = rest
        return common_score(self.codes(value, further).common, other, self.form.common, self.weights)

    def individual(self, value: Tensor, *further: Tensor) -> Tensor:
        """further: the encoder's further tensors -> [b]."""
        return individual_score(self.codes(value, further), self.part.loadings, self.form.individual)

    def codes(self, value: Tensor, further: Any) -> Codes:
        """Both codes of the modality."""
        return output_codes(self.part, self.name, self.source.run(value, *further))


def output_codes(part: ModalityPart, name: str, output: Any) -> Codes:
    """The codes of modality ``name`` in a model's output."""
    fields = {"embeds": output.embeds, "shared": output.shared_embeds, "unique": output.unique_embeds}
    return part.codes(name, fields)


def attribution_maps(
    opened: Opened, fitted: Decomposition, form: AttributionForm, inputs: Inputs, seed: int = 0
) -> dict[str, tuple[Tensor, Tensor]]:
    """Modality -> attributions of the common and of its own individual score to its input, [e, ...] each.

    inputs: the tensors of e samples that have both modalities. seed: of the noise, the same for each of them.
    """
    fitted = fitted.to(opened.device)
    given = {name: {k: t.to(opened.device) for k, t in inputs[name].items() if k != PRESENT} for name in fitted.pair}
    with torch.no_grad():
        outputs = {name: opened.model(**{name: tensors}) for name, tensors in given.items()}
    codes = {name: output_codes(fitted.parts[name], name, output).common for name, output in outputs.items()}
    found = {}
    for name, other in (fitted.pair, fitted.pair[::-1]):
        source = GradientInput(opened.model, name, given[name])
        scored = Scored(name, fitted.parts[name], source, form, fitted.weights(form))
        common = attribute(scored.common, source.value, (*source.further, codes[other]), form.attribution, seed=seed)
        individual = attribute(scored.individual, source.value, source.further, form.attribution, seed=seed)
        found[name] = (common, individual)
    return found


def explain_samples(
    opened: Opened, fitted: Decomposition, form: AttributionForm, raws: Sequence[Mapping[str, Raw]], keys: Sequence[str]
) -> list[dict[str, ExplainedSide]]:
    """Of each of e decoded samples: modality -> its maps; the same whichever others are explained with it."""
    return [_explain_one(opened, fitted, form, raw, key) for raw, key in zip(raws, keys, strict=True)]


def _explain_one(
    opened: Opened, fitted: Decomposition, form: AttributionForm, raw: Mapping[str, Raw], key: str
) -> dict[str, ExplainedSide]:
    """By itself: a batch would pad texts, and draw the noise of all of them at once."""
    inputs = opened.processor(**{name: [raw[name]] for name in fitted.pair})
    maps = attribution_maps(opened, fitted, form, inputs, seed=zlib.crc32(key.encode()))
    return {name: _side(opened, name, raw[name], inputs[name], maps[name]) for name in fitted.pair}


def as_seen(pixels: Tensor, statistics: PixelStatistics) -> Image.Image:
    """``pixels`` [c, h, w], c = 1 or 3, as the picture that they were: a processor may have cut edges off."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in statistics)
    shades = (255 * (pixels.cpu() * std + mean)).round().clamp(0, 255).byte()
    return Image.fromarray(shades.permute(1, 2, 0).squeeze(-1).numpy())


def _side(
    opened: Opened, name: str, raw: Raw, tensors: Mapping[str, Tensor], maps: tuple[Tensor, Tensor]
) -> ExplainedSide:
    """tensors, maps: of this sample alone."""
    common, individual = (m[0].double().cpu().numpy() for m in maps)
    if opened.kinds[name] is Kind.audio:
        return _sound_side(tensors, common, individual)
    if PIXELS in tensors:
        raw = as_seen(tensors[PIXELS][0], opened.pixels[name])
    counting = tensors["attention_mask"][0].bool().numpy() if "attention_mask" in tensors else slice(None)
    assert not isinstance(raw, dict)  # only sounds are
    side = ExplainedSide(opened.kinds[name], raw, common[counting], individual[counting])
    if TOKENS not in tensors:
        return side
    tokenizer, ids = opened.tokenizers[name], tensors[TOKENS][0][counting].tolist()
    special = tuple(number in tokenizer.all_special_ids for number in ids)
    return replace(side, tokens=tuple(tokenizer.convert_ids_to_tokens(ids)), special=special)


def _sound_side(tensors: Mapping[str, Tensor], common: np.ndarray, individual: np.ndarray) -> ExplainedSide:
    """As :func:`_side`, of a sound: its features, or the waveform where the encoder takes that."""
    key = next(key for key, tensor in tensors.items() if tensor.is_floating_point())
    mask = tensors["attention_mask"][0].bool().numpy() if "attention_mask" in tensors else None
    heard = tensors[key][0].double().numpy()
    heard, common, individual = (_in_time(values, mask) for values in (heard, common, individual))
    return ExplainedSide(Kind.audio, heard, common, individual)


def _in_time(values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Features as the extractors lay them out, or a waveform [n] -> [frames, bands] or [n], without what was filled up.

    CLAP's [channels, frames, bands] have the same sound in every channel, Whisper's are [bands, frames].
    """
    if values.ndim == 3:
        return values.mean(axis=0)
    if mask is None:
        return values
    return values.T[mask] if values.ndim == 2 else values[mask]
