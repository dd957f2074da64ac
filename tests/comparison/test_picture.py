"""The picture shows the models that have something to show."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mmpretrain.comparison.picture import draw_comparison
from tests.comparison.results import made_up


def test_bars_of_all_models_in_panels_that_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Axes] = []
    legends: list[list[str]] = []

    def kept(figure: Figure, path: Path, dpi: int) -> None:
        drawn.extend(figure.axes)
        legends.append([text.get_text() for text in figure.legends[0].get_texts()])
        plain(figure, path, dpi=dpi)

    plain = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", kept)
    path = draw_comparison(made_up(**{"clip": 0.5, "someone/clip-" + 50 * "x": 0.6}), tmp_path / "out" / "evaluate.png")
    assert path is not None and Image.open(path).width == 1050
    assert [axes.get_title(loc="left") for axes in drawn] == [
        "Retrieval of the exact pair: recall@1",
        "Linear probe on frozen embeddings: accuracy",
    ]
    assert [label.get_text() for label in drawn[0].get_yticklabels()] == ["left → caption"]
    assert [len(axes.containers) for axes in drawn] == [2, 2]
    assert legends[0][0] == "clip" and len(legends[0][1]) <= 40 and legends[0][2:] == ["chance", "95 % interval"]


def test_nothing_to_show_leaves_no_picture_of_before(tmp_path: Path) -> None:
    (tmp_path / "evaluate.png").touch()
    assert draw_comparison(made_up(clip=None), tmp_path / "evaluate.png") is None
    assert not list(tmp_path.iterdir())
