"""Data whose modalities share a class, a release with random weights for it, and the linear world as embeddings."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmpretrain.assembly.build import build_processor
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.methods.names import CommConfig, FactorclConfig
from mmpretrain.config.model import ConnectedSpace, FactorsConfig, FusionConfig
from mmpretrain.config.root import Config
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import RawSample, build_dataset
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.hub.export import export_release
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from shards.linear import draw
from tests.data.small_dataset import npy
from tests.hub.test_card import facts
from tests.methods.test_cmcr_release import WIDTHS, connection, ship, space
from tests.models.small import small_config, small_model

WORDS = ("seven", "three", "digit")
SAMPLES = {"train": 240, "test": 80}
LACKS_GENES = 8  # every so many samples


def write_shared_class(folder: Path) -> Path:
    """Dataset of pictures, captions and vectors of three classes; every eighth sample lacks its vector."""
    draws = np.random.default_rng(0)
    genes = draws.normal(size=(3, 7))

    def sample(number: int) -> RawSample:
        label = number % 3
        pixels = draws.integers(0, 60, size=(8, 4))
        pixels[2 * label : 2 * label + 3] += 150
        style = ("bold", "light")[int(draws.integers(2))]
        made: RawSample = {
            "__key__": f"s{number:04d}",
            "picture.png": _png(pixels.astype(np.uint8)),
            "caption.txt": f"a {style} {WORDS[label]}".encode(),
            "label.cls": str(label).encode(),
        }
        if number % LACKS_GENES:
            made["genes.npy"] = npy(genes[label] + 0.5 * draws.normal(size=7))
        return made

    modalities = {"picture": {"kind": "image"}, "caption": {"kind": "text"}, "genes": {"kind": "vector"}}
    features = {"genes": [f"gene{i}" for i in range(7)]}
    info = DatasetInfo("small", "A small set", "made up", "MIT", modalities, list("xyz"), features=features)
    splits = {split: [sample(n) for n in range(count)] for split, count in SAMPLES.items()}
    build_dataset(folder, info, splits)
    return folder


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def write_small_release(folder: Path) -> MMPretrainModel:
    """The small model with random weights, as a release whose samples may lack ``genes``."""
    config, model = small_config(), small_model()
    config.data.modalities["genes"].optional = True
    export_release(model, model.state_dict(), build_processor(config), folder, facts())
    return model


def write_components_release(folder: Path) -> None:
    """A release that decomposes its embeddings itself, as MUCMM's do; random weights."""
    config = small_model().config
    assert isinstance(config, MMPretrainConfig)
    config.components = {"common": 2, "individual": dict.fromkeys(config.modalities, 3), "hidden": None}
    torch.manual_seed(0)
    model = MMPretrainModel(config)
    export_release(model, model.state_dict(), build_processor(small_config()), folder, facts())


def write_fused_release(folder: Path) -> None:
    """A release that embeds every modality through one fusion, as CoMM's do; random weights."""
    _write(folder, small_config(CommConfig(), embed_dim=None, fusion=FusionConfig(width=16, heads=2)))


def write_factors_release(folder: Path) -> None:
    """A release with heads for shared and unique information, as FactorCL's are; random weights."""
    config = small_config(FactorclConfig(), factors=FactorsConfig(5, 3, 1))
    config.data.modalities["genes"].optional = True
    _write(folder, config)


def write_connection(folder: Path) -> None:
    """A release that connects (picture, caption) with (caption, genes), as C-MCR's do; random weights."""
    first = space(folder.parent / "first", ("picture", "caption"), WIDTHS[ConnectedSpace.first], 0)
    genes = ModalityConfig(Kind.vector, [7], optional=True)
    second = space(folder.parent / "second", ("caption",), WIDTHS[ConnectedSpace.second], 1, genes=genes)
    ship(connection(first=str(first), second=str(second)), folder)


def _write(folder: Path, config: Config) -> None:
    model = small_model(config)
    export_release(model, model.state_dict(), build_processor(config), folder, facts(method=config.method.name))


def linear_world(samples: int, seed: int) -> Embeddings:
    """Embeddings that are the linear Gaussian world itself."""
    first, second = draw(samples, seed)
    return Embeddings(np.arange(samples), {"first": first, "second": second})


def components_model(hidden: int | None, seed: int = 0) -> MMPretrainModel:
    """A model that decomposes its embeddings itself, float64: two vectors of 7 features, random weights."""
    torch.manual_seed(seed)
    encoder = {"architecture": "mlp", "config": {"input_size": 7, "hidden_size": 9, "output_size": 8}, "pool": "cls"}
    components = {"common": 2, "individual": {"first": 3, "second": 3}, "hidden": hidden}
    encoders = {"first": encoder, "second": encoder}
    return MMPretrainModel(MMPretrainConfig(encoders, components=components)).double().eval()
