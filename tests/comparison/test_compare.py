"""Numbers of a comparison: those of the models' own functions on the same samples, for every number of ranks."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, ClapFeatureExtractor, CLIPModel

from mmpretrain.comparison.compare import compare
from mmpretrain.comparison.job import RESULT, EvaluateJob
from mmpretrain.console import CommandError
from mmpretrain.data.index import build_index
from mmpretrain.data.info import load_info
from mmpretrain.data.writing import RawSample, build_dataset
from mmpretrain.distributed.world import World
from mmpretrain.embedding.ranks import run_job
from mmpretrain.embedding.spaces import open_space
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.retrieval import retrieval
from mmpretrain.release_folder import renew_checksum
from tests.data.small_dataset import png
from tests.data.tones import RATE, write_tones
from tests.embedding.spaces import SAMPLES, caption, raw_sample, write_clap

SINGLE = World.single()


def job(models: Path, *names: str, **changes: Any) -> EvaluateJob:
    """A comparison of some of the models, by quick metrics, in batches that do not divide the splits."""
    known: dict[str, Any] = {"data": str(models / "data"), "out": "nowhere", "batch": 3, "settings": ["knn.k=3"]}
    return EvaluateJob(
        {name: str(models / name) for name in names}, **known | {"metrics": ["retrieval", "knn"]} | changes
    )


def results(document: dict[str, Any], name: str) -> dict[str, float]:
    """The scores of a model."""
    return next(model["results"] for model in document["models"] if model["name"] == name)


@pytest.fixture(scope="module")
def measured(models: Path) -> dict[str, Any]:
    """Four models side by side."""
    return compare(job(models, "own", "clip", "siglip", "bert", metrics=[]), SINGLE)


def test_each_model_is_measured_where_it_can_be(measured: dict[str, Any]) -> None:
    towers = {model["name"]: model["towers"] for model in measured["models"]}
    assert towers["own"] == {"picture": "picture", "caption": "caption", "genes": "genes"}
    assert towers["clip"] == towers["siglip"] == {"picture": "image", "caption": "text"}
    assert towers["bert"] == {"caption": "text"}
    left_out = {model["name"]: set(model["left_out"]) for model in measured["models"]}
    assert left_out["clip"] == {"classification", "factors"}
    assert left_out["bert"] == {"classification", "factors", "retrieval", "robustness", "zero_shot"}
    assert "alone" in measured["models"][3]["left_out"]["retrieval"]
    assert "zero_shot/picture->caption/accuracy" in results(measured, "siglip")
    assert "knn/caption/accuracy" in results(measured, "bert")


def test_what_is_written_down(measured: dict[str, Any], models: Path) -> None:
    text = json.dumps(measured, allow_nan=False)
    assert str(models / "clip") in text
    assert measured["data"]["fingerprints"]["test"] == build_index(models / "data" / "test").fingerprint
    assert measured["models"][1]["sha256"] == open_space(str(models / "clip"), torch.device("cpu")).sha256
    assert measured["models"][0]["samples"] == SAMPLES and measured["versions"]["torch"] == torch.__version__
    assert measured["split"] == "test" and measured["settings"]["knn"]["k"] == 3


def test_scores_are_those_of_the_models_own_functions(measured: dict[str, Any], models: Path) -> None:
    clip = CLIPModel.from_pretrained(models / "clip").eval()
    space = open_space(str(models / "clip"), torch.device("cpu"))
    tokenizer = AutoTokenizer.from_pretrained(models / "clip")
    numbers = range(100, 105)
    texts = tokenizer([caption(n) for n in numbers], padding="max_length", max_length=10, return_tensors="pt")

    pictures = [Image.open(BytesIO(png(7 * n % 256, (8, 4)))) for n in numbers]
    with torch.inference_mode():
        rows = {
            "picture": clip.get_image_features(**space.tensors("image", pictures)).pooler_output.numpy(),
            "caption": clip.get_text_features(**texts).pooler_output.numpy(),
        }
    expected = retrieval(Embeddings(np.arange(5), rows, labels=np.array(numbers) % 3))
    found = results(measured, "clip")
    assert expected and {k: found[f"retrieval/{k}"] for k in expected} == pytest.approx(expected, abs=1e-6)


def test_samples_without_a_modality_count_where_it_is_not_asked_for(models: Path, tmp_path: Path) -> None:
    """Every third sample has no genes: the release, which was trained with them, embeds all others the same."""
    both = compare(job(models, "own"), SINGLE)
    assert any("genes" in key for key in results(both, "own"))
    pair = compare(job(models, "own", pair=["picture", "caption"]), SINGLE)
    found = results(pair, "own")
    assert not any("genes" in key for key in found)
    same = {key: value for key, value in results(both, "own").items() if key in found and "+" not in key}
    assert {key: found[key] for key in same} == pytest.approx(same, abs=1e-6)


def test_a_metric_that_was_asked_for_must_be_possible(models: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(CommandError) as error:
        compare(job(models, "clip", "bert", metrics=["retrieval", "classification"]), SINGLE)
    assert len(error.value.problems) == 3 and "bert: it needs two modalities" in str(error.value)
    assert not any("embedding" in record.message for record in caplog.records)
    with pytest.raises(CommandError, match=r"nothing can be measured of bert: .*knn: the evaluation needs at least 20"):
        compare(job(models, "bert", metrics=[], settings=[], limit=1), SINGLE)


def test_answers_are_compared_with_labels_by_the_classes_names(models: Path, tmp_path: Path) -> None:
    """The same classifier, its rows and their names in another order; one of other classes; one of fewer."""
    splits = {split: [raw_sample(n) for n in range(1, 40) if n % 3] for split in ("train", "test")}
    for sample in splits["test"]:
        sample["label.cls"] = str(int(sample["__key__"][1:]) % 4 % 3).encode()
    build_dataset(tmp_path / "data", load_info(models / "data"), splits)
    for name, names, order in (("same", "xyz", [0, 1, 2]), ("turned", "zxy", [2, 0, 1]), ("other", "xyw", [0, 1, 2])):
        folder = Path(shutil.copytree(models / "own", tmp_path / name))
        config = json.loads((folder / "config.json").read_text())
        config |= {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
        (folder / "config.json").write_text(json.dumps(config))
        weights = load_file(folder / "model.safetensors")
        for key in ("classifier.output.weight", "classifier.output.bias"):
            weights[key] = weights[key][order].clone()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        for file in ("config.json", "model.safetensors"):
            renew_checksum(folder, file)
    asked = {"data": str(tmp_path / "data"), "metrics": []}
    document = compare(job(tmp_path, "same", "turned", "other", **asked), SINGLE)
    scores = results(document, "same")
    assert {key: v for key, v in results(document, "turned").items() if "classification" in key} == {
        key: v for key, v in scores.items() if "classification" in key
    }
    assert scores["classification/accuracy"] != scores["classification/accuracy/chance"]
    assert "does not know z (it knows x, y, w)" in document["models"][2]["left_out"]["classification"]
    renamed = compare(job(tmp_path, "other", **asked, classes=list("xyw")), SINGLE)
    assert results(renamed, "other")["classification/accuracy"] == scores["classification/accuracy"]


def test_embeddings_that_are_not_finite_name_their_model(models: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(models / "clip", tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["visual_projection.weight"][0, 0] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    work = replace(job(models, "clip"), models={"broken": str(broken)})
    with pytest.raises((CommandError, ValueError), match=r"broken.*not finite"):
        compare(work, SINGLE)


def test_a_sample_that_one_model_cannot_read_counts_for_none(models: Path, tmp_path: Path) -> None:
    """A damaged picture is no matter for a text encoder alone, but beside CLIP both are measured on the rest."""
    info = load_info(models / "data")
    splits = {"train": [raw_sample(n) for n in range(23)], "test": [raw_sample(100 + n) for n in range(5)]}
    splits["test"][1]["picture.png"] = b"no picture"
    build_dataset(tmp_path / "data", info, splits)
    work = job(models, "clip", "bert", data=str(tmp_path / "data"), metrics=["knn"], max_bad_fraction=0.2)
    document = compare(work, SINGLE)
    assert [model["samples"]["test"] for model in document["models"]] == [4, 4]
    assert [model["unreadable"]["test"] for model in document["models"]] == [1, 1]
    with pytest.raises(CommandError, match=r"1 of 5 samples of test cannot be read .*--max-bad-fraction 0 allows"):
        compare(replace(work, max_bad_fraction=0.0), SINGLE)
    alone = compare(replace(work, models={"bert": str(models / "bert")}, max_bad_fraction=0.0), SINGLE)
    assert alone["models"][0]["samples"]["test"] == 5


@pytest.mark.parametrize(
    ("form", "labels", "score"),
    [("several", ["0 1", "[2]", ""], "average_precision"), ("value", ["0.5", "-1", "2e1"], "r2")],
)
def test_labels_that_are_not_one_class(models: Path, tmp_path: Path, form: str, labels: list[str], score: str) -> None:
    def sample(number: int) -> RawSample:
        made = {key: value for key, value in raw_sample(number).items() if key != "label.cls"}
        return made | {"meta.json": json.dumps({"of": labels[number % 3]}).encode()}

    splits = {split: [sample(first + n) for n in range(9)] for split, first in (("train", 0), ("test", 100))}
    build_dataset(tmp_path / "data", load_info(models / "data"), splits)
    work = job(models, "clip", data=str(tmp_path / "data"), metrics=[], label="meta.json:of", label_form=form)
    document = compare(work, SINGLE)
    assert f"linear_probe/picture+caption/{score}" in results(document, "clip")
    assert f"--label-form is {form}" in document["models"][0]["left_out"]["knn"]


def test_every_caption_counts_and_equal_pictures_are_one(models: Path, tmp_path: Path) -> None:
    def sample(number: int) -> RawSample:
        texts = [caption(number), caption(number + 1)]
        picture = raw_sample(number // 2)["picture.png"]
        return {"__key__": f"s{number}", "picture.png": picture, "caption.json": json.dumps(texts).encode()}

    splits = {split: [sample(n) for n in range(6)] for split in ("train", "test")}
    build_dataset(tmp_path / "data", load_info(models / "data"), splits)
    asked = {"data": str(tmp_path / "data"), "metrics": ["retrieval"]}
    first = results(compare(job(models, "clip", **asked), SINGLE), "clip")
    settings = ["retrieval.captions=all", "retrieval.same=[picture]"]
    every = results(compare(job(models, "clip", **asked, settings=settings), SINGLE), "clip")
    assert first["retrieval/picture->caption/recall@1/chance"] == pytest.approx(1 / 6)
    assert every["retrieval/picture->caption/recall@1/chance"] == pytest.approx(4 / 12)
    assert every["retrieval/caption->picture/recall@1/chance"] == pytest.approx(1 / 3)
    with pytest.raises(CommandError, match="clip does not embed 'smell'"):
        compare(job(models, "clip", **asked, settings=["retrieval.same=[smell]"]), SINGLE)


def test_sounds_of_clap(tmp_path: Path) -> None:
    write_clap(tmp_path / "clap")
    extractor = ClapFeatureExtractor(feature_size=16, sampling_rate=RATE, frequency_max=8000, max_length_s=1)
    extractor.truncation = "rand_trunc"
    extractor.save_pretrained(tmp_path / "clap")
    write_tones(tmp_path / "data", 6)
    models = {"clap": str(tmp_path / "clap")}
    work = EvaluateJob(models, data=str(tmp_path / "data"), out="nowhere", metrics=["retrieval"])
    document = compare(work, SINGLE)
    assert document["models"][0]["towers"] == {"sound": "audio", "caption": "text"}
    assert "retrieval/sound->caption/recall@1" in results(document, "clap")


@pytest.mark.processes
def test_two_ranks_give_the_same_numbers(models: Path, tmp_path: Path) -> None:
    work = job(models, "own", "clip", metrics=["retrieval", "knn", "zero_shot"], out=str(tmp_path / "out"))
    assert run_job(work, 2)
    found, expected = json.loads((tmp_path / "out" / RESULT).read_text()), compare(work, SINGLE)
    for name in ("own", "clip"):
        assert results(found, name) == pytest.approx(results(expected, name), abs=1e-6)
    assert found["models"][0]["samples"] == expected["models"][0]["samples"]
