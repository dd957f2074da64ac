"""Which splits an evaluation reads, and what it asks of the dataset before training starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from launcher.planning.checks import check_data
from launcher.planning.resources import Purpose
from mmpretrain.assembly.check import check_model
from mmpretrain.config.compose import ConfigError, compose, load_config, save_config
from mmpretrain.config.evaluation import EvaluationConfig, Metric, Need
from mmpretrain.training.preflight import _evaluation_problems
from shards.latents import build_latents


def test_the_probes_split_is_read_only_if_something_probes() -> None:
    assert EvaluationConfig(final=[Metric.retrieval], probe_split="probe").splits == ["test"]
    assert EvaluationConfig(final=[Metric.factors], probe_split="probe").splits == ["test", "probe"]
    assert EvaluationConfig(final=[], during=[Metric.linear_probe]).splits == ["test", "train"]


def test_what_the_dataset_lacks_is_found_before_training(tmp_path: Path) -> None:
    build_latents(tmp_path / "latents", samples=50)
    tokens = ["experiment=latents", "method=clip", f"data.path={tmp_path / 'latents'}"]
    assert check_data(compose(tokens), Purpose.run).problems == ()
    (missing,) = check_data(compose([*tokens, "evaluation.probe_split=probe"]), Purpose.run).problems
    assert "latents/probe" in missing
    info = tmp_path / "latents" / "dataset.json"
    info.write_text(info.read_text().replace('"factors"', '"other"'))
    (problem,) = check_data(compose(tokens), Purpose.run).problems
    assert "names no factors in its dataset.json" in problem


UNEQUAL = ["model.embed_dim=null", "model.encoders.left.config.hidden_size=32"]


@pytest.mark.parametrize("need", Need)
def test_every_need_is_checked_before_training(need: Need, digits: Path, tmp_path: Path) -> None:
    """By config, dataset or model: no need can be stated that nobody looks at."""
    tokenizer = f"model.encoders.caption.tokenizer={digits / 'tokenizer'}"
    tokens = ["experiment=digits", f"data.path={digits}", tokenizer]
    found: Sequence[str]
    match need:
        case Need.labels:
            found = _refused([*tokens, "data.classes=null", "evaluation.final=[linear_probe]"])
        case Need.logits:
            found = _refused([*tokens, "evaluation.final=[classification]"])
        case Need.factors:
            found = check_data(compose([*tokens, "evaluation.final=[factors]"]), Purpose.run).problems
        case Need.probe_split:
            wanted = ["evaluation.final=[linear_probe]", "evaluation.probe_split=probe"]
            found = check_data(compose([*tokens, *wanted]), Purpose.run).problems
        case Need.one_class:
            found = _refused([*tokens, "data.label.form=several", "evaluation.final=[knn]"])
        case Need.class_names:
            nameless = tmp_path / "nameless"
            shutil.copytree(digits, nameless)
            info = json.loads((digits / "dataset.json").read_text())
            (nameless / "dataset.json").write_text(json.dumps({**info, "classes": None}))
            moved = [tokens[0], f"data.path={nameless}", tokens[2], "evaluation.final=[zero_shot]"]
            found = check_data(compose(moved), Purpose.run).problems
        case Need.texts:
            gone = ["data.modalities.caption=null", "model.encoders.caption=null", "evaluation.final=[zero_shot]"]
            found = _refused([tokens[0], tokens[1], *gone])
        case Need.equal_widths:
            config = compose([*tokens, *UNEQUAL, "evaluation.final=[linear_probe, retrieval]"])
            _, _, model = check_model(config)
            assert model is not None
            found = _evaluation_problems(config, model)
    (problem,) = found
    words = {
        Need.labels: "evaluation metric linear_probe needs labels, but data.classes is null",
        Need.logits: "evaluation metric classification needs logits, which method=clip does not learn",
        Need.factors: "evaluation metric factors needs factors, but",
        Need.probe_split: "digits/probe",
        Need.equal_widths: "evaluation metric retrieval compares embeddings of one width",
        Need.one_class: "evaluation metric knn needs one class per sample, but data.label.form is several",
        Need.class_names: "evaluation metric zero_shot needs names of classes",
        Need.texts: "evaluation metric zero_shot needs a modality that is a text",
    }
    assert words[need] in problem


def test_a_split_of_too_few_samples_is_found_before_training(digits: Path) -> None:
    tokens = ["experiment=digits", f"data.path={digits}", "evaluation.max_samples=1"]
    (problem,) = check_data(compose(tokens), Purpose.run).problems
    assert "needs at least 2 samples of train and can use 1" in problem
    assert check_data(compose([*tokens, "evaluation.final=[retrieval]"]), Purpose.run).problems == ()


BEST = ["experiment=digits", "evaluation.best.score=retrieval/left->caption/recall@1", "evaluation.every_steps=5"]


@pytest.mark.parametrize(
    ("tokens", "problem"),
    [
        (["evaluation.every_steps=null"], "measured every evaluation.every_steps steps, which is null"),
        (["evaluation.best.split=test"], "evaluation.best.split and evaluation.split are both 'test'"),
        (["evaluation.best.split=train"], "is 'train', which is learned from"),
        (["evaluation.best.score=retrieval/left->sound/recall@1"], "names are of left, right, caption"),
        (["evaluation.best.score=linear_probe/left/recall@1"], "linear_probe has scores linear_probe/SUBJECT/"),
        (["evaluation.best.score=accuracy"], "'accuracy' is no metric"),
        (
            ["evaluation.best.score=null", "evaluation.release=best"],
            "evaluation.release=best needs evaluation.best.score",
        ),
        (["evaluation.retrieval.same=[sound]"], "evaluation.retrieval.same: data.modalities has no 'sound'"),
        (["evaluation.zero_shot.classes=[a, b]"], "has 2 names and data.classes is 10"),
        (["evaluation.zero_shot.templates=[a photo]"], "must have {} once"),
        (["evaluation.linear_probe.candidates=[0.1, 0]"], "candidates has 0"),
    ],
)
def test_what_a_setting_of_the_evaluation_lacks_is_said(tokens: list[str], problem: str) -> None:
    (found,) = _refused([*BEST, *tokens])
    assert problem in found


def test_the_best_step_is_chosen_on_a_split_of_its_own_that_must_be_there(digits: Path) -> None:
    config = compose([*BEST, f"data.path={digits}", "evaluation.during=[knn]"])
    assert config.evaluation.watched == [Metric.knn, Metric.retrieval]
    assert config.evaluation.splits == ["test", "validation", "train"]
    (missing,) = check_data(config, Purpose.run).problems
    assert "digits/validation" in missing


def _refused(tokens: list[str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(tokens)
    return caught.value.problems


def test_a_config_stored_before_an_evaluator_was_written_still_loads(tmp_path: Path) -> None:
    config = compose(["evaluation.during=[retrieval]"])
    save_config(config, tmp_path / "new.yaml")
    stored = yaml.safe_load((tmp_path / "new.yaml").read_text())
    assert stored["evaluation"]["final"] == ["linear_probe", "retrieval"]
    del stored["evaluation"]["knn"]
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(stored))
    assert load_config(tmp_path / "old.yaml") == config
