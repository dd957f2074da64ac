"""Splits of tables: a file for each, or a column that says it."""

from __future__ import annotations

from pathlib import Path

from tests.shards.drawn import build, contents, csv_text, files, json_lines, picture, refusal

OPTIONS = ["--modality", "image=image", "--modality", "text=plot"]


def table(folder: Path, name: str, numbers: list[int], splits: list[str] | None = None) -> Path:
    """A table with the pictures of these numbers."""
    rows = [["image", "plot", "part"], *([f"{n}.png", f"plot {n}", (splits or [""] * 99)[n]] for n in numbers)]
    files(folder, {name: csv_text(rows)} | {f"{n}.png": picture(n) for n in numbers})
    return folder / name


def test_a_column_says_the_split(tmp_path: Path) -> None:
    source = table(tmp_path, "t.csv", list(range(6)), ["train", "dev", "test", "train", "test", "train"])
    done = build("table", source, tmp_path / "out", *OPTIONS, "--split-column", "part", "--shard-size", "2")
    assert done["samples"] == {"train": 3, "test": 2, "validation": 1}
    assert list(contents(tmp_path / "out/train")) == ["0", "3", "5"]
    assert contents(tmp_path / "out/test")["4"]["text.txt"] == b"plot 4"
    again = build("table", source, tmp_path / "out", *OPTIONS, "--split-column", "part", "--shard-size", "2")
    assert again["outcome"] == "unchanged"


def test_a_file_for_each_split(tmp_path: Path) -> None:
    train, test = table(tmp_path, "a.csv", [0, 1, 2]), table(tmp_path, "b.csv", [3, 4])
    done = build("table", f"train={train}", f"dev={test}", tmp_path / "out", *OPTIONS)
    assert done["samples"] == {"train": 3, "validation": 2}
    assert list(contents(tmp_path / "out/validation")) == ["3", "4"]


def test_what_leaves_a_split_open_is_refused(tmp_path: Path) -> None:
    source = table(tmp_path, "t.csv", [0, 1], ["train", ""])
    out = tmp_path / "out"
    assert "says no split" in refusal("table", source, out, *OPTIONS, "--split-column", "part")
    assert "has no column 'fold'" in refusal("table", source, out, *OPTIONS, "--split-column", "fold")
    assert "each file is written SPLIT=FILE" in refusal("table", f"train={source}", source, out, *OPTIONS)
    named = ["table", f"train={source}", f"test={source}", out, *OPTIONS, "--split-column", "part"]
    assert "the files name their splits already" in refusal(*named)


def test_a_gap_that_json_writes_as_nan_is_no_split(tmp_path: Path) -> None:
    rows = [{"image": f"{n}.png", "plot": f"plot {n}", "part": part} for n, part in enumerate(["train", float("nan")])]
    files(tmp_path, {"t.jsonl": json_lines(rows)} | {f"{n}.png": picture(n) for n in range(2)})
    source = tmp_path / "t.jsonl"
    assert "says no split" in refusal("table", source, tmp_path / "out", *OPTIONS, "--split-column", "part")
