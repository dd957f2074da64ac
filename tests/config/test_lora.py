"""The section of LoRA: what it means, and what is refused before anything is built."""

from __future__ import annotations

import pytest

from mmpretrain.config.lora import LoraConfig
from mmpretrain.config.model import EncoderConfig

ENCODERS = {
    "image": EncoderConfig("vit"),
    "text": EncoderConfig("bert"),
    "locked": EncoderConfig("bert", freeze=True),
}
OWN = ENCODERS | {"genes": EncoderConfig("mlp")}


def test_all_encoders_that_train_have_it_unless_some_are_named() -> None:
    assert LoraConfig(rank=2).adapted(ENCODERS) == ["image", "text"]
    assert LoraConfig(rank=2, modalities=["text"]).adapted(ENCODERS) == ["text"]
    assert LoraConfig().adapted(ENCODERS) == []
    assert LoraConfig(rank=2).problems(ENCODERS) == []
    assert LoraConfig(rank=2, modalities=["text"]).problems(OWN) == []


def test_the_product_counts_twice_unless_alpha_says_otherwise() -> None:
    assert LoraConfig(rank=8).scaling == 2 and LoraConfig(rank=8, alpha=4).scaling == 0.5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alpha": 3.0}, "model.lora.alpha has no effect without model.lora.rank"),
        ({"targets": ["query"]}, "model.lora.targets has no effect without model.lora.rank"),
        ({"rank": 0}, "model.lora.rank is 0: it must be at least 1"),
        ({"rank": 2, "alpha": 0.0}, "model.lora.alpha is 0.0"),
        ({"rank": 2, "dropout": 1.0}, "model.lora.dropout is 1.0"),
        ({"rank": 2, "targets": []}, "model.lora.targets is empty"),
        ({"rank": 2, "targets": [""]}, "model.lora.targets holds an empty name"),
        ({"rank": 2, "modalities": ["sound"]}, "there is no such encoder: there are image, text, locked"),
        ({"rank": 2, "modalities": ["locked"]}, "model.encoders.locked.freeze=true"),
        ({"rank": 2}, "(mlp), and LoRA is for those of transformers: set model.lora.modalities=[image,text]"),
    ],
)
def test_each_fault_is_one_sentence(settings: dict, said: str) -> None:
    (problem,) = LoraConfig(**settings).problems(OWN if "mlp" in said else ENCODERS)
    assert said in problem


def test_there_must_be_an_encoder_that_trains() -> None:
    (frozen,) = LoraConfig(rank=2).problems({"locked": ENCODERS["locked"]})
    (none,) = LoraConfig(rank=2).problems({})
    assert "every encoder is frozen" in frozen and "has no encoders" in none
