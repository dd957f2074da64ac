"""What several folders that nobody described hold together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.root import Config
from mmpretrain.data.discovery import Discovery
from mmpretrain.data.index import build_index
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.source_checks import check_data_split
from tests.data.own_data import Content, downloaded, picture, plain, write
from tests.data.small_dataset import npy


def readings(number: int) -> Content:
    """An image and a vector of three."""
    return {"image.png": picture(number), "reading.npy": npy([number, 1.0, 2.0])}


def alternative(number: int) -> Content:
    """Captions in JSON under a name of their own."""
    return {"image.png": picture(number), "caption.json": json.dumps({"text": f"a block {number}"}).encode()}


def found(root: Path, method: str = "clip", *tokens: str) -> tuple[Config, list[str]]:
    """The config of a run on all folders in ``root``, and what was said."""
    look = Discovery()
    sources = [f"data.sources.{path.name}.path={path}" for path in sorted(root.iterdir())]
    return compose([f"method={method}", *sources, *tokens], look=look), look.notes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Paired images and captions, written in two ways."""
    for name, sample in (("a", plain), ("b", downloaded)):
        write(tmp_path / name / "train", sample, 4)
        build_index(tmp_path / name / "train")
    return tmp_path


def add(root: Path, name: str, sample: object) -> None:
    """Another source."""
    write(root / name / "train", sample, 4)  # type: ignore[arg-type]
    build_index(root / name / "train")


def test_modalities_are_those_of_all_and_each_source_keeps_its_layout(root: Path) -> None:
    config, notes = found(root)
    assert config.data.name == "a-b" and config.run.name == "clip-a-b" and config.data.path is None
    assert set(config.data.modalities) == set(config.model.encoders) == {"image", "caption"}
    assert not any(modality.optional for modality in config.data.modalities.values())
    assert check_data_split(config.data, "train").samples == 8
    assert f"{root}/a and {root}/b have no test/, so nothing is evaluated" in " ".join(notes)


def test_what_not_all_hold_is_optional_and_needs_a_method_that_bears_it(root: Path) -> None:
    add(root, "c", readings)
    config, _ = found(root, "comm")
    assert {n: m.optional for n, m in config.data.modalities.items()} == {
        "caption": True,
        "image": False,
        "reading": True,
    }
    with pytest.raises(ConfigError, match=r"optional=true: method=m3col needs all modalities .* the sources that lack"):
        found(root, "m3col", "data.classes=2")


def test_texts_under_other_keys_are_told_by_source(root: Path) -> None:
    add(root, "c", alternative)
    config, _ = found(root)
    assert config.data.modalities["caption"].field == []
    assert config.data.sources["c"].modalities["caption"].field == ["text"]
    assert config.data.parts["c"].modalities["caption"].field == ["text"]


def test_a_source_may_hold_one_modality_and_may_not_contradict_the_others(root: Path) -> None:
    add(root, "c", lambda number: {"image.png": picture(number)})
    assert found(root, "comm")[0].data.modalities["caption"].optional
    add(root, "d", readings)
    add(root, "e", lambda number: {"image.png": picture(number), "reading.npy": npy([1.0])})
    with pytest.raises(ConfigError, match=r"source e holds 'reading' with size \[1\], and another source with \[3\]"):
        found(root, "comm")


def test_a_color_set_is_not_read_gray_and_labels_of_other_classes_are_not_mixed(root: Path) -> None:
    for name, channels, classes in (("a", 1, ["ant", "bee"]), ("b", 3, ["bee", "cow"])):
        image: dict[str, object] = {"kind": "image", "size": [8, 8], "channels": channels}
        info = DatasetInfo(name, name, "made up", "MIT", {"image": image, "caption": {"kind": "text"}}, classes)
        (root / name / "dataset.json").write_text(info.to_json())
    config, notes = found(root)
    assert config.data.modalities["image"].channels == 3 and config.data.classes is None
    assert "labels are not used: the sources give the same numbers to different classes" in notes
    config, _ = found(root, "clip", "data.classes=2")
    problems = check_data_split(config.data, "train").problems
    assert len(problems) == 1 and "/b has other classes than" in problems[0] and "data.classes=null" in problems[0]


def test_a_source_without_a_training_split_is_named(root: Path) -> None:
    (root / "b" / "train").rename(root / "b" / "test")
    with pytest.raises(ConfigError, match=r"data.sources.b: path=.*/b: has shards in test alone"):
        found(root)
