"""Pictures of explained samples, kind by kind: one scale per row, and nothing where a part has no weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from mmpretrain.config.kind import Kind
from mmpretrain.explain.attribution_maps import ExplainedSide
from mmpretrain.explain.explain_figures import draw_side
from mmpretrain.explain.map_shares import described, largest, part_maps
from mmpretrain.explain.side_figures import colored

DRAW = np.random.default_rng(0)
PICTURE = ExplainedSide(
    Kind.image, Image.linear_gradient("L").resize((8, 4)), np.abs(DRAW.normal(size=(3, 4, 8))), np.ones((3, 4, 8))
)
TEXT = ExplainedSide(
    Kind.text,
    "a seven",
    np.array([[60.0, 0], [0, 1], [0, 3]]),
    np.ones((3, 2)),
    ("[CLS]", "a", "seven"),
    (True, False, False),
)
SIDES = {
    "image": PICTURE,
    "text": TEXT,
    "vector": ExplainedSide(Kind.vector, np.arange(30.0), np.arange(30.0), -np.arange(30.0)),
    "sequence": ExplainedSide(Kind.sequence, np.ones((6, 3)), np.ones((6, 3)), np.ones((6, 3))),
    "spectrogram": ExplainedSide(Kind.audio, DRAW.normal(size=(20, 8)), np.ones((20, 8)), np.ones((20, 8))),
    "waveform": ExplainedSide(Kind.audio, DRAW.normal(size=900), np.ones(900), np.arange(900.0)),
}


def drawn(side: ExplainedSide, own: float) -> list[Any]:
    """Input, common map, own map and scale."""
    axes = Figure(layout="constrained").subplots(1, 4)
    draw_side(axes.tolist(), side, own, ("left", "right"), ())
    return axes.tolist()


def texts(axes: Any) -> list[str]:
    """All that is written within axes."""
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("name", SIDES)
def test_every_kind_is_drawn_and_says_what_is_seen(name: str) -> None:
    axes = drawn(SIDES[name], 0.25)
    for panel in axes[:3]:
        assert panel.images or panel.patches or panel.texts or panel.collections
        assert panel.get_xlabel().endswith(".")
    assert "common with right (75 %)" in axes[1].get_title(loc="left")
    assert "25 % of this" in axes[2].get_xlabel().replace("\n", " ")


@pytest.mark.parametrize("name", SIDES)
def test_a_part_without_weight_is_drawn_as_such(name: str) -> None:
    axes = drawn(SIDES[name], 0.001)
    assert "no weight" in texts(axes[2]) and "no weight" not in texts(axes[1])
    assert "No weight: 0 % of this embedding is its own, so nothing is drawn." in axes[2].get_xlabel().replace(
        "\n", " "
    )
    if name == "image":
        assert (axes[2].images[0].get_array() == 1).all()  # white; the contours say what is there
        assert axes[2].collections and float(axes[1].images[0].get_array().min()) < 0.7


def test_both_maps_of_a_row_share_one_scale() -> None:
    """A quarter of the weight is a quarter of the strength where both are spread alike, whatever the gradients are."""
    even = ExplainedSide(Kind.image, Image.new("L", (8, 4), 9), 1e6 * np.ones((3, 4, 8)), 1e-6 * np.ones((3, 4, 8)))
    axes = drawn(even, 0.2)
    common, own = (np.asarray(panel.images[0].get_array()) for panel in axes[1:3])
    strengths = [1 - shown[0, 0, 0] for shown in (common, own)]
    assert strengths[0] == pytest.approx(1)  # the first color has no red at all
    blue, orange = ((1 - shown[0, 0]).sum() for shown in (common, own))
    full = (1 - colored(np.ones((1, 1)), np.ones((1, 1)), "#D55E00")).sum()
    assert orange / full == pytest.approx(0.25) and blue > orange
    assert axes[3].images and axes[3].get_yticks()[-1] == pytest.approx(100 * 0.8 / 32)


def test_shares_of_both_maps_sum_to_one() -> None:
    for side in SIDES.values():
        maps = part_maps(side, 0.3)
        assert sum(float(part.shares.sum()) for part in maps) == pytest.approx(1)
        assert maps[0].weight == 0.7
    signed = part_maps(SIDES["vector"], 0.3)[1].signed
    assert (signed <= 0).all() and signed[29] == pytest.approx(-0.3 * 29 / 435)


def test_tokens_of_the_tokenizer_are_set_apart() -> None:
    """They neither set the scale nor are they said to be the strongest."""
    common, own = part_maps(TEXT, 0.0)
    assert largest(TEXT, (common, own)) == pytest.approx(3 / 64)
    assert "most of all 'seven' (5 % of the map)" in described(TEXT, common, "its own", "Orange")
    axes = drawn(TEXT, 0.0)
    assert "added by the tokenizer: [CLS] 94 %" in texts(axes[1])
    assert "added by the tokenizer: [CLS]" in texts(axes[0]) and "added by the tokenizer: [CLS]" in texts(axes[2])


def test_sentences_say_where() -> None:
    corner = np.zeros((1, 9, 9))
    corner[0, 7:, 7:] = 1
    side = ExplainedSide(Kind.image, Image.new("L", (9, 9)), corner, corner)
    assert "densest in the lower right (100 % of the map)" in described(side, part_maps(side, 0.5)[0], "x", "Blue")
    late = np.r_[np.zeros(90), np.ones(10)]
    side = ExplainedSide(Kind.audio, late, late, late)
    assert "most at 90 to 100 % of the time (100 % of the map)" in described(side, part_maps(side, 1)[1], "x", "Orange")
    vector = SIDES["vector"]
    names = [f"gene{i}" for i in range(30)]
    assert "most of all gene29 (7 % of the map)" in described(vector, part_maps(vector, 0)[0], "x", "Blue", names)
