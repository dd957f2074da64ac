"""A CLIP of transformers as a release of this project: the same weights, preprocessing and embeddings.

Whatever takes releases then takes it: connections (method=cmcr), heads on frozen encoders (model.encoders.NAME.part),
AutoModel with one call for both modalities. Its towers must be encoders of their own in transformers, with a pooler and
a projection without bias, as CLIP's are; a model that gives other embeddings afterwards is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import MODEL_MAPPING

from mmpretrain.assembly.preprocessing import image_entry
from mmpretrain.assembly.transformers_encoder import architecture_entry
from mmpretrain.config.kind import Kind
from mmpretrain.config.model import Pool
from mmpretrain.embedding.spaces import open_space
from mmpretrain.embedding.transformers_spaces import DualSpace
from mmpretrain.hub.card import ConvertedFacts
from mmpretrain.hub.export import export_release
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.models.similarity_mmpretrain import SOFTMAX
from mmpretrain.problems import UnusableError, one_line

# Of CLIP and models built like it: kind -> tower, projection, and the tower's config.
PARTS = {
    Kind.image: ("vision_model", "visual_projection", "vision_config"),
    Kind.text: ("text_model", "text_projection", "text_config"),
}
CLOSE = 1e-4  # of an embedding's length: kernels may sum in another order
LEVELS = 3  # of 255: how far a pixel may be off, for libraries round differently


def convert(
    source: str, folder: Path, names: tuple[str, str], license: str | None = None, revision: str | None = None
) -> MMPretrainModel:
    """Write ``source`` (folder or Hub id) to ``folder`` as a release whose modalities are ``names``, image and text.

    license: of the weights, an id that the Hub knows. revision: of ``source`` there. Raises UnusableError for a model
    that has no such form, and for names that torch needs for itself.
    """
    if taken := [name for name in names if hasattr(nn.ModuleDict, name)]:
        raise UnusableError([f"{taken[0]!r} is a name that torch needs for itself: choose another one"])
    space = open_space(source, torch.device("cpu"), revision=revision)
    if not isinstance(space, DualSpace) or set(space.towers) != {Kind.image.value, Kind.text.value}:
        raise UnusableError(
            [f"{source} is no pair of an image and a text encoder, as CLIP is: only these are converted"]
        )
    by_kind = dict(zip(PARTS, names, strict=True))
    entries = {name: _entry(source, space.model, kind) for kind, name in by_kind.items()}
    config = MMPretrainConfig(
        encoders=entries, embed_dim=space.model.config.projection_dim, method="clip", similarity={"form": SOFTMAX}
    )
    model = MMPretrainModel(config).eval()
    for kind, name in by_kind.items():
        _fill(source, model.encoders[name].get_submodule("backbone"), getattr(space.model, PARTS[kind][0]))
        _fill(source, model.projections[name], getattr(space.model, PARTS[kind][1]))
    assert model.logit_scale is not None
    model.logit_scale.data.fill_(float(space.model.logit_scale.detach()))
    image, text = names
    readings = {
        image: {"kind": Kind.image.value, **image_entry(source, space.images)},
        text: {"kind": Kind.text.value, "max_length": space.text_limit},
    }
    processor = MMPretrainProcessor(readings, {text: space.tokenizer})
    _check_same(source, space, model, processor, by_kind)
    published = None if Path(source).exists() else source
    card = ConvertedFacts(folder.resolve().name, space.name, published, license)
    export_release(model, model.state_dict(), processor, folder, card)
    return model


def _entry(source: str, model: Any, kind: Kind) -> dict[str, Any]:
    """The tower of ``kind`` as an encoder of :class:`MMPretrainConfig`."""
    tower, projection, part = PARTS[kind]
    linear = getattr(model, projection, None)
    if not isinstance(linear, nn.Linear) or linear.bias is not None or not hasattr(model, tower):
        found = model.config.model_type
        raise UnusableError(
            [f"{source}: a {found} has no {tower} with a linear {projection} without bias, as CLIP has"]
        )
    config = getattr(model.config, part)
    if type(config) not in MODEL_MAPPING:
        raise UnusableError(
            [f"{source}: transformers has no AutoModel for a {config.model_type}, so it cannot stand alone"]
        )
    return architecture_entry(config, Pool.pooler)


def _fill(source: str, ours: nn.Module, theirs: nn.Module) -> None:
    try:
        ours.load_state_dict(theirs.state_dict())
    except RuntimeError as error:
        raise UnusableError([f"{source}: its encoders cannot stand alone here ({one_line(error)})"]) from error


@torch.no_grad()
def _check_same(
    source: str, space: DualSpace, model: MMPretrainModel, processor: MMPretrainProcessor, by_kind: dict[Kind, str]
) -> None:
    """Raises UnusableError if made-up samples are read or embedded otherwise than by the model itself."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 90, 130, 3), dtype=np.uint8)
    samples: dict[Kind, list[Any]] = {
        Kind.image: [Image.fromarray(a) for a in noise],
        Kind.text: ["a", "more than fits " * 99],
    }
    for kind, items in samples.items():
        name, own = by_kind[kind], space.tensors(kind.value, items)
        ours = processor(**{name: items})
        if kind is Kind.image:
            deviation = torch.tensor(processor.modalities[name]["std"]).view(3, 1, 1)
            pixels = (ours[name]["pixel_values"] - own["pixel_values"]) * deviation * 255
            _require(source, "pixels", bool(pixels.abs().max() <= LEVELS))
            ours[name] = own
        right = space.features(kind.value, own)
        found = model(**ours).embeds[name]
        _require(source, f"{kind.value}s", bool((found - right).norm() <= CLOSE * right.norm()))


def _require(source: str, what: str, same: bool) -> None:
    if not same:
        raise UnusableError([f"{source}: its {what} came out differently as a release, so that it cannot be one"])
