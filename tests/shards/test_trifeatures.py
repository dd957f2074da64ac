"""Trifeatures: the published counts, pairs whose labels are true of them, and pixels that show what the labels say."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mmpretrain.data.factor_codes import decode_factors
from mmpretrain.data.index import load_index
from mmpretrain.data.info import load_info
from mmpretrain.data.reader import Reader
from mmpretrain.data.writing import BuildError, Outcome
from shards.cli import app
from shards.trifeatures import SIZES, build_trifeatures, choose_size, default_folder
from shards.trifeatures_pairs import (
    COLORS,
    PUBLISHED,
    SHAPES,
    SMALL,
    TEXTURES,
    Images,
    Levels,
    Pairs,
    allowed_pairs,
    choose_pairs,
    obeys,
    split_images,
)
from shards.trifeatures_render import render_coarse, render_published
from shards.trifeatures_shapes import BOX, coarse_texture, published_texture, shape_mask

FEW = replace(SIZES[5], levels=replace(SMALL, train_renderings=1, test_renderings=1), train=40, probe=30, test=50)


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small biased dataset."""
    out = tmp_path_factory.mktemp("data") / "biased"
    assert build_trifeatures(out, FEW, Pairs.biased).outcome is Outcome.built
    return out


def test_published_counts() -> None:
    """Images, pairs and M as the released code draws them with seed 42 (computed without rendering)."""
    train, test = split_images(PUBLISHED)
    mapping = PUBLISHED.mapping()
    assert (len(train), len(test)) == (2400, 200)
    assert np.bincount(test.shape).tolist() == [19, 26, 20, 19, 25, 15, 19, 18, 19, 20]
    counts = [len(allowed_pairs(images, mapping, pairs)) for images in (train, test) for pairs in Pairs]
    assert counts == [576_846, 57_636, 4_094, 404]
    colors = dict(zip(PUBLISHED.textures, (PUBLISHED.colors[c] for c in mapping), strict=True))
    assert colors == {
        "solid": "cyan",
        "stripes": "purple",
        "grid": "red",
        "hexgrid": "ocean",
        "dots": "yellow",
        "noise": "blue",
        "triangles": "pink",
        "zigzags": "white",
        "rain": "green",
        "pluses": "orange",
    }


def test_small_counts() -> None:
    train, test = split_images(SMALL)
    assert (len(train), len(test)) == (1600, 400)
    assert SMALL.mapping().tolist() == [4, 2, 3, 1, 0]


@pytest.mark.parametrize("levels", [PUBLISHED, SMALL], ids=["published", "small"])
def test_train_and_test_have_no_combination_in_common(levels: Levels) -> None:
    seen, held_out = ({*zip(i.shape, i.texture, i.color, strict=True)} for i in split_images(levels))
    assert not seen & held_out
    assert len(seen | held_out) == levels.count**3 and len(held_out) == levels.count**3 // 5


def test_pairs_have_one_shape_and_biased_ones_obey_the_mapping() -> None:
    train, _ = split_images(SMALL)
    mapping = SMALL.mapping()
    everything, obeying = (allowed_pairs(train, mapping, pairs) for pairs in Pairs)
    assert (train.shape[everything[:, 0]] == train.shape[everything[:, 1]]).all()
    assert obeys(train, obeying, mapping).all() and obeys(train, everything, mapping).sum() == len(obeying)
    chosen = choose_pairs(everything, 500, 3)
    assert len({*map(tuple, chosen.tolist())}) == 500
    assert np.array_equal(chosen, choose_pairs(everything, 500, 3))
    assert not np.array_equal(chosen, choose_pairs(everything, 500, 4))
    assert len(choose_pairs(obeying[:7], 500, 3)) == 7


def test_labels_are_true_of_the_pairs(biased: Path) -> None:
    """From the tars: sizes, synergy everywhere in train and not everywhere in the others, colors as labeled."""
    info = load_info(biased)
    assert info.factors == {"shape": 5, "texture1": 5, "texture2": 5, "colour1": 5, "colour2": 5, "synergy": 2}
    mapping, rgb = SMALL.mapping(), [COLORS[name] for name in SMALL.colors]
    synergy = {}
    for split, count in (("train", 40), ("probe", 30), ("test", 50)):
        reader = Reader(load_index(biased / split))
        samples = [reader.sample(i) for i in range(len(reader.index))]
        reader.close()
        assert len(samples) == count
        values = decode_factors(np.array([int(sample["label.cls"]) for sample in samples]), info.factors)
        assert np.array_equal(values["synergy"], values["colour2"] == mapping[values["texture1"]])
        synergy[split] = values["synergy"].mean()
        for sample, first, second in zip(samples[:9], values["colour1"], values["colour2"], strict=False):
            for name, color in (("first.png", first), ("second.png", second)):
                image = Image.open(io.BytesIO(sample[name]))
                pixels = np.asarray(image).reshape(-1, 3) / 255
                assert image.size == (40, 40)
                assert pixels[np.abs(pixels - 0.5).sum(axis=1).argmax()] == pytest.approx(rgb[color], abs=0.1)
    assert synergy["train"] == 1 and 0 < synergy["probe"] < 0.5 and 0 < synergy["test"] < 0.5


def test_biased_and_unbiased_share_probe_and_test(biased: Path, tmp_path: Path) -> None:
    other = build_trifeatures(tmp_path / "unbiased", FEW, Pairs.unbiased)
    assert [other.fingerprints[s] == load_index(biased / s).fingerprint for s in ("train", "probe", "test")] == [
        False,
        True,
        True,
    ]


def test_rebuild_is_identical(biased: Path) -> None:
    assert build_trifeatures(biased, FEW, Pairs.biased).outcome is Outcome.unchanged
    with pytest.raises(BuildError, match="holds the dataset 'trifeatures-5-biased'"):
        build_trifeatures(biased, FEW, Pairs.unbiased)


def test_shapes_cover_what_their_names_say() -> None:
    """Areas from geometry, to a percent of the box; every shape touches its bottom row or the middle of it."""
    third = 1 - 2 * 21.5 / 64 + (21.5 / 64) ** 2  # of the box beside the arms of the plus
    areas = {"square": 1, "circle": np.pi / 4, "triangle": 0.5, "rhombus": 0.5, "plus": 1 - third, "fivesquare": 5 / 9}
    for name, area in areas.items():
        assert shape_mask(name).mean() == pytest.approx(area, abs=0.012), name
    masks = [shape_mask(name) for name in SHAPES]
    assert all(mask.shape == (BOX, BOX) for mask in masks)
    for a in range(len(masks)):
        for b in range(a):
            assert (masks[a] != masks[b]).mean() > 0.1, (SHAPES[a], SHAPES[b])
    star, pentagon = shape_mask("star"), shape_mask("pentagon")
    assert not (star & ~pentagon).mean() > 0.02 and star.mean() < 0.5 * pentagon.mean()


def test_textures_cover_what_their_formulas_say() -> None:
    draw = np.random.default_rng(0)
    shares = {name: published_texture(name, 400, (3, 7), draw).mean() for name in TEXTURES}
    known = {"solid": 1, "stripes": 0.3, "grid": 0.51, "noise": 0.5, "rain": 1 - 0.95**7, "dots": 0.45}
    assert {name: pytest.approx(share, abs=0.01) for name, share in known.items()}.items() <= shares.items()
    grid = np.mgrid[:1000, :1000] / 10
    coarse = [coarse_texture(name, *grid).mean() for name in SMALL.textures]
    assert coarse == pytest.approx([1.0, 0.35, 0.75, 0.2827, 0.5], abs=0.012)


@pytest.mark.parametrize("side", [224, 64])
def test_published_images_show_shape_and_color_alone(side: int) -> None:
    """A solid square keeps its area whatever its angle; everything else is the grey ground."""
    squares = Images(*(np.full(6, n) for n in (SHAPES.index("square"), 0, list(COLORS).index("red"))))
    for pixels in render_published(squares, PUBLISHED, np.random.default_rng(0), side):
        assert pixels.dtype == np.uint8 and pixels.shape == (side, side, 3)
        red = (pixels[..., 0].astype(float) - 127) / 128
        assert red.sum() == pytest.approx((128 * side / 224) ** 2, rel=0.02)
        assert ((pixels == 127).all(axis=2)).mean() > 0.6


def test_coarse_images_show_shape_and_color_alone() -> None:
    squares = Images(*(np.full(20, n) for n in (SMALL.shapes.index("square"), 0, SMALL.colors.index("green"))))
    for pixels in render_coarse(squares, SMALL, np.random.default_rng(0), 40):
        assert ((pixels[..., 1].astype(float) - 127) / 128).sum() == pytest.approx(28**2, rel=0.01)
        assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_choices() -> None:
    size, pairs = choose_size(10, "biased", side=None, train=7)
    assert (size.train, size.side, size.levels) == (7, 224, PUBLISHED)
    assert default_folder(size, pairs).as_posix() == "data/trifeatures-paper-biased"
    for bad in ((7, "biased"), (5, "mixed")):
        with pytest.raises(BuildError, match="levels 5 and 10, pairs unbiased and biased"):
            choose_size(*bad)


@pytest.mark.parametrize("change", [{"side": 8}, {"probe": 0}])
def test_what_cannot_be_built_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match="at least 16 pixels, and every split at least one pair"):
        build_trifeatures(tmp_path / "x", replace(FEW, **change), Pairs.biased)


def test_command(tmp_path: Path) -> None:
    """Options reach the build; a choice that there is not is one message."""
    options = ["--pixels", "16", "--count", "6", "--probe-count", "5", "--test-count", "4", "--pairs", "biased"]
    built = CliRunner().invoke(app, ["build", "trifeatures", "--out", str(tmp_path / "x"), *options, "--json"])
    assert json.loads(built.stdout)["samples"] == {"train": 6, "probe": 5, "test": 4}
    assert load_info(tmp_path / "x").modalities["first"]["size"] == [16, 16]
    refused = CliRunner().invoke(app, ["build", "trifeatures", "--levels", "3"])
    assert refused.exit_code == 1 and "there are levels 5 and 10" in refused.stderr
    assert "Example: mmpretrain shards" in CliRunner().invoke(app, ["build", "trifeatures", "--help"]).stdout
