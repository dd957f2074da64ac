"""A folder of shards that nobody described becomes a config, or the message says what is open."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmpretrain.config.compose import ConfigError, compose, load_config, save_config
from mmpretrain.config.data import Kind
from mmpretrain.config.evaluation import Metric
from mmpretrain.config.root import Config
from mmpretrain.data.discovery import Discovery
from mmpretrain.data.index import build_index
from tests.data.own_data import Content, both, downloaded, picture, plain, write
from tests.data.small_dataset import npy
from tests.data.tones import write_tones


def found(path: Path, *tokens: str) -> tuple[Config, list[str]]:
    """The config of the folder, and what was noted."""
    look = Discovery()
    return compose(["method=clip", f"data.path={path}", *tokens], look=look), look.notes


def refused(path: Path, *tokens: str) -> str:
    """Why there is none."""
    with pytest.raises(ConfigError) as caught:
        found(path, *tokens)
    return "\n".join(caught.value.problems)


def indexed(path: Path) -> Path:
    """The folder with an index for each split."""
    for split in path.iterdir():
        build_index(split)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """As img2dataset writes them."""
    both(tmp_path / "my photos", downloaded, 4)
    return indexed(tmp_path / "my photos")


def test_modalities_encoders_and_metrics_come_from_the_folder(photos: Path, tmp_path: Path) -> None:
    config, notes = found(photos)
    assert {name: m.kind for name, m in config.data.modalities.items()} == {"image": Kind.image, "caption": Kind.text}
    assert config.data.modalities["image"].size == [64, 64] and config.data.modalities["caption"].max_length == 128
    assert (
        config.model.encoders["caption"].tokenizer == "bytes" and config.model.encoders["image"].architecture == "vit"
    )
    assert config.run.name == "clip-my-photos" and config.evaluation.final == [Metric.retrieval]
    assert config.optim.warmup_samples == 5000
    assert found(photos, "train.samples=2000")[0].optim.warmup_samples == 200
    assert found(photos, "train.samples=2000", "optim.warmup_samples=900")[0].optim.warmup_samples == 900
    assert f"found in {photos}/train, which holds jpg, json, txt" in notes[0]
    assert "tokenizer train --data '" in notes[1]
    save_config(config, tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config


def test_the_command_line_changes_what_was_found(photos: Path) -> None:
    tokens = ["data.modalities.image.size=32", "model.encoders.image.config.num_hidden_layers=1", "optim=adamw"]
    tokens += [
        "data.modalities.caption.member=json",
        "data.modalities.caption.field=caption",
        "data.modalities.caption.max_length=9",
    ]
    config, _ = found(photos, *tokens)
    assert config.data.modalities["image"].size == [32, 32] and config.data.modalities["caption"].max_length == 9
    assert config.data.modalities["caption"].member == ["json"]
    assert config.model.encoders["image"].config["num_hidden_layers"] == 1
    assert config.optim.warmup_samples == 0
    config, _ = found(photos, "data.modalities.alt.member=json", "data.modalities.alt.field=caption")
    assert list(config.data.modalities) == ["image", "caption", "alt"] and "alt" in config.model.encoders
    assert "data.modalities names 1 (image)" in refused(photos, "data.modalities.caption=null")
    config, _ = found(photos, "model.encoders.image.pretrained=some/vit")
    assert config.model.encoders["image"].architecture is None


def test_small_encoders_serve_methods_that_fuse_tokens(photos: Path) -> None:
    tokens = ["method=comm", f"data.path={photos}"]
    assert compose(tokens, look=Discovery()).model.encoders["caption"].pool is None
    with pytest.raises(ConfigError, match="pool has no effect"):
        compose([*tokens, "model.encoders.caption.pool=mean"], look=Discovery())


def test_a_tokenizer_beside_the_shards_is_taken(photos: Path) -> None:
    (photos / "tokenizer").mkdir()
    config, notes = found(photos)
    assert config.model.encoders["caption"].tokenizer == str(photos / "tokenizer")
    assert config.data.modalities["caption"].max_length == 77 and not any("byte" in note for note in notes)


def test_dataset_json_comes_before_the_index(photos: Path) -> None:
    modalities = {"image": {"kind": "image", "size": [8, 8]}, "caption": {"kind": "text", "max_length": 7}}
    info = {"name": "p", "title": "p", "source": "p", "license": "p", "classes": ["a", "b"], "modalities": modalities}
    (photos / "dataset.json").write_text(json.dumps(info))
    config, notes = found(photos, "data.label.member=cls")
    assert config.data.classes == 2 and config.data.modalities["image"].size == [8, 8]
    assert config.evaluation.final == [Metric.linear_probe, Metric.retrieval]
    assert notes[0] == f"data: image (image), caption (text), as {photos}/dataset.json says"


def test_data_of_a_users_file_get_small_encoders_too(photos: Path, tmp_path: Path) -> None:
    from mmpretrain.config.choices import Choices

    (tmp_path / "configs" / "data").mkdir(parents=True)
    (tmp_path / "configs" / "data" / "mine.yaml").write_text(
        f"name: mine\npath: {photos}\nmodalities:\n  image: {{kind: image, size: 16}}\n  caption: {{kind: text}}\n"
    )
    config = compose(["data=mine"], choices=Choices(tmp_path / "configs"), look=Discovery())
    assert config.data.modalities["image"].size == [16, 16] and set(config.model.encoders) == {"image", "caption"}


def test_sounds_are_found_and_five_seconds_of_them_are_heard(tmp_path: Path) -> None:
    write_tones(tmp_path, 4)
    config, _ = found(tmp_path)
    kinds = {"picture": Kind.image, "sound": Kind.audio, "caption": Kind.text}
    assert {name: modality.kind for name, modality in config.data.modalities.items()} == kinds
    assert config.data.modalities["sound"].seconds == 5
    assert config.model.encoders["sound"].architecture == "audio-spectrogram-transformer"


def test_vectors_bring_their_size_and_sequences_are_asked_for(tmp_path: Path) -> None:
    both(
        tmp_path / "a", lambda n: {"left.npy": npy(np.ones(5, np.float32)), "right.npy": npy(np.ones(3, np.float32))}, 4
    )
    config, _ = found(indexed(tmp_path / "a"))
    assert [(m.kind, m.size) for m in config.data.modalities.values()] == [(Kind.vector, [5]), (Kind.vector, [3])]
    both(tmp_path / "b", lambda n: {"motion.npy": npy(np.ones((4, 3), np.float32)), "x.txt": b"a"}, 4)
    assert "set data.modalities.motion.kind=sequence and data.modalities.motion.size=[TIME STEPS,3]" in refused(
        indexed(tmp_path / "b")
    )
    tokens = ["kind=sequence", "size=[4,3]"]
    config, _ = found(tmp_path / "b", *(f"data.modalities.motion.{token}" for token in tokens))
    assert config.data.modalities["motion"].kind is Kind.sequence


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"caption": "a", "url": 3}, ["caption"]),
        ({"words": "a", "width": 3}, ["words"]),
        ({"text": "a", "alt": "b"}, ["text"]),
        ({"prompt": ["a b"], "url": "x.org/1.jpg", "status": "success"}, ["prompt"]),
        (["a", "b"], []),
    ],
)
def test_texts_in_json_are_found_where_one_key_can_be_meant(
    tmp_path: Path, content: object, expected: list[str]
) -> None:
    write(tmp_path / "train", lambda n: {"jpg": picture(n, "JPEG"), "json": json.dumps(content).encode()}, 4)
    assert found(indexed(tmp_path))[0].data.modalities["caption"].field == expected


@pytest.mark.parametrize("content", [{"title": "a", "alt": "b"}, {"url": "x.org/1.jpg"}, {"status": "success", "n": 1}])
def test_texts_in_json_are_asked_for_if_several_or_none_may_be_meant(content: object, tmp_path: Path) -> None:
    meta = json.dumps(content).encode()
    write(tmp_path / "train", lambda n: {"jpg": picture(n, "JPEG"), "json": meta}, 4)
    assert "say which of them are texts, data.modalities.caption.field=[KEY]" in refused(indexed(tmp_path))


def test_a_first_sample_without_a_caption_does_not_make_a_caption_of_its_address(tmp_path: Path) -> None:
    def sample(number: int) -> dict[str, bytes]:
        content = {"caption": "a b" if number else None, "url": f"x.org/{number}"}
        return {"jpg": picture(number, "JPEG"), "json": json.dumps(content).encode()}

    write(tmp_path / "train", sample, 4)
    config, notes = found(indexed(tmp_path))
    assert config.data.modalities["caption"].field == ["caption"]
    assert "caption (text, its caption)" in notes[0]


def test_what_helps_is_said_where_names_tell_too_little(tmp_path: Path) -> None:
    """Keys with dots, forms that are not read, and a slip in the name of a modality."""
    write(tmp_path / "dots/train", lambda n: {f"05.{n}.jpg": picture(n, "JPEG"), f"05.{n}.txt": b"a"}, 4)
    assert "your keys seem to contain dots (05.0.jpg is what follows" in refused(indexed(tmp_path / "dots"))
    write(tmp_path / "avif/train", lambda n: {"avif": b"x", "txt": b"a"}, 4)
    assert "data.modalities.NAME.member (.avif: not read)" in refused(indexed(tmp_path / "avif"))
    write(tmp_path / "slip/train", lambda n: {"jpg": picture(n, "JPEG"), "txt": b"a"}, 4)
    said = refused(indexed(tmp_path / "slip"), "data.modalities.img.size=8")
    assert "data.modalities.img.kind has no value (did you mean image?)" in said


def test_what_is_no_folder_of_shards_is_called_what_it_is(tmp_path: Path) -> None:
    assert "there is no such folder" in refused(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    assert "is a file" in refused(tmp_path / "file")
    raw = tmp_path / "raw data"
    raw.mkdir()
    (raw / "a.jpg").write_bytes(b"x")
    (raw / "metadata.csv").write_bytes(b"x")
    assert f"but .csv, .jpg; make some: `mmpretrain shards build folder '{raw}' data/raw-data`" in refused(raw)
    write(tmp_path / "tars", plain, 2)
    assert f"{tmp_path / 'tars'} is not indexed: run `mmpretrain shards index {tmp_path / 'tars'}`" in refused(
        tmp_path / "tars"
    )

    def odd(number: int) -> Content:
        return {"bin": b"x"}

    write(tmp_path / "odd" / "train", odd, 2)
    assert "holds bin: nothing is known to be a modality by its name" in refused(indexed(tmp_path / "odd"))
