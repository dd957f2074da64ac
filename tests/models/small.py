"""Tiny models, one modality of each kind, and interpreters that know nothing of this process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from mmpretrain.assembly.build import build_model
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.names import M3colConfig, MethodConfig
from mmpretrain.config.model import EncoderConfig, ModelConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.small_tokenizer import small_tokenizer

ROOT = Path(__file__).resolve().parents[2]
# Keyword arguments of transformers' configs, which take many types.
LAYERS: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
VIT: dict[str, Any] = {**LAYERS, "patch_size": 2}
BERT: dict[str, Any] = {**LAYERS, "max_position_embeddings": 16}
MLP = {"hidden_size": 6, "output_size": 5}


def small_config(method: MethodConfig | None = None, path: str = "nowhere", **model: Any) -> Config:
    """``picture`` (ViT), ``caption`` (BERT, mean) and ``genes`` (MLP); their order is not the alphabet's."""
    modalities = {
        "picture": ModalityConfig(Kind.image, [8, 4], 1),
        "caption": ModalityConfig(Kind.text, max_length=8),
        "genes": ModalityConfig(Kind.vector, [7]),
    }
    encoders = {
        "picture": EncoderConfig("vit", dict(VIT)),
        "caption": EncoderConfig("bert", dict(BERT), tokenizer=small_tokenizer(), pool=Pool.mean),
        "genes": EncoderConfig("mlp", dict(MLP)),
    }
    return Config(
        method=method or M3colConfig(),
        data=DataConfig(name="small", path=path, build="make small", modalities=modalities, classes=3),
        model=ModelConfig(**{"embed_dim": 8, "classifier_hidden": 6, "encoders": encoders, **model}),
    )


def small_model(config: Config | None = None, seed: int = 0) -> MMPretrainModel:
    """The model of :func:`small_config` in evaluation mode, its weights from ``seed``."""
    torch.manual_seed(seed)
    return build_model(config or small_config()).eval()


def small_samples() -> dict[str, list[Any]]:
    """Two raw samples of every modality."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 8, 4), dtype=np.uint8)
    return {
        "picture": [Image.fromarray(image) for image in pixels],
        "caption": ["a bold seven", "a light digit"],
        "genes": list(rng.standard_normal((2, 7))),
    }


def fresh_interpreter(code: str, elsewhere: Path, *arguments: str, ours: bool) -> str:
    """Standard output of ``code`` run in another folder; ours: whether it can import this project.

    Raises AssertionError with its errors if it fails. Nothing can be typed into it, and it has no network.
    """
    path = f"sys.path.insert(0, {str(ROOT)!r})" if ours else "sys.modules['mmpretrain'] = None"
    result = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys\n{path}\n{code}", *arguments],
        cwd=elsewhere,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(elsewhere / "modules")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
