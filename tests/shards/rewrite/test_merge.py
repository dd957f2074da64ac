"""Merging puts samples one after the other, and says or refuses what the sources do not agree on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmpretrain.data.info import DatasetInfo, load_info
from mmpretrain.data.writing import BuildError, write_split
from shards.rewrite.merged_info import merge_infos
from shards.sources.findings import Findings
from tests.shards.rewrite.small_sets import INFO, data_set, held, made, refused, sample, snapshot


def test_merging_joins_split_to_split(tmp_path: Path) -> None:
    """In the order of the command; train goes to train, test to test, and a bare folder of tars is for training."""
    first, second = data_set(tmp_path / "a", "a"), data_set(tmp_path / "b", "b", train=9)
    write_split(tmp_path / "bare", [sample(n, "c") for n in range(5)])
    answer = made("merge", first, second, tmp_path / "out", "--samples-per-shard", 20)
    assert answer["samples"] == {"train": 59, "test": 24} and answer["asides"] == {}
    for split in ("train", "test"):
        assert held(tmp_path / "out" / split) == held(first / split) + held(second / split)
    assert load_info(tmp_path / "out") == replace(INFO, name="out")
    answer = made("merge", second, tmp_path / "bare", tmp_path / "more")
    assert answer["samples"] == {"train": 14, "test": 12} and not (tmp_path / "more/dataset.json").exists()
    assert list(answer["asides"]) == ["sources without dataset.json, so the new data set has none"]
    assert made("merge", tmp_path / "bare", tmp_path / "flat")["samples"] == {".": 5}


def test_keys_of_several_sources_are_told_apart(tmp_path: Path) -> None:
    """They are refused unless the name of each source is put before them, also where the names are the same."""
    first, second = data_set(tmp_path / "a/my.set"), data_set(tmp_path / "b/my.set")
    assert refused("merge", first, second, tmp_path / "out") == (
        "the key 's00000' comes more than once: --prefix-keys puts the name of each source before its keys"
    )
    made("merge", first, second, tmp_path / "out", "--prefix-keys")
    keys = [key for key, _ in held(tmp_path / "out/test")]
    assert keys[0] == "my_set/s01000" and keys[12] == "my_set~2/s01000"
    assert "first give one source other keys" in refused(
        "merge", first, _joined_with_itself(first, tmp_path / "c"), tmp_path / "other", "--prefix-keys"
    )


def _joined_with_itself(source: Path, folder: Path) -> Path:
    """A folder whose two shards have the same keys."""
    from mmpretrain.data.index import build_index

    folder.mkdir()
    for name in ("x.tar", "y.tar"):
        (folder / name).write_bytes((source / "test/shard-000000.tar").read_bytes())
    build_index(folder)
    return folder


@pytest.mark.processes
def test_a_merge_writes_the_same_bytes_by_any_number_of_workers(tmp_path: Path) -> None:
    """Each process opens all sources itself."""
    sources = [data_set(tmp_path / name, name) for name in "ab"]
    options = ("--mb-per-shard", 1)
    made("merge", *sources, tmp_path / "1/out", *options)
    made("merge", *sources, tmp_path / "2/out", *options, "--workers", 2)
    assert snapshot(tmp_path / "1/out") == snapshot(tmp_path / "2/out")


VECTOR: dict[str, Any] = {"kind": "vector", "size": [2]}
ONE = DatasetInfo(
    "one",
    "One",
    "here",
    "CC0",
    {"photo": {"kind": "image", "size": [32, 32], "channels": 1}, "genes": VECTOR},
    classes=["a", "b"],
    statistics={"genes": {"minimum": [0.0, 1.0], "maximum": [2.0, 3.0]}},
    features={"genes": ["g1", "g2"]},
    provenance={"from": "x"},
)


def test_what_sources_say_alike_is_kept_and_the_rest_is_said() -> None:
    """Ranges become those of all samples, the larger number of channels holds both, licenses stand side by side."""
    other = replace(
        ONE,
        title="Two",
        license="MIT",
        modalities={
            "photo": {"kind": "image", "size": [64, 64], "channels": 3},
            "genes": VECTOR,
            "text": {"kind": "text"},
        },
        statistics={"genes": {"minimum": [-1.0, 2.0], "maximum": [1.0, 9.0]}},
        provenance={},
    )
    notes = Findings()
    merged = merge_infos("both", [("a", ONE), ("b", other)], notes)
    assert (merged.name, merged.title, merged.source, merged.license) == ("both", "One + Two", "here", "CC0; MIT")
    assert merged.modalities["photo"] == {"kind": "image", "size": [32, 32], "channels": 3}
    assert list(merged.modalities) == ["photo", "genes", "text"] and merged.classes == ["a", "b"]
    assert merged.statistics == {"genes": {"minimum": [-1.0, 1.0], "maximum": [2.0, 9.0]}}
    assert merged.features == ONE.features and merged.provenance == {"a": {"from": "x"}}
    assert notes.to_json()["sources differ in a setting of dataset.json"]["examples"] == [
        "b: modality 'photo' has size [64, 64], kept: [32, 32]",
        "b: modality 'photo' has channels 3, kept: 3",
    ]
    assert ONE.modalities["photo"]["channels"] == 1


def test_a_source_without_classes_or_ranges_is_said() -> None:
    """Ranges that do not hold for all samples are left out."""
    notes = Findings()
    merged = merge_infos("both", [("a", ONE), ("b", replace(ONE, classes=None, statistics={}))], notes)
    assert merged.classes == ["a", "b"] and merged.statistics == {}
    assert list(notes.to_json()) == [
        "sources without classes: their samples have no label",
        "statistics that not all sources have are left out of dataset.json",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["b", "a"]}, "b has other classes than a"),
        ({"factors": {"shape": 3}}, "other factors"),
        ({"features": {"genes": ["g2", "g1"]}}, "features of 'genes' are others"),
        ({"modalities": {"genes": {"kind": "vector", "size": [3]}}}, "modality 'genes' has size"),
        ({"modalities": {"photo": {"kind": "text"}}}, "modality 'photo' has kind text, and image in the sources"),
    ],
)
def test_sources_that_contradict_one_another_are_refused(change: dict[str, Any], message: str) -> None:
    """Where joining would change what labels or vectors mean."""
    with pytest.raises(BuildError, match=message):
        merge_infos("both", [("a", ONE), ("b", replace(ONE, **change))], Findings())
