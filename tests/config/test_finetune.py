"""What recipes demand of a config, and how kept-out data take the place of a run's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.evaluation import Metric
from mmpretrain.config.finetune import GeneralConfig, Recipe
from mmpretrain.config.kept_out import kept_out
from mmpretrain.config.shipped import CONFIGS

FROZEN = [f"model.encoders.{name}.freeze=true" for name in ("left", "right", "caption")]


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (["recipe=full", FROZEN[0]], r"recipe=full trains everything, but model\.encoders\.left\.freeze=true"),
        (["recipe=full", "model.lora.rank=2"], r"model\.lora\.rank is 2: choose recipe=lora"),
        (["recipe=head", *FROZEN[:2]], r"recipe=head freezes all encoders: set model\.encoders\.caption\.freeze"),
        (["recipe=lit"], "it finds none frozen"),
        (["recipe=lit", *FROZEN], "recipe=lit locks some encoders and trains others"),
        (["recipe=lora", "model.lora.rank=null"], r"recipe=lora needs model\.lora\.rank"),
        (["finetune.general.path=x"], r"has no effect without finetune\.before=true"),
    ],
)
def test_what_contradicts_a_recipe_is_a_problem(tokens: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        compose(tokens)


def test_every_recipe_has_a_file_and_sets_rates_over_those_of_the_optimizer() -> None:
    assert {path.stem for path in (CONFIGS / "recipe").glob("*.yaml")} == set(Recipe)
    config = compose(["recipe=lora", "optim.clip=3"])
    assert (config.finetune.recipe, config.model.lora.rank, config.optim.lr) == (Recipe.lora, 16, 2e-4)
    assert (config.optim.name, config.optim.clip) == ("adamw", 3)
    with pytest.raises(ConfigError, match="optim=adam has no effect beside recipe=lora"):
        compose(["recipe=lora", "optim=adam"])


def test_kept_out_data_are_prepared_as_the_runs_own_and_lie_elsewhere(tmp_path: Path) -> None:
    general = [f"finetune.general.path={tmp_path}", "finetune.general.classes=3", "finetune.general.split=held"]
    layout = ["finetune.general.modalities.caption.member=[words.txt]", "finetune.before=true"]
    config = compose(["data.modalities.left.member=[l.png]", *general, *layout])
    kept = kept_out(config)
    assert kept is not None and (kept.data.path, kept.data.classes, kept.data.sources) == (str(tmp_path), 3, {})
    assert kept.data.modalities["left"].size == config.data.modalities["left"].size
    assert kept.data.modalities["left"].member == [] and kept.data.modalities["caption"].member == ["words.txt"]
    assert (kept.evaluation.split, kept.evaluation.final) == ("held", [Metric.retrieval])
    assert kept_out(compose([])) is None


@pytest.mark.parametrize(
    ("general", "sentence"),
    [
        (GeneralConfig("x", metrics=[]), "metrics is empty"),
        (GeneralConfig("x", classes=1), "at least 2 are needed"),
        (GeneralConfig("x", classes=3, metrics=[Metric.knn]), "knn learns from samples"),
        (GeneralConfig("x", metrics=[Metric.zero_shot]), "zero_shot needs labels"),
    ],
)
def test_metrics_of_kept_out_data_learn_nothing_and_find_what_they_need(general: GeneralConfig, sentence: str) -> None:
    assert any(sentence in problem for problem in general.problems())
