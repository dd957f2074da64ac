"""Whether an evaluated split was kept from training: by its name, by its shards, and by how its pairs were made."""

from __future__ import annotations

import json
from pathlib import Path

from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config
from mmpretrain.data.index import Index, load_index
from mmpretrain.training.held_out import not_held_out


def config_of(digits: Path, *tokens: str) -> Config:
    return compose(["experiment=digits", f"data.path={digits}", *tokens])


def test_a_split_of_other_shards_is_held_out(digits: Path) -> None:
    train, test = (load_index(digits / split) for split in ("train", "test"))
    assert not_held_out(config_of(digits), train, test) is None


def test_the_training_split_is_not_whatever_it_is_called(digits: Path) -> None:
    train, test = (load_index(digits / split) for split in ("train", "test"))
    seen = "they are the samples that the model learned from"
    assert not_held_out(config_of(digits, "evaluation.split=train"), train, train) == seen
    assert not_held_out(config_of(digits, "evaluation.split=other"), train, train) == seen
    mixed = Index(test.folder, [*test.shards, train.shards[0]])
    found = not_held_out(config_of(digits), train, mixed)
    assert found == f"1 of the {len(mixed.shards)} shards of test are shards that the model learned from"


def test_pseudo_pairs_are_no_held_out_pairs(digits: Path, tmp_path: Path) -> None:
    info = json.loads((digits / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps({**info, "provenance": {"first_memory": {}}}))
    train, test = (load_index(digits / split) for split in ("train", "test"))
    found = not_held_out(config_of(digits, f"data.path={tmp_path}"), train, test)
    assert found is not None and "made by models" in found
