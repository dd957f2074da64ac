"""Where modalities lie, which samples count, and what the index knows before a run starts."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mmpretrain.config.data import DataConfig, Incomplete, Kind, LabelConfig, ModalityConfig, Unread
from mmpretrain.data.index import ShardError, build_index
from mmpretrain.data.index_checks import check_split
from mmpretrain.data.members import Holders, find_members
from mmpretrain.data.split import look_at, open_split, split_folders
from tests.data.faulty_server import served
from tests.data.tars import Members, write_tar

PAIR = {"image": ModalityConfig(Kind.image, [8, 8]), "caption": ModalityConfig(Kind.text)}


def settings(path: Path | str = "nowhere", **changes: Any) -> DataConfig:
    """Images and captions."""
    return DataConfig(**{"name": "small", "path": str(path), "modalities": PAIR, **changes})


def members(count: int = 4, *names: str, start: int = 0) -> Members:
    """``KEY.NAME`` for so many keys, with a byte each."""
    return [(f"{n:04d}.{name}", b"1") for n in range(start, start + count) for name in names or ("jpg", "txt")]


def shards(folder: Path, *tars: Members) -> Path:
    """A folder of these tars, indexed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, tar in enumerate(tars):
        write_tar(folder / f"{number:05d}.tar", tar)
    build_index(folder)
    return folder


@pytest.mark.parametrize(
    ("extensions", "image", "caption"),
    [
        (("image.png", "caption.txt"), ("image.png",), ("caption.txt",)),
        (("jpg", "txt", "json"), ("jpg",), ("txt",)),  # as img2dataset writes them
        (("jpg", "png", "webp", "txt"), ("jpg", "png", "webp"), ("txt",)),
        (("jpg", "json"), ("jpg",), ("json",)),
        (("image.png", "jpg", "txt", "cls"), ("image.png",), ("txt",)),
    ],
)
def test_members_are_found_by_name_or_where_only_one_can_be_meant(
    extensions: tuple[str, ...], image: tuple[str, ...], caption: tuple[str, ...]
) -> None:
    found, problems = find_members(settings(), extensions)
    assert problems == []
    assert found.modalities == {"image": Holders(image), "caption": Holders(caption)}
    assert found.wanted == {*image, *caption}


def test_the_config_names_members_fields_and_weights() -> None:
    caption = ModalityConfig(Kind.text, member=[".TXT", "json"], field=["alt"], weights=[1.0])
    found, problems = find_members(settings(modalities={**PAIR, "caption": caption}), ("jpg", "txt", "json"))
    assert problems == [] and found.modalities["caption"] == Holders(("txt", "json"), ("alt",), (1.0,), several=True)
    data = settings(classes=3, label=LabelConfig(["json"], "class"))
    assert find_members(data, ("jpg", "txt", "json"))[0].label == Holders(("json",), ("class",))


@pytest.mark.parametrize(
    ("changes", "extensions", "message"),
    [
        ({}, ("jpg",), "holds 'caption'; they have jpg: choose among them, or set data.modalities.caption.member"),
        ({"modalities": {"a": PAIR["image"], "b": PAIR["image"]}}, ("jpg",), "a and b are images, and it is not clear"),
        (
            {"modalities": {**PAIR, "caption": ModalityConfig(Kind.text, member=["alt"])}},
            ("jpg", "txt"),
            r"holds data.modalities.caption.member=\[alt\]; they have jpg, txt",
        ),
        (
            {"modalities": {"image": ModalityConfig(Kind.text), "x": PAIR["caption"]}},
            ("image.jpg", "x.txt"),
            r"data.modalities.image is a text \(.txt, .json\), and the shards hold it as image.jpg",
        ),
        ({"classes": 3}, ("jpg", "txt"), "holds 'label'; they have jpg, txt: set data.label.member"),
        ({"classes": 3}, ("jpg", "txt", "label.txt"), r"set data.label.member=\[label.txt\]"),
        ({}, tuple(f"{n}.bin" for n in range(99)), "and 91 more: choose among them"),
    ],
)
def test_what_no_member_holds_is_named_with_what_is_there(
    changes: dict[str, Any], extensions: tuple[str, ...], message: str
) -> None:
    _, problems = find_members(settings(**changes), extensions)
    assert problems
    assert any(re.search(message, problem) for problem in problems), problems


def test_img2dataset_folders_are_a_data_set_as_they_are(tmp_path: Path) -> None:
    """Tars without a folder for the split, keys that start again, several downloads."""
    first, second = (shards(tmp_path / name, members(4), members(3)) for name in ("a", "b"))
    (second / "00000.parquet").write_bytes(b"beside it")
    data = settings(first, more_paths=[str(second)])
    opened = open_split(data, "train")
    index = opened.index
    assert len(index) == 14 and split_folders(data, "train") == [str(first), str(second)]
    assert index.path(index.sample(7).shard) == f"{second}/00000.tar"
    assert len({index.unique_key(ordinal) for ordinal in range(14)}) == 14
    shards(first / "test", members(2))
    assert check_split(data, "train").problems == ()
    assert split_folders(data, "test") == [f"{first}/test"] and len(open_split(data, "test").index) == 2


def test_incomplete_samples_are_refused_or_dropped_and_counted(tmp_path: Path) -> None:
    good = members(20)
    bad = [("a.jpg", b"1"), ("b.jpg", b""), ("b.txt", b"1"), ("c.jpg", b"1"), ("c.png", b"1"), ("c.txt", b"1")]
    folder = shards(tmp_path / "train", good, [*good, *bad])
    refusing = check_split(settings(tmp_path), "train")
    missing = f"{folder}: 1 of 43 samples have no caption (first: key 'a' in 00001.tar): set data.incomplete=drop"
    assert missing in " ".join(refusing.problems)
    assert "1 of 43 samples have several image (first: key 'c'" in " ".join(refusing.problems)
    lenient = check_split(settings(tmp_path, max_bad_fraction=0.1), "train")
    assert len(lenient.problems) == 1 and "have empty image (first: key 'b'" in " ".join(lenient.notes)
    dropping = settings(tmp_path, incomplete=Incomplete.drop)
    opened = open_split(dropping, "train")
    assert len(opened.index) == 40 and "a" not in opened.index.shards[1].columns().all_keys()
    assert opened.dropped == {"several image": 1, "empty image": 1, "no caption": 1}
    checked = check_split(dropping, "train")
    assert checked.problems == () and checked.samples == 40
    assert "40 samples are left, without the incomplete ones (several image: 1, empty image: 1" in checked.notes[0]
    folder = shards(tmp_path / "none", [*members(3, "jpg"), ("z.txt", b"")])
    with pytest.raises(ShardError, match=r"leaves none of its 4 samples: no image \(1\), .*no caption \(3\)"):
        look_at(settings(folder, incomplete=Incomplete.drop), "train")


@pytest.mark.parametrize("incomplete", Incomplete)
def test_folders_of_other_layouts_are_not_left_out_without_the_way_to_read_them(
    incomplete: Incomplete, tmp_path: Path
) -> None:
    """One folder says ``image.png``, the other ``jpg``: naming both reads both."""
    first, second = shards(tmp_path / "a", members(3, "image.png", "caption.txt")), shards(tmp_path / "b", members(4))
    data = settings(first, more_paths=[str(second)], incomplete=incomplete)
    checked = check_split(data, "train")
    said = " ".join([*checked.problems, *checked.notes])
    assert "jpg may hold it: data.modalities.image.member=[image.png,jpg] reads both" in said
    assert "data.modalities.caption.member=[caption.txt,txt] reads both" in said
    image, caption = (["image.png", "jpg"], ["caption.txt", "txt"])
    named = {
        "image": ModalityConfig(Kind.image, [8, 8], member=image),
        "caption": ModalityConfig(Kind.text, member=caption),
    }
    assert check_split(settings(first, more_paths=[str(second)], modalities=named), "train").samples == 7


def test_extensions_of_another_kind_and_huge_members_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("split", "index_columns"):
        monkeypatch.setattr(f"mmpretrain.data.{module}.MAX_ENCODED_BYTES", 1 << 20)
    odd = [
        ("a.image.npy", b"1"),
        ("a.caption.txt", b"1"),
        ("b.image.png", bytes((1 << 20) + 1)),
        ("b.caption.txt", b"1"),
    ]
    shards(tmp_path / "train", [*members(6, "image.png", "caption.txt"), *odd])
    found = " ".join(check_split(settings(tmp_path), "train").problems)
    assert "1 of 8 samples have image not of kind image (first: key 'a'" in found
    assert "1 of 8 samples have image above 1 MiB (first: key 'b'" in found


def test_data_that_would_not_be_read_is_named(tmp_path: Path) -> None:
    folder = shards(tmp_path / "train", members())
    (folder / "00001.tar.gz").write_bytes(gzip.compress(b"x"))
    (folder / "._00000.tar").write_bytes(b"Mac OS X")
    (folder / "more").mkdir()
    write_tar(folder / "more" / "0.tar", members())
    problems = check_split(settings(tmp_path), "train").problems
    assert len(problems) == 2 and "00001.tar.gz would not be read" in problems[0]
    assert "more/0.tar would not be read, because it lies in a sub-folder" in problems[1]
    ignoring = check_split(settings(tmp_path, unread=Unread.ignore), "train")
    assert ignoring.problems == () and len(ignoring.notes) == 2


def test_labels_out_of_range_are_found(tmp_path: Path) -> None:
    rows = [
        (f"{n:03d}.{name}", content)
        for n in range(50)
        for name, content in (("jpg", b"1"), ("txt", b"1"), ("cls", b"%d" % (n % 5)))
    ]
    shards(tmp_path / "train", rows)
    (problem,) = check_split(settings(tmp_path, classes=3), "train").problems
    assert "20 of 50 labels cannot be used ('003': cls: class 3 is not below data.classes=3)" in problem
    assert check_split(settings(tmp_path, classes=5), "train").problems == ()
    meta = [(name, json.dumps({"y": 1}).encode() if name.endswith("cls") else content) for name, content in rows]
    shards(tmp_path / "train", meta)
    labelled = settings(tmp_path, classes=3, label=LabelConfig(["cls"], "y"))
    assert check_split(labelled, "train").problems == ()


def test_a_split_on_a_web_server_is_checked_without_a_listing(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    for name in ("00000", "00001"):
        folder.mkdir(exist_ok=True)
        write_tar(folder / f"{name}.tar", members())
    build_index(folder)
    with served(tmp_path) as store:
        assert check_split(settings(store.url), "train").problems == ()
        (folder / "00001.tar").write_bytes(b"x" * 512)
        (folder / "columns" / "00000.safetensors").unlink()
        resized, lost = check_split(settings(store.url), "train").problems
    assert "00001.tar has 512 bytes" in resized and "upload that again" in resized
    assert "columns of 1 of 2 shards are missing" in lost


def test_each_kind_of_trouble_with_files_gives_one_sentence(tmp_path: Path) -> None:
    folder, data = tmp_path / "train", settings(tmp_path, build="make data")
    assert check_split(data, "train").problems == (f"{folder}/index.json is missing: run `make data`",)
    folder.mkdir()
    write_tar(folder / "a.tar", members())
    assert "mmpretrain shards index" in check_split(data, "train").problems[0]
    build_index(folder)
    assert check_split(data, "train").problems == ()
    (folder / "a.tar").write_bytes(b"x" * 512)
    write_tar(folder / "new.tar", members())
    problems = check_split(data, "train").problems
    assert "a.tar has 512 bytes" in problems[0] and "make data" in problems[0]
    assert "new.tar is not in the index" in problems[1]
    (folder / "a.tar").unlink()
    advice = f"restore it, or run `mmpretrain shards index {folder}` if the change is meant"
    assert f"a.tar is missing: {advice}" in check_split(settings(tmp_path), "train").problems[0]
    shards(tmp_path / "empty" / "train", [])
    assert "has no samples" in check_split(settings(tmp_path / "empty"), "train").problems[0]


def test_a_remote_split_is_checked_alike(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    shards(tmp_path / "train", members())
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/remote-split", recursive=True)
    try:
        index = open_split(settings("memory://remote-split"), "train").index
        assert len(index) == 4 and index.path(index.shards[0]) == "memory://remote-split/train/00000.tar"
        assert check_split(settings("memory://remote-split"), "train").problems == ()
        assert "is missing" in check_split(settings("memory://nowhere"), "train").problems[0]
    finally:
        memory.rm("/remote-split", recursive=True)
