"""Small runs whose encoders are CLIP's or SigLIP's own, and their releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.config.methods.names import ClipConfig, SiglipConfig
from mmpretrain.config.model import EncoderConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.hub.export import export_release
from mmpretrain.methods.base import Shipped
from mmpretrain.methods.shipped_similarity import with_sigmoid, with_softmax
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.hub.test_card import facts
from tests.models.small import LAYERS, small_config
from tests.small_tokenizer import small_tokenizer

VISION: dict[str, Any] = {**LAYERS, "patch_size": 4}
TEXT: dict[str, Any] = {**LAYERS, "max_position_embeddings": 16}


def native_config(form: str = "clip", **model: Any) -> Config:
    """A run of ``picture`` and ``caption`` that CLIP's own format, or SigLIP's, can hold. model: other keys of it."""
    method, width = (ClipConfig(), 12) if form == "clip" else (SiglipConfig(), None)
    config = small_config(method, **{"embed_dim": width, **model})
    del config.data.modalities["genes"], config.model.encoders["genes"]
    picture = config.data.modalities["picture"]
    picture.size, picture.channels = [8, 8], 3
    config.model.encoders |= {
        "picture": EncoderConfig(f"{form}_vision_model", dict(VISION), pool=Pool.pooler),
        "caption": EncoderConfig(f"{form}_text_model", dict(TEXT), tokenizer=small_tokenizer()),
    }
    return config


def write_native_release(
    folder: Path, form: str = "clip", config: Config | None = None, **options: Any
) -> tuple[MMPretrainModel, list[str]]:
    """The release of such a run, with random weights, and what is said of formats that it is not written in.

    config: another one than :func:`native_config`. options: of the export.
    """
    config = config or native_config(form)
    torch.manual_seed(0)
    built = build_model(config).eval()
    shipped = Shipped(built, built.state_dict(), build_processor(config))
    scale = torch.tensor([2.0])
    shipped = with_softmax(shipped, scale) if form == "clip" else with_sigmoid(shipped, scale, torch.tensor([-3.0]))
    notes = export_release(
        shipped.model, shipped.state, shipped.processor, folder, facts(method=config.method.name), **options
    )
    return MMPretrainModel.from_pretrained(folder).eval(), notes
