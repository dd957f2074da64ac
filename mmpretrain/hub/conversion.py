"""A CLIP, SigLIP or CLAP of transformers as a release of this project: the same weights, preprocessing and embeddings.

Whatever takes releases then takes it: connections (method=cmcr), heads on frozen encoders (model.encoders.NAME.part),
AutoModel with one call for both modalities. Its towers must be encoders of their own in transformers, with a pooler,
and projections as CLIP, SigLIP or CLAP have them; a model that gives other embeddings afterwards is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from mmpretrain.assembly.padding import BUCKET
from mmpretrain.assembly.preprocessing import image_entry
from mmpretrain.assembly.sounds import sound_form
from mmpretrain.config.kind import Kind
from mmpretrain.embedding.spaces import open_space
from mmpretrain.embedding.transformers_spaces import DualSpace
from mmpretrain.hub.card import ConvertedFacts
from mmpretrain.hub.export import export_release
from mmpretrain.hub.towers import Tower, learned_scales, similarity_of
from mmpretrain.models.audio_mmpretrain import ARRAY, RATE
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.inputs_mmpretrain import MULTIPLE
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.models.similarity_mmpretrain import SIGMOID
from mmpretrain.problems import UnusableError

CLOSE = 1e-5  # of an embedding's length: kernels may sum in another order
LEVELS = 3  # of 255: how far a pixel may be off, for libraries round differently


def convert(
    source: str,
    folder: Path,
    names: tuple[str, str] | None = None,
    license: str | None = None,
    revision: str | None = None,
) -> MMPretrainModel:
    """Write ``source`` (folder or Hub id) to ``folder`` as a release whose modalities are ``names``: its images or
    sounds, and its texts (default: called after their kinds).

    license: of the weights, an id that the Hub knows. revision: of ``source`` there. Raises UnusableError for a model
    that has no such form, and for names that torch needs for itself.
    """
    if taken := [name for name in names or () if hasattr(nn.ModuleDict, name)]:
        raise UnusableError([f"{taken[0]!r} is a name that torch needs for itself: choose another one"])
    space = _opened(source, revision)
    kinds = [Kind(tower) for tower in space.towers]
    kinds.sort(key=lambda kind: kind is Kind.text)  # the names are in this order
    by_kind = dict(zip(kinds, names or [kind.value for kind in kinds], strict=True))
    tokenizer: Any = space.tokenizer
    masked = "attention_mask" in tokenizer.model_input_names
    towers = {name: Tower(source, space.model, kind, masked or kind is not Kind.text) for kind, name in by_kind.items()}
    model = MMPretrainModel(_config(source, towers, similarity_of(space.model))).eval()
    if len(set(model.embed_sizes.values())) > 1:
        raise UnusableError([f"{source}: its embeddings have other widths for every tower: {model.embed_sizes}"])
    for name, tower in towers.items():
        tower.fill(model, name)
    for name, numbers in learned_scales(space.model, list(by_kind)).items():
        model.get_parameter(name).data.copy_(numbers)
    processor = _processor(source, space, by_kind, masked)
    _check_same(source, space, model, processor, by_kind)
    published = None if Path(source).exists() else source
    card = ConvertedFacts(folder.resolve().name, space.name, published, license)
    # In its own format it is where it came from.
    export_release(model, model.state_dict(), processor, folder, card, native=False)
    return model


def _opened(source: str, revision: str | None) -> DualSpace:
    space = open_space(source, torch.device("cpu"), pool="mean", revision=revision)  # its towers
    known = ({Kind.image.value, Kind.text.value}, {Kind.audio.value, Kind.text.value})
    if not isinstance(space, DualSpace) or set(space.towers) not in known:
        raise UnusableError(
            [
                f"{source} is no text encoder beside one of images, as CLIP and SigLIP are, or of sounds, as CLAP is"
                " (with its feature extractor): only these are converted"
            ]
        )
    return space


def _config(source: str, towers: dict[str, Tower], similarity: dict[str, Any] | None) -> MMPretrainConfig:
    widths = {tower.width for tower in towers.values()}
    if len(widths) > 1:
        raise UnusableError([f"{source}: its towers are projected to other widths, or one is not projected: {widths}"])
    forms = {name: tower.form for name, tower in towers.items() if tower.form is not None}
    return MMPretrainConfig(
        encoders={name: tower.entry for name, tower in towers.items()},
        modalities=list(towers),
        embed_dim=widths.pop(),
        projections=forms or None,
        similarity=similarity,
        method="siglip" if similarity and similarity["form"] == SIGMOID else "clip",
    )


def _processor(source: str, space: DualSpace, by_kind: dict[Kind, str], masked: bool) -> MMPretrainProcessor:
    entries: dict[str, dict[str, Any]] = {}
    for kind, name in by_kind.items():
        entries[name] = {"kind": kind.value}
        if kind is Kind.image:
            entries[name] |= image_entry(source, space.images)
        elif kind is Kind.audio:
            entries[name] |= sound_form(name, space.towers[kind.value], space.extractor)._asdict()
        else:
            # What is not told apart from padding must always have as much of it.
            entries[name] |= {"max_length": space.text_limit, **({MULTIPLE: BUCKET} if masked else {})}
    extractors = {name: space.extractor for kind, name in by_kind.items() if kind is Kind.audio}
    return MMPretrainProcessor(entries, {by_kind[Kind.text]: space.tokenizer}, extractors)


@torch.no_grad()
def _check_same(
    source: str, space: DualSpace, model: MMPretrainModel, processor: MMPretrainProcessor, by_kind: dict[Kind, str]
) -> None:
    """Raises UnusableError if made-up samples are read, embedded or compared otherwise than by the model itself."""
    both: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for kind, name in by_kind.items():
        for items in _samples(kind, processor.modalities[name]):
            own, ours = space.tensors(kind.value, items), processor(**{name: items})
            if kind is Kind.image:
                deviation = torch.tensor(processor.modalities[name]["std"]).view(3, 1, 1)
                pixels = (ours[name]["pixel_values"] - own["pixel_values"]) * deviation * 255
                _require(source, "pixels", bool(pixels.abs().max() <= LEVELS))
                ours[name] = own
            right = space.features(kind.value, own)
            found = model(**ours).embeds[name]
            _require(source, f"{kind.value}s", bool((found - right).norm() <= CLOSE * right.norm()))
        both[0].update(own)
        both[1].update(ours)
    if model.config.similarity is None:
        return
    theirs, pairs = space.model(**both[0]), model(**both[1]).logits_per
    for kind, name in by_kind.items():
        right, (found,) = theirs[f"logits_per_{kind.value}"], pairs[name].values()
        _require(source, "logits", bool((found - right).norm() <= 10 * CLOSE * right.norm()))


def _samples(kind: Kind, entry: dict[str, Any]) -> list[list[Any]]:
    """Batches of made-up samples: short and long ones, alone and together."""
    draws = np.random.default_rng(0)
    if kind is Kind.text:
        return [["a"], ["a", "more than fits " * 99]]
    if kind is Kind.image:
        return [[Image.fromarray(pixels) for pixels in draws.integers(0, 256, (2, 90, 130, 3), dtype=np.uint8)]]
    lengths = [round(part * entry["seconds"] * entry[RATE]) for part in (0.4, 1.0)]
    waves = [0.1 * draws.standard_normal(length).astype(np.float32) for length in lengths]
    return [[{ARRAY: wave, RATE: entry[RATE]} for wave in waves]]


def _require(source: str, what: str, same: bool) -> None:
    if not same:
        raise UnusableError([f"{source}: its {what} came out differently as a release, so that it cannot be one"])
