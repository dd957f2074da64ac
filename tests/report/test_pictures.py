"""Grids and maps as the template gets them."""

from __future__ import annotations

import json
from pathlib import Path

from mmpretrain.report.pictures import embedding_map, grids
from mmpretrain.report.record import read_record
from tests.report.made_up import write_run


def test_a_grid_has_the_query_its_pair_and_what_was_found(tmp_path: Path) -> None:
    (grid,) = grids(read_record(write_run(tmp_path / "a", "grid"), "a"))
    assert [[cell.style for cell in row] for row in grid.rows] == [
        ["query", "query", "pair", "same"],
        ["query", "query", "wrong", "wrong"],
    ]
    assert grid.says == "of 2 queries 1 have their own pair among the 2 nearest"
    assert (
        grid.rows[0][0].picture is not None and grid.rows[0][1].picture is None and grid.rows[1][2].text.endswith("2")
    )


def test_a_map_has_colors_of_classes_and_shapes_of_modalities(tmp_path: Path) -> None:
    """A sample without a modality has no point of it."""
    found = embedding_map(read_record(write_run(tmp_path / "a", "map"), "a"))
    assert found is not None and len(found.points) == 3 and found.views == ["50 % and 25 %"] * 2
    assert [point.shape for point in found.points] == ["circle", "circle", "square"]
    assert found.points[0].style == found.points[2].style != found.points[1].style
    assert found.points[0].views[0] == (54.7, 97.0) and found.note == "2 of 40 samples of test"


def test_a_map_that_holds_something_else_is_left_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", "map")
    whole = json.loads((folder / "embeddings_map.json").read_text())
    damages: tuple[dict[str, object], ...] = (
        {"views": {}},
        {"modalities": [1, 2, 3]},
        {"labels": ["x"]},
        {"ordinals": None},
    )
    for damage in damages:
        (folder / "embeddings_map.json").write_text(json.dumps({**whole, **damage}))
        record = read_record(folder, "a")
        assert embedding_map(record) is None and "embeddings_map.json" in record.notes[0]
