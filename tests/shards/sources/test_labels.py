"""Labels of tables: several classes and measured values, beside one class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmpretrain.data.writing import BuildError
from shards.sources.labels import class_names
from tests.shards.drawn import build, contents, csv_text, files, json_lines, picture, refusal

GENRES = [["Drama", "Comedy"], ["Comedy"], [], ["War", "Drama"]]


def table(folder: Path, cells: list[object], form: str) -> Path:
    """A table of pictures with a plot and ``genres``."""
    rows = [{"image": f"{n}.png", "plot": f"plot {n}", "genres": cell} for n, cell in enumerate(cells)]
    text = json_lines(rows) if form == "jsonl" else csv_text([list(rows[0]), *(list(row.values()) for row in rows)])
    files(folder, {f"t.{form}": text} | {f"{n}.png": picture(n) for n in range(len(cells))})
    return folder / f"t.{form}"


@pytest.mark.parametrize("form", ["jsonl", "json in cells", "bars in cells"])
def test_several_classes_are_numbered_together(tmp_path: Path, form: str) -> None:
    cells: list[object] = list(GENRES)
    if form == "json in cells":
        cells = [json.dumps(genres) for genres in GENRES]
    elif form == "bars in cells":
        cells = ["|".join(genres) or "[]" for genres in GENRES]
    source = table(tmp_path, cells, "jsonl" if form == "jsonl" else "csv")
    options = ["--modality", "image=image", "--modality", "text=plot", "--label", "genres", "--label-form", "several"]
    report = build("table", source, tmp_path / "out", *options)["report"]
    assert json.loads((tmp_path / "out/dataset.json").read_text())["classes"] == ["Comedy", "Drama", "War"]
    found = [sample["label.cls"] for sample in contents(tmp_path / "out/train").values()]
    assert found == [b"[0, 1]", b"[0]", b"[]", b"[1, 2]"]
    assert report["labels"]["train"] == {"0": 2, "1": 2, "2": 1}
    assert any("data.label.form=several" in note for note in report["notes"])


def test_measured_values_are_written_as_they_are(tmp_path: Path) -> None:
    options = ["--modality", "image=image", "--modality", "text=plot", "--label", "genres", "--label-form", "value"]
    build("table", table(tmp_path, [0.5, -2, 3, 1e-3], "jsonl"), tmp_path / "out", *options)
    found = [float(sample["label.cls"]) for sample in contents(tmp_path / "out/train").values()]
    assert found == [0.5, -2, 3, 1e-3]
    assert json.loads((tmp_path / "out/dataset.json").read_text())["classes"] is None
    (tmp_path / "other").mkdir()
    message = refusal("table", table(tmp_path / "other", [0.5, "many"], "csv"), tmp_path / "bad", *options)
    assert "label 'many' is no number" in message


def test_a_form_without_a_column_is_refused(tmp_path: Path) -> None:
    source = table(tmp_path, list(GENRES), "jsonl")
    options = ["--modality", "image=image", "--modality", "text=plot", "--label-form", "several"]
    assert "name the column of labels by --label" in refusal("table", source, tmp_path / "out", *options)


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("[1, 2]", ["1", "2"]),
        ('["Drama", 3]', ["Drama", "3"]),
        ("['Drama', 3.0, None]", ["Drama", "3"]),
        (" [] ", []),
        ([1, "War", 1], ["1", "War"]),
        ("Drama | War", ["Drama", "War"]),
        ("", None),
    ],
)
def test_a_list_in_a_cell_is_its_entries_whatever_their_types(cell: object, names: list[str] | None) -> None:
    assert class_names("row 1", cell) == names


@pytest.mark.parametrize("cell", ["['a' 'b']", "[1 2]", "[Drama]", '["Drama", "War', '[["Drama"]]', [["Drama"]]])
def test_a_cell_that_begins_as_a_list_and_is_none_is_refused(cell: object) -> None:
    with pytest.raises(BuildError, match=r"row 1: label .* is no list of classes: write it as JSON"):
        class_names("row 1", cell)
