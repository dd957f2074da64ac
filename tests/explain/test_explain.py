"""``mmpretrain explain`` and ``mmpretrain information`` on releases, from the command line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from mmpretrain.cli import app
from mmpretrain.config.kind import Kind
from mmpretrain.data.decode import Raw
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import RawSample, build_dataset, write_split
from mmpretrain.explain.attribution_maps import as_seen, attribution_maps, explain_samples
from mmpretrain.explain.decomposition import fit
from mmpretrain.explain.opened import Opened, open_release
from mmpretrain.explain.settings import Attribution, Settings
from mmpretrain.explain.settings import AttributionForm as ScoreForm
from tests.data.small_dataset import png
from tests.embedding.spaces import write_bert, write_clap, write_clip, write_data
from tests.explain.explained import (
    SAMPLES,
    write_components_release,
    write_connection,
    write_factors_release,
    write_fused_release,
    write_shared_class,
    write_small_release,
)

PAIR = ["picture", "caption"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``run/release``, ``own/release``, ``clip``, ``bert`` and ``data``."""
    folder = tmp_path_factory.mktemp("explain")
    write_shared_class(folder / "data")
    write_small_release(folder / "run" / "release")
    write_components_release(folder / "own" / "release")
    write_clip(folder / "clip")
    write_bert(folder / "bert")
    write_clap(folder / "clap")
    return folder


def call(command: str, folder: Path, release: str, *options: str) -> Result:
    """The end of ``mmpretrain COMMAND`` on a release of ``folder`` and its data, as JSON; picture and caption unless
    another pair is named, and maps are checked only where that is asked for."""
    usual = [] if any(option.startswith("--pair") for option in options) else ["--pair=picture,caption"]
    usual += ["--no-sanity"] if command == "explain" and "--sanity" not in options else []
    whole = [command, str(folder / release), "--data", str(folder / "data"), *usual, *options, "--json"]
    return CliRunner().invoke(app, whole)


def test_explain_writes_scores_and_pictures(folder: Path) -> None:
    """Beside the release, unless told otherwise; twice the same."""
    options = ("--common=2", "--samples=2", "--sanity")
    outcome = call("explain", folder, "run/release", *options)
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    assert found["pair"] == ["picture", "caption"] and found["codes"] == "closed form of the embeddings"
    assert [s["key"] for s in found["explained"]] == ["s0000", "s0002"]  # the first of classes 0 and 2
    # A class is shared, and even random features tell it from others.
    assert found["common"]["mean"] > 0.5 > abs(found["common"]["unrelated"])
    out = folder / "run" / "explain"
    assert {path.name for path in out.iterdir()} == {
        *("scores.csv", "explain.json", "scores.png", "sanity.png"),
        *("sample-s0000.png", "sample-s0002.png"),
    }
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == SAMPLES["test"] and rows[1]["label"] == "1"
    assert np.mean([float(row["common"]) for row in rows]) == pytest.approx(found["common"]["mean"], abs=1e-4)
    assert found["towers"] == {"picture": "picture", "caption": "caption"}
    checks = {(check["modality"], check["part"]): check for check in found["sanity"]["checks"]}
    assert set(checks) == {(name, part) for name in found["pair"] for part in ("common", "own")}
    assert (
        0 <= checks["picture", "common"]["area"] <= 1 and abs(checks["picture", "own"]["randomized_correlation"]) <= 1
    )
    assert json.loads(call("explain", folder, "run/release", *options).stdout) == found


@pytest.mark.parametrize("pair", ["genes,caption", "picture,genes"])
def test_pairs_with_samples_that_lack_a_modality(folder: Path, tmp_path: Path, pair: str) -> None:
    options = (f"--pair={pair}", "--common=1", "--keys=s0003", f"--out={tmp_path}", "--attribution=input_x_gradient")
    outcome = call("explain", folder, "run/release", *options, "--common-score=cosine", "--individual-score=energy")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    assert found["samples"] == {"fitted": 210, "scored": 70} and (tmp_path / "sample-s0003.png").exists()


def test_a_model_of_transformers_is_explained(folder: Path, tmp_path: Path) -> None:
    """CLIP, its image and text tower on the dataset's picture and caption."""
    outcome = call("explain", folder, "clip", "--common=1", "--samples=1", f"--out={tmp_path}")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    assert found["pair"] == ["picture", "caption"] and found["towers"] == {"picture": "image", "caption": "text"}


@pytest.mark.parametrize(
    ("release", "wanted"), [("run/release", "picture, caption, genes"), ("two", "left, right, text")]
)
def test_a_pair_is_named_where_more_than_two_modalities_fit(
    folder: Path, tmp_path: Path, release: str, wanted: str
) -> None:
    """Of a plain CLIP nothing says which of two pictures its tower was trained on."""
    data = folder / "data" if release != "two" else two_pictures(tmp_path / "two")
    arguments = ["information", str(folder / ("clip" if release == "two" else release)), "--data", str(data), "--json"]
    outcome = CliRunner().invoke(app, arguments)
    (found,) = json.loads(outcome.stdout)["errors"]
    assert outcome.exit_code == 1 and f"embeds {wanted} of this data: name two with --pair" in found
    if release == "two":
        opened = open_release(str(folder / "clip"), str(data), ["right", "text"], torch.device("cpu"))
        assert opened.pair == ("right", "text") and opened.towers == {"right": "image", "text": "text"}


def two_pictures(folder: Path) -> Path:
    """Data of two pictures and a text."""
    modalities: dict[str, dict[str, Any]] = {
        "left": {"kind": "image"},
        "right": {"kind": "image"},
        "text": {"kind": "text"},
    }
    samples: list[RawSample] = [
        {"__key__": f"{n}", "left.png": png(n, (8, 4)), "right.png": png(n + 9, (8, 4)), "text.txt": b"a seven"}
        for n in range(4)
    ]
    build_dataset(folder, DatasetInfo("two", "Two pictures", "made up", "MIT", modalities), {"train": samples})
    return folder


def test_a_model_that_decomposes_is_explained_by_its_own_codes(folder: Path, tmp_path: Path) -> None:
    options = ("--samples=1", "--weight-by-rho", f"--out={tmp_path}")
    outcome = call("explain", folder, "own/release", *options)
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    assert found["codes"] == "the model's own codes" and len(found["correlations"]) == 2
    opened = open_release(
        str(folder / "own" / "release"), str(folder / "data"), ["picture", "caption"], torch.device("cpu")
    )
    train, test = (opened.embed(split, 1000).shared["picture"] for split in ("train", "test"))
    # Random weights: far from white. |c|^2 of whitened codes is their Mahalanobis distance.
    centered = test - train.mean(axis=0)
    expected = ((centered @ np.linalg.inv(np.cov(train.T))) * centered).sum(axis=1)
    with (tmp_path / "scores.csv").open() as file:
        scores = [float(row["common_picture"]) for row in csv.DictReader(file)]
    assert scores == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-4)
    rho = np.array(found["correlations"])
    assert found["common"]["expected"] == pytest.approx(np.square(rho).sum())


@pytest.mark.parametrize(
    ("write", "pair"),
    [
        (write_fused_release, "picture,caption"),
        (write_factors_release, "genes,caption"),
        (write_connection, "picture,genes"),
    ],
)
def test_releases_of_other_methods_are_explained(
    folder: Path, tmp_path: Path, write: Callable[[Path], None], pair: str
) -> None:
    """A fusion, heads for factors, and two connected spaces: gradients reach every input."""
    write(tmp_path / "release")
    options = (f"--pair={pair}", "--common=1", "--samples=1", f"--out={tmp_path}", "--data", str(folder / "data"))
    for command, written in (("explain", "explain.json"), ("information", "information.json")):
        chosen = [*options, "--sanity"] if command == "explain" else [o for o in options if o != "--samples=1"]
        outcome = CliRunner().invoke(app, [command, str(tmp_path / "release"), *chosen, "--json"])
        assert outcome.exit_code == 0, outcome.output
        assert json.loads(outcome.stdout)["pair"] == pair.split(",") and (tmp_path / written).exists()
    opened = open_release(str(tmp_path / "release"), str(folder / "data"), pair.split(","), torch.device("cpu"))
    fitted = fit(opened.embed("train", 1000), opened.pair, Settings(common=1), opened.origin)
    batch = next(iter(opened.stream("test").split_batches(4, 4)))
    whole = torch.stack([torch.ones(4, dtype=torch.bool), *batch.present.values()]).all(dim=0)
    for maps in attribution_maps(opened, fitted, ScoreForm(), batch.inputs).values():
        assert all(values[whole].abs().flatten(1).sum(dim=1).gt(0).all() for values in maps)


def test_information(folder: Path, tmp_path: Path) -> None:
    outcome = call("information", folder, "run/release", "--common=2", f"--out={tmp_path}")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    assert found["probes"]["common/label"]["score"] > 0.8 > found["probes"]["common/label"]["chance"]
    assert json.loads((tmp_path / "information.json").read_text())["verdict"] == found["verdict"]
    assert {path.name for path in tmp_path.iterdir()} == {"information.json", "information.png"}
    arguments = ["information", str(folder / "run/release"), "--data", str(folder / "data"), f"--out={tmp_path}"]
    people = CliRunner().invoke(app, [*arguments, "--pair=picture,caption"])
    assert people.exit_code == 0 and "What varies in each embedding, percent" in people.stdout
    assert "picture -> tower picture" in people.stdout and "caption explains" in people.stdout


@pytest.mark.parametrize(
    ("release", "options", "message"),
    [
        (
            "run/release",
            ("--pair=picture,sound",),
            "embeds picture, caption, genes of this data, and not 'sound': name two",
        ),
        ("run/release", ("--pair=picture",), "two modalities that both have are needed, got picture; name two"),
        ("clip", ("--pair=picture,genes",), "embeds picture, caption of this data, and not 'genes': name two"),
        (
            "run/release",
            ("--keys=s9999", "--common=1"),
            "no sample 's9999' is scored in test: its first one is 's0000'",
        ),
        (
            "run/release",
            ("--keys=s9999", "--common=1", "--limit=60"),
            "at most 60 evenly spaced ones are looked at (--limit)",
        ),
        ("run/release", ("--common=0",), "--common is 0: at least 1 is needed"),
        ("run/release", ("--samples=0",), "--samples is 0: at least 1 is needed"),
        ("run/release", ("--limit=-1",), "--limit is -1: at least 1 is needed"),
        (
            "bert",
            (),
            "embeds no pair of modalities: a release of mmpretrain, or a model of transformers with a text tower",
        ),
        ("clap", (), "with its processor's files, is needed"),
        ("data", (), "is no release"),
    ],
)
def test_what_cannot_be_explained_is_named(folder: Path, release: str, options: tuple[str, ...], message: str) -> None:
    outcome = call("explain", folder, release, *options)
    assert outcome.exit_code == 1 and message in json.loads(outcome.stdout)["errors"][0]


def test_data_of_another_dataset_is_refused(folder: Path, tmp_path: Path) -> None:
    """By the names of its modalities; where these fit and the samples do not, by what was wrong with them."""
    write_data(tmp_path / "other")
    options = ("--data", str(tmp_path / "other"), "--json")
    for command in ("explain", "information"):
        arguments = [command, str(folder / "run/release"), "--pair=picture,genes", *options]
        (found,) = json.loads(CliRunner().invoke(app, arguments).stdout)["errors"]
        assert "the data has no modality 'genes', only picture, caption" in found
    (tmp_path / "other" / "dataset.json").unlink()
    write_data(tmp_path / "wide", width=9)
    (tmp_path / "wide" / "dataset.json").unlink()
    arguments = [
        "information",
        str(folder / "run/release"),
        "--data",
        str(tmp_path / "wide"),
        "--pair=genes,caption",
        "--json",
    ]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 1 and "wide does not fit the release" in json.loads(outcome.stdout)["errors"][0]


@pytest.mark.parametrize("command", ["explain", "information"])
def test_a_split_without_pairs_is_named(folder: Path, command: str, tmp_path: Path) -> None:
    """The one test sample that is looked at lacks its vector."""
    opened = open_release(str(folder / "run/release"), str(folder / "data"), ["genes", "caption"], torch.device("cpu"))
    whole, test = opened.embed("train", 1000), opened.embed("test", 1)
    assert not test.having(opened.pair).any()
    with patch.object(Opened, "embed", lambda _, split, limit: whole if split == "train" else test):
        outcome = call(command, folder, "run/release", "--pair=genes,caption", "--common=1", f"--out={tmp_path}")
    assert outcome.exit_code == 1, outcome.output
    assert "no sample of test has both genes and caption" in json.loads(outcome.stdout)["errors"][0]


def test_more_samples_than_classes(folder: Path, tmp_path: Path) -> None:
    outcome = call("explain", folder, "run/release", "--common=2", "--samples=5", f"--out={tmp_path}")
    keys = [sample["key"] for sample in json.loads(outcome.stdout)["explained"]]
    assert len(set(keys)) == 5 and {int(key[1:]) % 3 for key in keys} == {0, 1, 2}


def test_maps_do_not_depend_on_the_other_samples(folder: Path) -> None:
    """Texts of unequal lengths are padded in a batch; noise would be drawn for all of them at once."""
    opened = open_release(str(folder / "run/release"), str(folder / "data"), PAIR, torch.device("cpu"))
    fitted = fit(opened.embed("train", 1000), opened.pair, Settings(common=1, draws=2), opened.origin)
    picture = Image.linear_gradient("L").resize((8, 4))
    raws = [{"picture": picture, "caption": text} for text in ("a bold light seven three digit", "a seven")]
    form = ScoreForm(attribution=Attribution.smoothgrad)
    _, together = explain_samples(opened, fitted, form, raws, ["a", "b"])
    (alone,) = explain_samples(opened, fitted, form, raws[1:], ["b"])
    (renamed,) = explain_samples(opened, fitted, form, raws[1:], ["c"])
    for name in opened.pair:
        assert np.array_equal(together[name].common, alone[name].common)
        assert not np.array_equal(together[name].common, renamed[name].common)


def test_maps_lie_on_what_the_encoder_sees(folder: Path) -> None:
    """A processor may cut the edges of a picture off."""
    opened = open_release(str(folder / "clip"), str(folder / "data"), None, torch.device("cpu"))
    fitted = fit(opened.embed("train", 1000), opened.pair, Settings(common=1), opened.origin)
    picture = Image.linear_gradient("L").resize((40, 8)).rotate(90, expand=True)
    (sides,) = explain_samples(opened, fitted, ScoreForm(), [{"picture": picture, "caption": "a seven"}], ["a"])
    seen = opened.processor(picture=[picture])["picture"]["pixel_values"][0]
    raw = sides["picture"].raw
    assert isinstance(raw, Image.Image) and raw.size == seen.shape[:0:-1] == sides["picture"].common.shape[:0:-1]
    for channel, values in zip(np.asarray(raw).transpose(2, 0, 1), seen.numpy(), strict=True):
        assert np.corrcoef(channel.ravel(), values.ravel())[0, 1] > 0.999
    shades = np.asarray(raw)
    assert (shades[..., 0] == shades[..., 2]).all() and np.ptp(shades) > 100  # grey, as it was
    again = opened.processor(picture=[raw])["picture"]["pixel_values"][0]
    torch.testing.assert_close(again, seen, rtol=0, atol=0.01)
    assert np.asarray(as_seen(torch.zeros(1, 4, 8), ([0.5], [0.5]))).tolist() == [[128] * 8] * 4


def test_pictures_of_other_samples_do_not_stay(folder: Path, tmp_path: Path) -> None:
    for key in ("s0003", "s0001"):
        options = ("--common=1", f"--keys={key}", f"--out={tmp_path}")
        assert call("explain", folder, "run/release", *options).exit_code == 0
    assert [path.name for path in tmp_path.glob("sample-*")] == ["sample-s0001.png"]


def test_nothing_of_the_model_changes(folder: Path) -> None:
    """Frozen, in evaluation mode, and without gradients left behind."""
    opened = open_release(str(folder / "run/release"), str(folder / "data"), PAIR, torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in opened.model.state_dict().items()}
    fitted = fit(opened.embed("train", 1000), opened.pair, Settings(common=1), opened.origin)
    sample: dict[str, Raw] = {"picture": Image.linear_gradient("L").resize((8, 4)), "caption": "a seven"}
    explain_samples(opened, fitted, ScoreForm(), [sample], ["a"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in opened.model.state_dict().items())
    assert all(parameter.grad is None for parameter in opened.model.parameters())
    assert opened.model.training is False
    assert not any(parameter.requires_grad for parameter in opened.model.parameters())
    assert opened.data.classes == 3 and opened.kinds == {"picture": Kind.image, "caption": Kind.text}


def test_downloaded_tars_are_opened_as_they_are(folder: Path, tmp_path: Path) -> None:
    """A folder of tars without a description: an image and the caption of its JSON, for a CLIP."""
    samples: list[RawSample] = [
        {"__key__": f"{n:05d}", "png": png(20 * n, (8, 4)), "json": json.dumps({"caption": f"a {n}"}).encode()}
        for n in range(4)
    ]
    write_split(tmp_path / "tars", samples)
    opened = open_release(str(folder / "clip"), str(tmp_path / "tars"), None, torch.device("cpu"))
    assert opened.kinds == {"image": Kind.image, "caption": Kind.text} and opened.info is None
    assert len(opened.embed("train", 10).ordinals) == 4
