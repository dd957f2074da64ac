"""What a fine-tuning may start from, told by small JSON files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher.finetuning.start import Form, StartError, find_start, of_encoders
from mmpretrain.config.compose import compose, save_config
from mmpretrain.config.kind import Kind

ENTRIES = {
    "image": {"kind": "image", "size": [8, 8], "channels": 3, "resize": "crop"},
    "text": {"kind": "text", "max_length": 10},
}


def write_release(folder: Path, entries: dict[str, dict[str, Any]] | None = None, **config: Any) -> str:
    """The JSON files of a release; there are no weights."""
    entries = entries or ENTRIES
    folder.mkdir(parents=True, exist_ok=True)
    usual = {"model_type": "mmpretrain", "modalities": list(entries), "embed_dim": 12, "method": "clip"}
    (folder / "config.json").write_text(json.dumps(usual | config))
    (folder / "processor_config.json").write_text(json.dumps({"modalities": entries}))
    return str(folder)


def write_config(folder: Path, **config: Any) -> str:
    """The config.json of a model of transformers."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_a_release_says_its_modalities_and_its_method(tmp_path: Path) -> None:
    start = find_start(write_release(tmp_path / "mine", method="supcon"))
    assert (start.form, start.name, start.method) == (Form.release, "mine", "supcon")
    assert start.kinds == {"image": Kind.image, "text": Kind.text}
    assert start.sources == dict.fromkeys(ENTRIES, str(tmp_path / "mine"))


def test_of_a_run_its_release_counts_and_what_it_set_of_its_method(tmp_path: Path) -> None:
    write_release(tmp_path / "run" / "release", method="comm")
    save_config(compose(["method=comm", "method.pairing=code", "run.name=run"]), tmp_path / "run" / "config.yaml")
    start = find_start(str(tmp_path / "run"))
    assert (start.source, start.name, start.settings) == (str(tmp_path / "run" / "release"), "run", {"pairing": "code"})


def test_a_run_that_has_not_ended_is_refused_with_the_way_to_a_release(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    save_config(compose(["run.name=run"]), tmp_path / "run" / "config.yaml")
    with pytest.raises(StartError, match=r"has no release yet.*mmpretrain export"):
        find_start(str(tmp_path / "run"))


def test_a_model_with_two_towers_is_one_that_is_published(tmp_path: Path) -> None:
    for tower in ("vision_config", "audio_config"):
        source = write_config(tmp_path / tower, model_type="x", text_config={}, **{tower: {}})
        assert find_start(source).form is Form.published


def test_single_encoders_say_what_their_configs_know_of_their_inputs(tmp_path: Path) -> None:
    image = write_config(tmp_path / "vit", model_type="vit", image_size=32, num_channels=1)
    text = write_config(tmp_path / "bert", model_type="bert", max_position_embeddings=16)
    part = write_release(tmp_path / "mine")
    start = of_encoders({"photo": image, "caption": text, "text": part})
    assert start.entries["photo"] == {"kind": "image", "size": [32, 32], "channels": 1}
    assert start.entries["caption"] == {"max_length": 16} and start.entries["text"] == ENTRIES["text"]
    assert (start.form, start.name) == (Form.encoders, "vit-bert-mine")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: str(folder / "nowhere"), "there is no such folder"),
        (str, "it has no config.json"),
        (lambda folder: write_config(folder / "bert", model_type="bert"), "is a bert, one encoder.*--encoder image="),
        (lambda folder: write_release(folder / "r", connection={"x": 1}), "connects two other releases"),
        (lambda folder: write_release(folder / "r", modalities=["sound"]), "export the release again"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused_in_a_sentence(make: Any, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=sentence):
        find_start(make(tmp_path))


def test_a_name_that_the_hub_does_not_answer_to_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> str:
        raise OSError("nobody is there\nat all")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fails)
    with pytest.raises(StartError, match=r"^someone/model is no folder here.*nobody is there$"):
        find_start("someone/model")


def test_a_single_encoder_is_no_pair(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="alone: name one for each modality"):
        of_encoders({"image": str(tmp_path)})
