"""Encoders that cannot tell the data's inputs apart are refused before the first step; all others are left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.config.compose import save_config
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.names import ClipConfig
from mmpretrain.config.model import EncoderConfig, ModelConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.problems import UnusableError
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.preflight import check
from mmpretrain.training.session import Session
from mmpretrain.training.telling_apart import indistinct
from tests.data.small_dataset import Sample, write_split
from tests.data.tones import RATE, encoded, tone, tones_config
from tests.engine.runs import forget_engines
from tests.models.small import BERT, VIT
from tests.rank_pool import Ranks
from tests.small_tokenizer import small_tokenizer

GPT2: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 16}
CLIP: dict[str, Any] = {**BERT, "num_hidden_layers": 2}
QWEN: dict[str, Any] = {**CLIP, "num_key_value_heads": 2}
CAPTIONS = ("a bold seven", "a light digit", "three", "a light three")


def captions(number: int, sample: Sample) -> Sample:
    """Captions of the tokenizer's words."""
    return {**sample, "caption.txt": CAPTIONS[number % len(CAPTIONS)]}


def config_on(folder: Path, caption: EncoderConfig, change: Callable[[int, Sample], Sample] = captions) -> Config:
    """Pictures by a ViT and captions by ``caption``, on a data set that is written to ``folder``."""
    write_split(folder / "train", (8, 8), change)
    modalities = {
        "picture": ModalityConfig(Kind.image, [4, 6], 1),
        "caption": ModalityConfig(Kind.text, max_length=8),
    }
    caption.tokenizer = caption.tokenizer or small_tokenizer()
    return Config(
        method=ClipConfig(),
        data=DataConfig(name="small", path=str(folder), modalities=modalities, classes=7, global_batch=8),
        model=ModelConfig(embed_dim=8, encoders={"picture": EncoderConfig("vit", dict(VIT)), "caption": caption}),
    )


def problems(config: Config) -> list[str]:
    """What is said of a fresh model of ``config``."""
    torch.manual_seed(0)
    return indistinct(config, build_model(config), build_processor(config))


@pytest.mark.parametrize(
    ("architecture", "keywords"), [("gpt2", GPT2), ("clip_text_model", CLIP), ("bert", BERT), ("qwen2", QWEN)]
)
def test_the_architectures_own_pooling_tells_texts_apart(
    tmp_path: Path, architecture: str, keywords: dict[str, Any]
) -> None:
    config = config_on(tmp_path, EncoderConfig(architecture, dict(keywords)))
    assert problems(config) == []


def test_the_first_token_of_a_causal_encoder_is_refused_with_the_fix(tmp_path: Path) -> None:
    (problem,) = problems(config_on(tmp_path, EncoderConfig("gpt2", dict(GPT2), pool=Pool.cls)))
    assert problem == (
        "model.encoders.caption gives 4 different texts of the training data the same embedding with pool=cls: its"
        " first token sees nothing of the others, as in causal encoders; leave the pool to the architecture"
        " (model.encoders.caption.pool=null), or set it to last or mean"
    )


def test_clips_end_token_that_the_tokenizer_does_not_have(tmp_path: Path) -> None:
    elsewhere = {**CLIP, "eos_token_id": 1}  # [UNK], which none of the texts has
    (problem,) = problems(config_on(tmp_path, EncoderConfig("clip_text_model", elsewhere, pool=Pool.pooler)))
    assert "the same embedding with pool=pooler: set another model.encoders.caption.pool" in problem


def test_a_tokenizer_that_knows_no_word(tmp_path: Path) -> None:
    config = config_on(tmp_path, EncoderConfig("bert", dict(BERT), tokenizer=small_tokenizer("un deux trois")))
    (problem,) = problems(config)
    assert "data.modalities.caption: of 4 different texts" in problem and "no known word" in problem


def test_texts_that_are_cut_before_they_differ(tmp_path: Path) -> None:
    config = config_on(tmp_path, EncoderConfig("bert", dict(BERT)), lambda n, s: {**s, "caption.txt": f"a {'b' * n}"})
    config.data.modalities["caption"].max_length = 3
    (problem,) = problems(config)
    assert "become the same input: raise data.modalities.caption.max_length" in problem


def test_data_whose_samples_are_all_equal_are_no_fault_of_the_model(tmp_path: Path) -> None:
    config = config_on(
        tmp_path, EncoderConfig("gpt2", dict(GPT2), pool=Pool.cls), lambda n, s: {**s, "caption.txt": "a"}
    )
    assert problems(config) == []


def test_looking_leaves_no_trace(tmp_path: Path) -> None:
    config = config_on(tmp_path, EncoderConfig("bert", dict(BERT)))
    model, processor = build_model(config), build_processor(config)
    before = torch.get_rng_state()
    assert indistinct(config, model, processor) == []
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.modules() if isinstance(module, Encoder))


def test_small_models_are_looked_at_before_anything_is_queued(tmp_path: Path) -> None:
    config = config_on(tmp_path, EncoderConfig("gpt2", dict(GPT2), pool=Pool.cls))
    (problem,) = check(config).problems
    assert "the same embedding with pool=cls" in problem
    config.model.encoders["caption"].pool = None
    assert check(config).problems == []


def start(folder: str) -> str:
    """What starting the run in ``folder`` says on this rank."""
    forget_engines()
    try:
        Session(RunFolder(Path(folder)))
    except UnusableError as error:
        return str(error)
    return "started"


def test_a_run_does_not_start_on_any_rank(ranks: Ranks, tmp_path: Path) -> None:
    config = config_on(tmp_path / "data", EncoderConfig("gpt2", dict(GPT2), pool=Pool.cls))
    run = tmp_path / "run"
    run.mkdir()
    save_config(config, run / "config.yaml")
    assert all("the same embedding with pool=cls" in answer for answer in ranks(2, start, str(run)))


@pytest.mark.parametrize(("silent", "said"), [(False, ""), (True, "sound.seconds, and at what the sounds begin with")])
def test_sounds_are_told_apart_by_what_encoders_get_of_them(tmp_path: Path, silent: bool, said: str) -> None:
    def change(number: int, sample: Sample) -> Sample:
        late = np.concatenate([np.zeros(RATE, np.float32), tone(number)])
        return {**captions(number, sample), "sound.wav": encoded(late if silent else tone(number))}

    write_split(tmp_path / "train", (4, 4), change)
    config = tones_config(tmp_path, "sound", "caption")
    found = [problem for problem in problems(config) if "sound" in problem]
    assert [said in problem for problem in found] == [True] * silent
