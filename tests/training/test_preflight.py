"""Preflight: what only shows once model and method are built, found without weights and before a job is queued."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.compose import ConfigError, compose, save_config
from mmpretrain.training.preflight import _masks, check
from tests.small_tokenizer import small_tokenizer


def preflight(*tokens: str) -> tuple[list[str], list[str]]:
    """Problems and notes, of two ranks."""
    found = check(compose([f"model.encoders.caption.tokenizer={small_tokenizer()}", *tokens]), 2)
    return found.problems, found.notes


@pytest.mark.processes
def test_a_sound_config_gives_parameter_counts(tmp_path: Path) -> None:
    """In the process that the launcher starts."""
    path = tmp_path / "config.yaml"
    save_config(compose(["method=m3col", f"model.encoders.caption.tokenizer={small_tokenizer()}"]), path)
    command = [sys.executable, "-m", "mmpretrain.training.preflight", str(path), "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["problems"] == []
    assert any(note.startswith("model: ") for note in answer["notes"])
    (memory,) = (note for note in answer["notes"] if note.startswith("negatives "))
    assert "negatives gather (chosen by objective.negatives=auto, gather_mb=1024): about" in memory


def test_what_negatives_take_is_not_said_of_a_method_without_any() -> None:
    found = check(compose(["method=mucmm", "model=planted", "data=planted"]), 2)
    assert found.problems == [] and any(note.startswith("components: ") for note in found.notes)
    assert not any("negatives" in note for note in found.notes)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["method=m3col", "method.mix_level=input"], "cannot mix the tokens of caption"),
        (["model.embed_dim=null", "model.encoders.left.config.hidden_size=32"], "width"),
        (["model.encoders.left.architecture=vitt"], "vit"),
        (["model.encoders.left.config.hidden_sizes=3"], "hidden_size"),
    ],
)
def test_one_clear_message(tokens: list[str], message: str) -> None:
    problems, _ = preflight(*tokens)
    assert any(message in problem for problem in problems), problems


def test_a_tokenizer_that_cannot_mask_shows_before_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "tokenizer"
    whole = AutoTokenizer.from_pretrained(small_tokenizer())
    PreTrainedTokenizerFast(tokenizer_object=whole.backend_tokenizer, pad_token="[PAD]").save_pretrained(folder)
    tokens = ("method=cross_self", f"model.encoders.caption.tokenizer={folder}")
    problems, _ = preflight(*tokens)
    assert len(problems) == 1 and "data.modalities.caption: its tokenizer has neither a mask token" in problems[0]
    assert preflight(*tokens, "method.self_weight=0")[0] == []


CAPTION_SECOND = ("method=factorcl", "data.modalities.right=null", "model.encoders.right=null")


@pytest.mark.parametrize(
    ("usual", "unique", "refused"), [("{delete: 1.0}", "{mask: 0.2}", True), ("{mask: 0.2}", "{delete: 1.0}", False)]
)
def test_only_the_view_that_is_made_must_mask(tmp_path: Path, usual: str, unique: str, refused: bool) -> None:
    """FactorCL's second modality gets the unique view alone."""
    folder = tmp_path / "tokenizer"
    whole = AutoTokenizer.from_pretrained(small_tokenizer())
    PreTrainedTokenizerFast(tokenizer_object=whole.backend_tokenizer, pad_token="[PAD]").save_pretrained(folder)
    views = (f"data.modalities.caption.augment={usual}", f"data.modalities.caption.unique={unique}")
    config = compose([*CAPTION_SECOND, f"model.encoders.caption.tokenizer={folder}", *views])
    assert [
        message.startswith("data.modalities.caption: its tokenizer")
        for message in _masks(config, EncoderSources(config))
    ] == [True] * refused


def test_what_critics_take_is_their_columns_and_no_ring_changes_it() -> None:
    """2 x 4 bytes x 1024 samples x 6 critics of 512 units, for as many ranks as there are."""
    batch = "data.global_batch=1024"
    for negatives in ("auto", "ring"):
        _, notes = preflight(*CAPTION_SECOND, batch, f"objective.negatives={negatives}")
        (memory,) = (note for note in notes if note.startswith("negatives "))
        assert "gather (columns of learned critics are always gathered" in memory and "about 24 MiB per rank" in memory


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["method=comm", "data.global_batch=1"], "data.global_batch is 1: batch norm needs at least 2"),
        (["method=cross_self", "data.global_batch=1"], "data.global_batch is 1: batch norm needs at least 2"),
        (["method=m3col", "method.soft_temperature=0.001"], r"method.soft_temperature is 0.001: it must be at least"),
        (["method=clip", "method.max_scale=1000"], "method.max_scale is 1000.0: it must be at most 620"),
    ],
)
def test_what_a_method_cannot_take_is_a_config_problem(tokens: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(tokens)


def test_compiling_the_loss_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/nonexistent/g++")
    problems, _ = preflight("objective.compile=true")
    assert any(problem.startswith("objective.compile=true needs a C++ compiler") for problem in problems)
