"""`shards build folder`: what people have in folders becomes shards, and nothing is lost in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.data.info import load_info
from tests.shards.drawn import build, captioned, contents, csv_text, files, json_lines, picture, refusal, tone

LAYOUTS: dict[str, tuple[dict[str, str | bytes], dict[str, dict[str, bytes]]]] = {
    "metadata.csv": (
        {"metadata.csv": csv_text([["file_name", "caption"], ["a/1.png", "one, of two"], ["a/2.png", "two"]])}
        | {"a/1.png": picture(1), "a/2.png": picture(2)},
        {"a/1": {"caption.txt": b"one, of two", "image.png": picture(1)}, "a/2": {"caption.txt": b"two"}},
    ),
    "metadata.jsonl with several captions": (
        {"metadata.jsonl": json_lines([{"file_name": "1.png", "text": ["one", "eins"]}]), "1.png": picture(1)},
        {"1": {"text.json": b'["one", "eins"]', "image.png": picture(1)}},
    ),
    "two columns of files": (
        {"metadata.jsonl": json_lines([{"left_file_name": "l.png", "right_file_name": "r.jpg", "caption": "x"}])}
        | {"l.png": picture(1), "r.jpg": picture(2, "JPEG")},
        {"l": {"left.png": picture(1), "right.jpg": picture(2, "JPEG"), "caption.txt": b"x"}},
    ),
    "metadata in sub-folders": (
        {f"{d}/metadata.csv": csv_text([["file_name", "label"], ["1.png", d]]) for d in ("x", "y")}
        | {f"{d}/1.png": picture(n) for n, d in enumerate(("x", "y"))},
        {"x/1": {"image.png": picture(0), "label.cls": b"0"}, "y/1": {"image.png": picture(1), "label.cls": b"1"}},
    ),
    "classes as sub-folders": (
        {"dog/1.png": picture(1), "cat/1.png": picture(2), "cat/none.webp": picture(3, "WEBP")},
        {
            "cat/1": {"image.png": picture(2), "label.cls": b"0"},
            "cat/none": {"image.webp": picture(3, "WEBP"), "label.cls": b"0"},
            "dog/1": {"image.png": picture(1), "label.cls": b"1"},
        },
    ),
    "pairs by stem": (
        {"00/1.jpg": picture(1, "JPEG"), "00/1.txt": "\ufeffone\n", "01/2.JPG": picture(2, "JPEG"), "01/2.txt": "two"},
        {"00/1": {"image.jpg": picture(1, "JPEG"), "caption.txt": b"one"}, "01/2": {"caption.txt": b"two"}},
    ),
    "sounds with captions": (
        {"1.wav": tone(1), "1.txt": "low"},
        {"1": {"sound.wav": tone(1), "caption.txt": b"low"}},
    ),
    "texts by class": (
        {"neg/1.txt": "bad", "pos/1.txt": "good"},
        {"neg/1": {"caption.txt": b"bad", "label.cls": b"0"}, "pos/1": {"caption.txt": b"good", "label.cls": b"1"}},
    ),
    "an extension that lies": ({"1.jpg": picture(1, "GIF")}, {"1": {"image.gif": picture(1, "GIF")}}),
    "two images of one stem": (
        {"1.jpg": picture(1, "JPEG"), "1.png": picture(2), "1.txt": "x"},
        {"1": {"image.jpg": picture(1, "JPEG"), "caption.txt": b"x"}, "1~2": {"image.png": picture(2)}},
    ),
    "dots, spaces and other scripts in names": (
        {"v1.0/my photo.final.png": picture(1), "v1.0/猫\u3000é.png": picture(2)},
        {"v1_0/my_photo_final": {"image.png": picture(1)}, "v1_0/猫_é": {"image.png": picture(2)}},
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_as_people_have_them(name: str, tmp_path: Path) -> None:
    """Keys, members, labels, and the bytes of images and sounds, which do not change."""
    given, expected = LAYOUTS[name]
    build("folder", files(tmp_path / "source", given), tmp_path / "out")
    found = contents(tmp_path / "out" / "train")
    assert list(found) == list(expected)
    for key, members in expected.items():
        assert members.items() <= found[key].items()


def test_splits_that_are_there_are_kept(tmp_path: Path) -> None:
    """train/ and test/ below the source; keys do not repeat them, and classes are the same in both."""
    given = {f"{split}/{c}/1.png": picture(n) for n, (split, c) in enumerate([("train", "a"), ("train", "b")])}
    answer = build("folder", files(tmp_path / "s", given | {"test/b/1.png": picture(9)}), tmp_path / "out")
    assert answer["samples"] == {"train": 2, "test": 1}
    assert contents(tmp_path / "out/test") == {"b/1": {"image.png": picture(9), "label.cls": b"1"}}
    assert "has a split of this name" in refusal("folder", tmp_path / "s", tmp_path / "o2", "--split", "test=0.5")


@pytest.mark.parametrize("below", ["", "cat/"])
def test_folders_beside_those_of_splits_make_no_heap_of_them(below: str, tmp_path: Path) -> None:
    """What is held out is not trained on, and the name of a split is no class."""
    given = {f"{split}/{below}{n}.png": picture(n) for n, split in enumerate(["train", "train", "test", "test"])}
    source = files(tmp_path / "s", given | {"annotations/notes.json": "{}"})
    answer = build("folder", source, tmp_path / "out")
    assert answer["samples"] == {"train": 2, "test": 2} and answer["report"]["classes"] is None
    notes = answer["report"]["notes"]
    assert notes["folders beside those of the splits are not read"]["examples"] == ["annotations"]
    answer = build("folder", files(source, {"logo.png": picture(9)}), tmp_path / "o2")
    assert answer["samples"] == {"train": 2, "test": 2}
    assert answer["report"]["notes"]["files beside the folders of the splits are not read"]["examples"] == ["logo.png"]
    files(source, {"metadata.csv": "file_name,caption\n"})
    assert "lies beside the folders of the splits" in refusal("folder", source, tmp_path / "o3")


def test_dataset_json_says_what_models_need(tmp_path: Path) -> None:
    """Kinds, size, channels by the images themselves, longest text, and the names of classes."""
    rows = [{"file_name": f"{n}.png", "sound_file_name": "1.wav", "caption": "c", "class": n} for n in (2, 10)]
    given: dict[str, str | bytes] = {"metadata.jsonl": json_lines(rows), "1.wav": tone(1)}
    given |= {f"{n}.png": picture(n, mode="L") for n in (2, 10)}
    source = files(tmp_path / "s", given)
    build("folder", source, tmp_path / "out", "--image-size", "32x48")
    info = load_info(tmp_path / "out")
    assert info.modalities == {
        "image": {"kind": "image", "size": [32, 48], "channels": 1},
        "sound": {"kind": "audio", "seconds": 5.0},
        "caption": {"kind": "text"},
    }
    assert info.classes == ["2", "10"]  # by number, not by letter
    build("folder", source, tmp_path / "plain")
    assert load_info(tmp_path / "plain").modalities["image"]["size"] == [64, 64]


def test_nothing_is_left_out_in_silence(tmp_path: Path) -> None:
    """Droppings, strangers, missing, broken and empty files, each with its reason and its name."""
    rows = [["file_name", "caption"], *([f"{n}.png", "c"] for n in range(4)), ["page.jpg", "c"], ["gone.png", "c"]]
    rows += [["4.png", "\u200b"], ["../secret.png", "c"], ["empty.png", "c"], ["1.png", "c", "too many"]]
    given: dict[str, bytes | str] = {f"{n}.png": picture(n) for n in range(5)}
    given |= {"metadata.csv": csv_text(rows), "page.jpg": "<!DOCTYPE html><html>404</html>", "empty.png": b""}
    given |= {"._0.png": b"\0\5", ".DS_Store": b"x", "__MACOSX/0.png": b"x", "Thumbs.db": b"x", "notes.pdf": b"%PDF"}
    files(tmp_path, {"secret.png": picture(9)})
    report = build("folder", files(tmp_path / "s", given), tmp_path / "out")["report"]
    assert (report["read"], report["written"]) == (9, 4)
    assert {reason: entry["count"] for reason, entry in report["dropped"].items()} == {
        "image: not an image": 1,
        "image: file is missing": 1,
        "caption: empty text": 1,
        "image: missing": 1,
        "image: empty (0 bytes)": 1,
    }
    assert report["dropped"]["image: not an image"]["examples"] == [
        "page.jpg: not an image (starts with `<!DOCTYPE html`)"
    ]
    notes = {reason: entry["examples"] for reason, entry in report["notes"].items()}
    assert notes["hidden files and what file managers leave behind are skipped"] == [
        ".DS_Store",
        "._0.png",
        "Thumbs.db",
        "__MACOSX",
    ]
    assert notes["files of other kinds are ignored"] == ["notes.pdf"]
    assert notes["a file_name that leads out of its folder"] == ["metadata.csv line 9: ../secret.png"]
    assert notes["rows with more or fewer cells than the header"] == ["metadata.csv line 11: 3 cells"]


def test_a_few_files_that_are_not_read_do_not_turn_paths_into_texts(tmp_path: Path) -> None:
    rows = [["file_name", "caption"], ["a.wav", "x"], ["b.mp3", "y"], ["c.m4a", "z"]]
    source = files(
        tmp_path / "in", {"metadata.csv": csv_text(rows), "a.wav": tone(1), "b.mp3": tone(2), "c.m4a": b"m4a"}
    )
    report = build("folder", source, tmp_path / "out")["report"]
    assert report["modalities"] == {"sound": {"kind": "audio", "seconds": 5.0}, "caption": {"kind": "text"}}
    assert report["samples"] == {"train": 2} and "sound: not a sound" in report["dropped"]


def test_incomplete_samples_can_be_kept(tmp_path: Path) -> None:
    """Pairs of which one side is missing: left out and named, or written as they are."""
    source = files(tmp_path / "s", {"1.png": picture(1), "1.txt": "one", "2.png": picture(2), "3.txt": "three"})
    report = build("folder", source, tmp_path / "dropped")["report"]
    assert report["dropped"] == {
        "caption: missing": {"count": 1, "examples": ["2.png: missing"]},
        "image: missing": {"count": 1, "examples": ["3.txt: missing"]},
    }
    build("folder", source, tmp_path / "kept", "--incomplete", "keep")
    assert {key: set(members) for key, members in contents(tmp_path / "kept/train").items()} == {
        "1": {"image.png", "caption.txt"},
        "2": {"image.png"},
        "3": {"caption.txt"},
    }


def test_sub_folders_of_pairs_are_classes_only_if_asked(tmp_path: Path) -> None:
    """They may be chunks of a download; the report says so."""
    source = files(tmp_path / "s", {f"{c}/1.{e}": b for c in "ab" for e, b in (("png", picture(1)), ("txt", b"x"))})
    report = build("folder", source, tmp_path / "out")["report"]
    assert report["classes"] is None and any("--classes takes them" in note for note in report["notes"])
    assert build("folder", source, tmp_path / "o2", "--classes")["report"]["labels"] == {"train": {"0": 1, "1": 1}}


def test_what_is_refused_and_why(tmp_path: Path) -> None:
    """One sentence that names the thing and the fix."""
    source, out = captioned(tmp_path / "s", 3), tmp_path / "out"
    assert "is no folder" in refusal("folder", tmp_path / "none", out)
    assert "is a remote address: fetch it first" in refusal("folder", "https://example.org/photos", out)
    assert "choose an OUT outside" in refusal("folder", source, source / "shards")
    assert "no images, sounds or texts" in refusal("folder", files(tmp_path / "e", {"a.pdf": b"x"}), out)
    assert "did you mean caption" in refusal("folder", source, out, "--label", "captoin")
    assert "NAME=SHARE" in refusal("folder", source, out, "--split", "test=2")
    assert "--image-size 0" in refusal("folder", source, out, "--image-size", "0")
    assert "would be empty" in refusal("folder", source, out, "--split", "test=0.0001")
    assert "NAME=COLUMN" in refusal("folder", source, out, "--modality", "image")
    (source / "metadata.csv").write_text("name,caption\n1.png,x\n")
    assert "no column file_name" in refusal("folder", source, out)
    files(source, {"images/metadata.jsonl": "{}\n"})
    assert "keep one form" in refusal("folder", source, out)
    assert not out.exists() and not list(tmp_path.glob(".out*"))
