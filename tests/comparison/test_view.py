"""What the terminal shows: scores beside chance, what was left out and why."""

from __future__ import annotations

from rich.console import Console

from mmpretrain.comparison.view import result_view
from tests.comparison.results import made_up


def printed(*, full: bool = False, width: int = 120, **values: float | None) -> str:
    """The view as a terminal shows it, without styles."""
    console = Console(width=120, record=True)
    with console.capture() as shown:
        console.print(result_view(made_up(**values), ["out/evaluate.json"], full=full, width=width))
    return shown.get()


def test_scores_stand_beside_chance_and_half_of_their_interval() -> None:
    text = printed(clip=0.5, comm=None)
    row = next(line for line in text.splitlines() if line.startswith("left->caption"))
    assert row.split() == ["left->caption", "recall@1", "50.0", "±10.0", "-", "20.0"]
    assert "no retrieval of comm: needs two modalities" in text
    assert "clip embeds left by its tower image, caption" in text
    assert "1 samples of test cannot be read and count for no model" in text and "9 samples of test" in text
    assert "bold" in text and "out/evaluate.json" in text and "--full" in text


def test_a_narrow_terminal_shows_the_scores_alone() -> None:
    text = printed(width=80, a=0.5, b=0.6, c=0.7)
    row = next(line for line in text.splitlines() if line.startswith("left->caption"))
    assert row.split() == ["left->caption", "recall@1", "50.0", "60.0", "70.0", "20.0"] and "±" not in text


def test_one_model_has_nothing_to_be_better_than_and_full_shows_all() -> None:
    text = printed(clip=0.5, full=True)
    assert "bold" not in text and "--full" not in text
    assert "recall/zero" in text and "median_rank" in text and "recall/zero" not in printed(clip=0.5)
