"""The papers' tables of pictures with texts: the command of each data file, and the experiment's checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import ViTConfig, ViTModel

from launcher.planning.checks import check_data
from launcher.planning.resources import Purpose
from mmpretrain.assembly.check import check_model
from mmpretrain.config.compose import compose
from tests.embedding.spaces import write_bert, write_clip
from tests.models.small import LAYERS
from tests.shards.drawn import build, files, json_lines, picture

SMALL = ["data.modalities.image.size=[8,8]", "data.workers=0", "data.global_batch=4"]
COLUMNS: dict[str, dict[str, Any]] = {
    "mmimdb": {"image": "{n}.png", "plot": "a bold light", "genres": ["Drama", "War"], "split": "train"},
    "hateful_memes": {"img": "{n}.png", "text": "a bold light", "label": 0},
    "irfl": {"image": "{n}.png", "phrase": "a bold light", "figurative_type": "idiom"},
    "n24news": {"image_path": "{n}.png", "headline": "a bold light", "caption": "three", "section": "Science"},
    "food101": {"image": "{n}.png", "title": "a bold light", "label": "pho", "split": "train"},
}
SPLITS = {"mmimdb": ["train", "dev", "test"], "food101": ["train", "train", "test"]}
CLASSES: dict[str, list[Any]] = {
    "mmimdb": [["Drama"], ["War", "Drama"], []],
    "hateful_memes": [0, 1],
    "irfl": ["idiom", "metaphor", "simile"],
    "n24news": ["Science", "Travel"],
    "food101": ["pho", "ramen"],
}
LABELS = {"mmimdb": "genres", "irfl": "figurative_type", "n24news": "section"}


def rows(name: str, count: int = 30) -> list[dict[str, Any]]:
    """A table as the data file asks for it."""
    found = []
    for n in range(count):
        row = {key: value.format(n=n) if isinstance(value, str) else value for key, value in COLUMNS[name].items()}
        row[LABELS.get(name, "label")] = CLASSES[name][n % len(CLASSES[name])]
        found.append(row | ({"split": SPLITS[name][n % 3]} if name in SPLITS else {}))
    return found


def build_words(name: str, folder: Path) -> list[str]:
    """What follows ``mmpretrain shards build`` in the data file's own command, with files of this folder."""
    command = str(compose([f"experiment={name}"]).data.build)
    table = files(folder, {"t.jsonl": json_lines(rows(name))} | {f"{n}.png": picture(n) for n in range(30)})
    words = command.removeprefix("mmpretrain shards build ").split()
    for old in ("TABLE", "TRAIN", "DEV", "TEST", "train.jsonl", "dev_seen.jsonl"):
        words = [word.replace(old, str(table / "t.jsonl")) if word.endswith(old) else word for word in words]
    return [str(folder / "out") if word == f"data/{name}" else word for word in words]


def pretrained(name: str, folder: Path) -> list[str]:
    """Small models in the place of those that the experiment starts from."""
    if name in ("n24news", "food101"):
        ViTModel(ViTConfig(**LAYERS, image_size=8, patch_size=4)).save_pretrained(folder / "image")
    else:
        write_clip(folder / "image")
    write_clip(folder / "text") if name == "irfl" else write_bert(folder / "text")
    tokens = [f"model.encoders.{kind}.pretrained={folder / kind}" for kind in ("image", "text")]
    tokens += ["model.fusion.width=16", "model.embed_dim=16"] if name in ("mmimdb", "hateful_memes") else []
    return [*tokens, "data.modalities.text.max_length=10"]


@pytest.mark.parametrize("name", COLUMNS)
def test_a_table_becomes_what_its_experiment_reads(tmp_path: Path, name: str) -> None:
    answer = build(*build_words(name, tmp_path))
    assert answer["samples"]["train"] > 0 and answer["samples"].get("test", 0) > 0
    tokens = [*SMALL, f"data.path={tmp_path / 'out'}", *pretrained(name, tmp_path)]
    if "load_size" in str(compose([f"experiment={name}"]).data.modalities["image"]):
        tokens.append("data.modalities.image.load_size=null")
    for experiment in sorted(path.stem for path in Path("configs/experiment").glob(f"{name}*.yaml")):
        config = compose([f"experiment={experiment}", *tokens])
        assert check_data(config, Purpose.run).problems == (), experiment
        assert check_model(config).problems == [], experiment
