"""Runs on texts of many lengths: batches are as long as their texts, on each rank, and the release says the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor

from mmpretrain.config.compose import save_config
from mmpretrain.config.data import Padding
from mmpretrain.config.model import EncoderConfig
from mmpretrain.config.root import Config
from mmpretrain.problems import UnusableError
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.preflight import check
from mmpretrain.training.session import Session
from mmpretrain.training.train import fit
from tests.data.small_dataset import Sample
from tests.engine.runs import forget_engines
from tests.models.small import BERT
from tests.rank_pool import Ranks
from tests.training.test_telling_apart import config_on

LONGEST = 30
WORDS = ("seven", "three", "light", "bold")
CONVBERT: dict[str, Any] = {**BERT, "max_position_embeddings": 32, "embedding_size": 16}


def caption(number: int) -> str:
    """1 to 4 words, or 16."""
    return " ".join(WORDS[(number + place) % 4] for place in range(16 if number % 4 == 0 else number % 5 + 1))


def varied(number: int, sample: Sample) -> Sample:
    """``sample`` with captions of many lengths."""
    return {**sample, "caption.txt": caption(number)}


def config_of(folder: Path, architecture: str = "bert", keywords: dict[str, Any] | None = None) -> Config:
    """A config of 16 samples, in steps of 4, on such captions of up to 30 tokens."""
    encoder = EncoderConfig(architecture, keywords or {**BERT, "max_position_embeddings": 32})
    config = config_on(folder, encoder, varied)
    config.data.modalities["caption"].max_length = LONGEST
    config.data.global_batch, config.train.samples, config.evaluation.final = 4, 16, []
    return replace(config, engine=replace(config.engine, zero=3))


def lengths_of_a_run(folder: str) -> tuple[list[int], np.ndarray]:
    """How long this rank's texts were, step by step, and the embeddings of the split by the run's evaluation."""
    forget_engines()
    session = Session(RunFolder(Path(folder)))  # not closed: the process group lives on
    lengths = [batch.inputs["caption"]["input_ids"].shape[1] for batch in session.stream.batches(0, 4)]
    fit(session)
    return lengths, session.measuring.embed("train").embeds["caption"]


def test_ranks_train_on_texts_of_their_own_lengths_and_the_release_says_what_evaluation_did(
    ranks: Ranks, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    save_config(config_of(tmp_path / "data"), run / "config.yaml")
    (first, embeds), (second, _) = ranks(2, lengths_of_a_run, str(run))
    assert any(one != other for one, other in zip(first, second, strict=True)), (first, second)
    assert {*first, *second} == {8, 24}
    model = AutoModel.from_pretrained(run / "release")
    processor = AutoProcessor.from_pretrained(run / "release")
    texts = [caption(number) for number in range(16)]
    for count in (16, 1):  # however many are passed together
        parts = [processor(caption=texts[start : start + count]) for start in range(0, 16, count)]
        with torch.no_grad():
            found = torch.cat([model(**part).embeds["caption"] for part in parts])
        assert np.abs(found.numpy() - embeds).max() < 1e-5 * np.abs(embeds).max()
    assert processor(caption=texts[1])["caption"]["input_ids"].shape == (1, 8)


def test_what_needs_the_full_length_is_said_in_the_plan_and_refused_where_less_is_asked_for(tmp_path: Path) -> None:
    config = config_of(tmp_path / "data", "convbert", dict(CONVBERT))
    checked = check(config)
    assert checked.problems == []
    (note,) = [note for note in checked.notes if "padded" in note]
    assert note.startswith("caption: every sample is padded to the full length, since model.encoders.caption works on")
    config.data.modalities["caption"].padding = Padding.batch
    (problem,) = check(config).problems
    assert problem.startswith("data.modalities.caption.padding is batch, but model.encoders.caption works on a text in")


def start(folder: str) -> list[int] | str:
    """The lengths of this rank's texts, or why the run does not start."""
    forget_engines()
    try:
        session = Session(RunFolder(Path(folder)))
    except UnusableError as error:
        return str(error)
    return [batch.inputs["caption"]["input_ids"].shape[1] for batch in session.stream.batches(0, 2)]


@pytest.mark.parametrize(
    ("padding", "answer"), [(Padding.auto, [LONGEST] * 2), (Padding.full, [LONGEST] * 2), (Padding.batch, "is batch")]
)
def test_a_run_keeps_the_full_length_where_it_must(
    ranks: Ranks, tmp_path: Path, padding: Padding, answer: list[int] | str
) -> None:
    architecture = ("bert", None) if padding is Padding.full else ("convbert", dict(CONVBERT))
    config = config_of(tmp_path / "data", *architecture)
    config.data.modalities["caption"].padding = padding
    run = tmp_path / "run"
    run.mkdir()
    save_config(config, run / "config.yaml")
    (found,) = ranks(1, start, str(run))
    assert found == answer or (isinstance(answer, str) and answer in found)
