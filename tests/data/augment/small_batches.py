"""Configs and batches of a few samples of each kind, without shards or models, for tests of augmentations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmpretrain.assembly.build import build_processor
from mmpretrain.config.data import AugmentConfig, DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.base import MethodConfig
from mmpretrain.config.model import EncoderConfig, ModelConfig
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.augment.draws import Draws
from mmpretrain.data.batch import Batch, Inputs
from mmpretrain.data.step import Step
from tests.small_tokenizer import small_tokenizer


def step(seed: int = 0) -> Step:
    """A step of a run with this seed."""
    return Step(index=3, epoch=0.5, total_epochs=2.0, seed=seed)


def draws(count: int, view: str = "first", modality: str = "x") -> Draws:
    """Draws of ``count`` samples."""
    return Draws(step(), view, modality, torch.arange(100, 100 + count))


class AugmentingConfig(MethodConfig):
    """Settings of some method that makes views."""

    @property
    def augments(self) -> bool:
        """It does."""
        return True


def config(*, views: bool = True, **modalities: ModalityConfig) -> Config:
    """A config with these modalities. views: whether its method makes any."""
    encoders = {
        name: EncoderConfig("bert", tokenizer=small_tokenizer()) if m.kind is Kind.text else EncoderConfig("vit")
        for name, m in modalities.items()
    }
    return Config(
        method=AugmentingConfig() if views else MethodConfig(),
        data=DataConfig("made up", "nowhere", modalities=modalities),
        model=ModelConfig(encoders=encoders),
    )


def batch(inputs: Inputs, **views: Inputs) -> Batch:
    """A batch of these inputs at positions from 100 on."""
    size = len(next(iter(next(iter(inputs.values())).values())))
    return Batch(inputs, None, torch.arange(size), torch.arange(100, 100 + size), views=views)


def everything(count: int = 12) -> tuple[Config, Batch]:
    """One modality of each kind, all of whose operations are set, and samples of them."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator) * 2 - 1

    def setting(**changes: Any) -> AugmentConfig:
        return AugmentConfig(**changes)

    lengths = torch.randint(1, 10, (count,), generator=generator)
    mask = (torch.arange(9) < lengths[:, None]).long()
    ids = torch.randint(4, 10, (count, 9), generator=generator) * mask
    modalities: dict[str, Any] = {
        "photo": ModalityConfig(
            Kind.image, [9, 7], augment=setting(crop=[0.2, 1], flip=0.5, jitter=0.8, grey=0.3, blur=0.5)
        ),
        "scan": ModalityConfig(Kind.image, [6, 6], 1, augment=setting(flip=0.5, jitter=0.8, blur=0.5)),
        "motion": ModalityConfig(Kind.sequence, [9, 4], augment=setting(shuffle=0.5, drop=0.5, noise=0.5)),
        "genes": ModalityConfig(Kind.vector, [11], augment=setting(swap=0.5, drop=0.5, noise=0.5)),
        "caption": ModalityConfig(Kind.text, max_length=9, augment=setting(mask=0.3, delete=0.5)),
    }
    inputs = {
        "photo": {"pixel_values": random(3, 9, 7)},
        "scan": {"pixel_values": random(1, 6, 6)},
        "motion": {"values": random(9, 4) * mask[..., None], "attention_mask": mask},
        "genes": {"values": random(11)},
        "caption": {"input_ids": ids, "attention_mask": mask},
    }
    return config(**modalities), batch(inputs)


def view(config: Config, batch: Batch, name: str = "first", seed: int = 0, unique: tuple[str, ...] = ()) -> Inputs:
    """The view of a batch."""
    return Augmenter(config, build_processor(config)).view(batch, name, step(seed), unique)


def flat(inputs: Inputs) -> dict[str, Tensor]:
    """Every tensor by ``modality.keyword``."""
    return {f"{m}.{k}": tensor for m, tensors in inputs.items() for k, tensor in tensors.items()}
