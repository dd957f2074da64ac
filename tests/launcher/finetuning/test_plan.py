"""From a model and data to the tokens of a run: names, preparation, recipes, lengths."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from launcher.finetune import split_words
from launcher.finetuning.asked import Asked, reduced
from launcher.finetuning.data import fitting_batch
from launcher.finetuning.look import FinetuneLook
from launcher.finetuning.plan import run_tokens
from launcher.finetuning.start import StartError, find_start, of_encoders
from mmpretrain.config.choices import Choices
from mmpretrain.config.compose import ConfigError, compose, diff_configs, save_config
from mmpretrain.config.kept_out import kept_out
from mmpretrain.config.root import Config
from mmpretrain.data.index import build_index
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import RawSample, build_dataset
from tests.data.own_data import downloaded, write
from tests.data.small_dataset import png
from tests.launcher.finetuning.test_start import ENTRIES, write_config, write_release

ALL = {"picture": {"kind": "image"}, "caption": {"kind": "text"}, "title": {"kind": "text"}}


def sample(number: int) -> RawSample:
    return {
        "__key__": f"s{number:04d}",
        "picture.png": png(number, (8, 8)),
        "caption.txt": b"a word",
        "title.txt": b"a title",
        "label.cls": str(number % 2).encode(),
    }


def write_data(folder: Path, names: tuple[str, ...] = ("picture", "caption"), **splits: int) -> str:
    """Our builders' form: splits by name, each with so many samples."""
    modalities = {name: ALL[name] for name in names}
    samples = {split: [sample(n) for n in range(count)] for split, count in splits.items()}
    build_dataset(folder, DatasetInfo("data", "d", "made up", "MIT", modalities, ["x", "y"]), samples)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_data(tmp_path_factory.mktemp("finetune") / "data", train=100)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return write_release(tmp_path / "model")


def composed(model: str, data: str | None, *tokens: str, **asked: Any) -> tuple[Config, tuple[str, ...]]:
    """The config of the run on two ranks, and the notes."""
    start = find_start(model)
    options = {"general": None, "lock": (), "epochs": None} | asked
    wanted = reduced(Asked(start, data, tokens=tokens, **options))
    found = run_tokens(wanted, 2, Choices())
    look = FinetuneLook(wanted.start)
    return compose(found.tokens, None, Choices(), look), (*found.notes, *look.notes)


def test_modalities_are_called_as_the_model_calls_them_and_prepared_as_it_says(model: str, data: str) -> None:
    config, notes = composed(model, data)
    image, text = config.data.modalities["image"], config.data.modalities["text"]
    assert (image.size, image.member, text.max_length, text.member) == ([8, 8], ["picture.png"], 10, ["caption.txt"])
    assert all(entry.pretrained == model for entry in config.model.encoders.values())
    assert (config.model.embed_dim, config.method.name, config.optim.lr) == (12, "clip", 1e-5)
    assert any("text of the model is caption of the data (caption.txt)" in note for note in notes)


def test_tars_of_img2dataset_are_found_as_for_training(model: str, tmp_path: Path) -> None:
    write(tmp_path / "own", downloaded, 40)
    build_index(tmp_path / "own")
    config, _ = composed(model, str(tmp_path / "own"))
    assert set(config.data.modalities) == {"image", "text"} and config.data.modalities["text"].member == ["txt"]


def test_two_texts_are_told_apart_by_the_user_alone(model: str, tmp_path: Path) -> None:
    several = write_data(tmp_path / "several", ("picture", "caption", "title"), train=40)
    with pytest.raises(ConfigError, match=r"say which is meant by data\.modalities\.text\.member"):
        composed(model, several)
    config, _ = composed(model, several, "data.modalities.text.member=[title.txt]")
    assert config.data.modalities["text"].member == ["title.txt"]


def test_a_modality_that_the_data_lack_is_refused_and_may_be_left_out(data: str, tmp_path: Path) -> None:
    more = write_release(tmp_path / "more", ENTRIES | {"sound": {"kind": "audio"}})
    with pytest.raises(ConfigError, match=r"or fine-tune without it: model\.encoders\.sound=null"):
        composed(more, data)
    config, _ = composed(more, data, "model.encoders.sound=null")
    assert set(config.model.encoders) == {"image", "text"}


def test_splits_that_the_data_lack_are_held_out_and_chosen_by(model: str, data: str, tmp_path: Path) -> None:
    config, notes = composed(model, data)
    assert config.data.held_out == {"test": 0.1, "validation": 0.1}
    assert config.evaluation.best.score == "retrieval/image->text/recall@1"
    assert any("no test and no validation" in note for note in notes)
    assert any(re.match(r"test has \d+ samples and validation has \d+ samples: scores of so few", n) for n in notes)
    more, _ = composed(model, data, "data.held_out.test=0.3")
    assert more.data.held_out == {"test": 0.3, "validation": 0.1}
    whole = write_data(tmp_path / "whole", train=30, validation=4, test=4)
    assert composed(model, whole)[0].data.held_out == {}


def test_who_chooses_nothing_by_a_score_needs_no_validation(model: str, data: str) -> None:
    config, _ = composed(model, data, "evaluation.best.score=null")
    assert config.data.held_out == {"test": 0.1} and config.evaluation.release == "last"
    config, _ = composed(model, data, "evaluation.best.patience=null")
    assert config.data.held_out == {"test": 0.1, "validation": 0.1} and config.evaluation.best.patience is None


def test_what_the_user_says_may_rest_on_what_the_command_fills_in(model: str, data: str) -> None:
    config, _ = composed(model, data, "averaging.interpolate=[0,0.5,1]")
    assert config.averaging.interpolate == [0.0, 0.5, 1.0] and config.evaluation.best.score


def test_sources_are_matched_one_by_one(model: str, data: str, tmp_path: Path) -> None:
    other = write_data(tmp_path / "other", ("picture", "title"), train=30)
    config, _ = composed(model, None, f"data.sources.a.path={data}", f"data.sources.b.path={other}")
    members = [config.data.sources[name].modalities["text"].member for name in ("a", "b")]
    assert members == [["caption.txt"], ["title.txt"]] and config.data.modalities["image"].size == [8, 8]


def test_the_same_command_goes_on_and_a_longer_one_keeps_warm_up_and_batch(
    model: str, data: str, tmp_path: Path
) -> None:
    place = [f"run.root={tmp_path}", "run.name=run"]
    first, _ = composed(model, data, *place, epochs=2.0)
    (tmp_path / "run").mkdir()
    save_config(first, tmp_path / "run" / "config.yaml")
    assert diff_configs(first, composed(model, data, *place, epochs=2.0)[0]) == []
    longer, _ = composed(model, data, *place, epochs=4.0)
    assert longer.optim.warmup_samples > first.optim.warmup_samples  # without a checkpoint it starts over
    (tmp_path / "run" / "checkpoints" / "step-00000002").mkdir(parents=True)
    longer, _ = composed(model, data, *place, epochs=4.0)
    assert [line.split(":")[0] for line in diff_configs(first, longer)] == ["train.samples"]
    more = write_data(tmp_path / "more", train=300)
    grown = {line.split(":")[0] for line in diff_configs(first, composed(model, more, *place, epochs=2.0)[0])}
    assert grown == {"data.path", "train.samples"}


def test_batch_and_length_fit_the_samples_and_epochs_are_a_view_of_samples(model: str, data: str) -> None:
    config, notes = composed(model, data, epochs=3.0)
    size = 80  # about, of 100 of which a fifth is held out
    assert config.data.global_batch == 8 and abs(config.train.samples - 3 * size) < 40
    assert config.optim.warmup_samples == config.train.samples // 10
    assert config.evaluation.every_steps and abs(config.evaluation.every_steps - size / 8) < 2
    assert any("data.global_batch is 8" in note for note in notes)
    with pytest.raises(StartError, match="--epochs and train"):
        composed(model, data, "train.samples=10", epochs=3.0)


@pytest.mark.parametrize(("size", "ranks", "batch"), [(100_000, 4, 128), (400, 1, 50), (400, 4, 48), (20, 2, 8)])
def test_a_batch_is_an_equal_share_for_every_rank(size: int, ranks: int, batch: int) -> None:
    assert fitting_batch(size, ranks) == batch


def test_head_freezes_encoders_and_trains_projections(model: str, data: str) -> None:
    encoders = composed(model, data, "recipe=head")[0].model.encoders
    assert all(entry.freeze and entry.projection == "trained" for entry in encoders.values())


def test_lit_locks_the_images_or_what_is_named(model: str, data: str) -> None:
    assert composed(model, data, "recipe=lit")[0].model.encoders["image"].freeze
    encoders = composed(model, data, "recipe=lit", lock=("text",))[0].model.encoders
    assert encoders["text"].freeze and not encoders["image"].freeze
    with pytest.raises(StartError, match="--lock sound: the model has image, text"):
        composed(model, data, "recipe=lit", lock=("sound",))
    with pytest.raises(StartError, match="--lock goes with recipe=lit, and the recipe is full"):
        composed(model, data, lock=("text",))


def test_what_the_user_says_comes_last(model: str, data: str) -> None:
    config, _ = composed(model, data, "optim.lr=3e-4", "data.global_batch=10", "method=siglip", "run.name=mine")
    assert (config.optim.lr, config.data.global_batch, config.method.name, config.run.name) == (
        3e-4,
        10,
        "siglip",
        "mine",
    )


def test_data_without_labels_for_a_method_that_needs_them_are_refused(data: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"method=supcon learns from labels, but data.classes is null"):
        composed(write_release(tmp_path / "supcon", method="supcon"), data, "data.classes=null")


def test_the_parts_of_a_release_are_the_parts_of_the_run(data: str, tmp_path: Path) -> None:
    fusion = {"form": "transformer", "width": 24, "heads": 4, "layers": 2, "vectors": "one"}
    comm = write_release(tmp_path / "comm", method="comm", embed_dim=None, fusion=fusion)
    config, _ = composed(comm, data)
    assert config.parts.fusion == fusion and config.model.embed_dim is None
    components = {"common": 5, "hidden": None, "individual": {"image": 3, "text": 4}}
    mucmm = write_release(tmp_path / "mucmm", method="mucmm", components=components)
    assert composed(mucmm, data)[0].parts.components == components


def test_the_embedding_of_all_modalities_is_chosen_by_labels_or_by_nothing(data: str, tmp_path: Path) -> None:
    fusion = {"form": "transformer", "width": 24, "heads": 4, "layers": 1, "vectors": "one"}
    comm = write_release(tmp_path / "comm", method="comm", embed_dim=None, fusion=fusion)
    labeled = composed(comm, data)[0].evaluation
    assert (labeled.best.score, labeled.final) == ("linear_probe/fused/accuracy", ["linear_probe"])
    config, notes = composed(comm, data, "data.classes=null")
    assert (config.evaluation.best.score, config.evaluation.release) == (None, "last")
    assert config.data.held_out == {"test": 0.1} and any("the last step is released" in note for note in notes)
    several = ["method=comm_supervised", "method.loss=binary", "data.label.form=several"]
    found = composed(comm, data, *several)[0].evaluation
    assert (found.best.score, found.final) == ("linear_probe/fused/average_precision", ["linear_probe"])


def test_kept_out_data_are_matched_as_well_and_measured_by_what_they_have(
    model: str, data: str, tmp_path: Path
) -> None:
    other = write_data(tmp_path / "general", ("picture", "title"), train=4, test=6)
    general = composed(model, data, general=other)[0].finetune.general
    assert (general.path, general.split, general.classes) == (other, "test", 2)
    assert general.modalities["text"].member == ["title.txt"] and general.metrics == ["retrieval", "zero_shot"]


def test_kept_out_pictures_of_classes_need_no_texts(model: str, data: str, tmp_path: Path) -> None:
    pictures = write_data(tmp_path / "general", ("picture",), test=6)
    config, notes = composed(model, data, general=pictures)
    general = config.finetune.general
    assert (general.lacks, general.classes, general.metrics) == (["text"], 2, ["zero_shot"])
    kept = kept_out(config)
    assert kept is not None and list(kept.data.modalities) == ["image"]
    assert any("the kept-out data have no text" in note for note in notes)
    write(tmp_path / "none" / "test", lambda number: {"jpg": downloaded(number)["jpg"]}, 4)
    build_index(tmp_path / "none" / "test")
    with pytest.raises(StartError, match=r"has image of image, text, and no names of classes.*modalities\.text\.mem"):
        composed(model, data, general=str(tmp_path / "none"))


def test_a_pair_of_encoders_gets_projections_that_learn_faster(data: str, tmp_path: Path) -> None:
    image = write_config(tmp_path / "vit", model_type="vit", image_size=32)
    text = write_config(tmp_path / "bert", model_type="bert", max_position_embeddings=16)
    start = of_encoders({"picture": image, "caption": text})
    found = run_tokens(Asked(start, data, None, (), None, ()), 1, Choices())
    config = compose(found.tokens, None, Choices(), FinetuneLook(start))
    encoder = config.model.encoders["picture"]
    assert encoder.pretrained == image and config.model.embed_dim == 256
    assert encoder.projection_lr_scale and encoder.projection_lr_scale * config.optim.lr == pytest.approx(5e-4)
    assert config.data.modalities["picture"].size == [32, 32] and config.data.modalities["caption"].max_length == 16
    renamed = of_encoders({"picture": image, "words": text})
    with pytest.raises(ConfigError, match="call the encoders as the data call their modalities"):
        run_tokens(Asked(renamed, data, None, (), None, ()), 1, Choices())


def test_the_model_is_the_first_word_unless_that_is_a_token() -> None:
    assert split_words(["a/b", "recipe=lit"]) == ("a/b", ["recipe=lit"])
    assert split_words(["recipe=lit"]) == (None, ["recipe=lit"]) and split_words([]) == (None, [])
