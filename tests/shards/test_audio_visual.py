"""`shards build audio-visual`: sounds, pictures and captions find one another by their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.shards.drawn import build, contents, csv_text, files, picture, refusal, tone

SEEN = {"frames/a1.jpg": picture(1, "JPEG"), "audio/a1.wav": tone(1), "frames/b2.jpg": picture(2, "JPEG")}
SEEN |= {"audio/b2.wav": tone(2), "audio/c3.wav": tone(3), "frames/.d4.jpg": b"x"}


def test_flickr_soundnet_pairs_by_stem_and_names_what_lacks_a_counterpart(tmp_path: Path) -> None:
    answer = build("audio-visual", "flickr-soundnet", files(tmp_path / "in", SEEN), tmp_path / "out")
    found = contents(tmp_path / "out" / "train")
    assert found == {
        "a1": {"image.jpg": SEEN["frames/a1.jpg"], "sound.wav": tone(1)},
        "b2": {"image.jpg": SEEN["frames/b2.jpg"], "sound.wav": tone(2)},
    }
    assert "samples without image" in str(answer) and "c3" in str(answer)


def test_ave_takes_the_annotated_videos_with_their_category(tmp_path: Path) -> None:
    lines = "Category&VideoID&Quality&StartTime&EndTime\nTrain horn&b2&good&0&10\nBark&a1&good&1&9\nBark&zz&good&1&9\n"
    files(tmp_path, {"Annotations.txt": lines})
    folder = files(tmp_path / "in", SEEN)
    build("audio-visual", "ave", folder, tmp_path / "out", "--annotations", tmp_path / "Annotations.txt")
    found = contents(tmp_path / "out" / "train")
    assert {key: sample["label.cls"] for key, sample in found.items()} == {"a1": b"0", "b2": b"1"}
    files(tmp_path, {"odd.txt": "Train horn,b2\n"})
    message = refusal("audio-visual", "ave", folder, tmp_path / "odd", "--annotations", tmp_path / "odd.txt")
    assert "line 1: 'Train horn,b2' is not Category&VideoID&" in message


def test_audiocaps_keeps_all_captions_of_a_clip_together(tmp_path: Path) -> None:
    rows: list[Sequence[object]] = [
        ["audiocap_id", "youtube_id", "start_time", "caption"],
        [7, "a1", 0, "a dog"],
        [8, "a1", 0, "barking"],
    ]
    rows += [[9, "q", 0, "rain"], [10, "gone", 0, "wind"]]
    files(tmp_path, {"test.csv": csv_text(rows)})
    folder = files(tmp_path / "in", {"Ya1.wav": tone(1), "9.wav": tone(2)})
    build("audio-visual", "audiocaps", folder, tmp_path / "out", "--annotations", tmp_path / "test.csv")
    found = contents(tmp_path / "out" / "train")
    assert found["a1"] == {"sound.wav": tone(1), "caption.json": b'["a dog", "barking"]'}
    assert found["q"] == {"sound.wav": tone(2), "caption.txt": b"rain"} and found.keys() == {"a1", "q"}


def test_what_cannot_be_built_is_said(tmp_path: Path) -> None:
    folder = files(tmp_path / "in", {"a.wav": tone(1)})
    assert "is no folder" in refusal("audio-visual", "ave", tmp_path / "nowhere", tmp_path / "out")
    assert "ave needs --annotations FILE" in refusal("audio-visual", "ave", folder, tmp_path / "out")
    assert "0 pictures and 1 sounds" in refusal("audio-visual", "flickr-soundnet", folder, tmp_path / "out")
