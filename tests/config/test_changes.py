"""What a run may change when it goes on: keys by their marks, sections for what is below them."""

from __future__ import annotations

import pytest

from mmpretrain.config.changes import changes, may_change
from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config


def config(*tokens: str) -> Config:
    """A small config."""
    return compose(["method=clip", *tokens])


@pytest.mark.parametrize(
    ("token", "may"),
    [
        ("data.workers=3", True),
        ("data.max_bad_fraction=0.5", True),
        ("data.accept_index=0123456789ab", True),
        ("model.encoders.caption.tokenizer=/elsewhere", True),
        ("checkpoint.every_steps=7", True),
        ("train.log_every_steps=9", True),
        ("engine.timeout_s=99", True),
        ("run.root=elsewhere", True),
        ("run.license=mit", True),
        ("evaluation.final=[retrieval]", True),
        ("evaluation.knn.k=3", True),
        ("evaluation.release=best", False),
        ("optim.lr=0.5", False),
        ("engine.micro_batches=2", True),
        ("engine.zero=3", True),
        ("engine.precision=bfloat16", True),
        ("objective.tile=64", False),
        ("method.temperature=0.5", False),
        ("data.global_batch=64", False),
        ("init_from=runs/a", False),
        ("seed=3", False),
        ("model.encoders.left.config.num_hidden_layers=1", False),
    ],
)
def test_a_key_changes_results_or_it_does_not(token: str, may: bool) -> None:
    old, new = config(), config()
    if token != "evaluation.release=best":  # which composes with a score only
        new = config(token)
    (key,) = [change.key for change in changes(old, new)] or [token.partition("=")[0]]
    assert may_change(key, old, new) is may


@pytest.mark.parametrize(
    ("token", "may"), [("zero_optimization.reduce_bucket_size=9", True), ("progressive_layer_drop.enabled=true", False)]
)
def test_of_deepspeed_only_where_state_lies_and_how_it_travels_may_change(token: str, may: bool) -> None:
    old, new = config(), config(f"engine.deepspeed.{token}")
    assert all(may_change(change.key, old, new) for change in changes(old, new)) is may


def test_the_place_of_data_may_change_and_the_weight_of_a_source_may_not() -> None:
    def mixed(path: str, weight: float) -> Config:
        sources = f"data.sources={{a: {{path: {path}, weight: {weight}}}, b: {{path: /b}}}}"
        return config("data=digits", "data.path=null", sources)

    moved = config("data=digits", "data.path=/there", "data.more_paths=[/more]")
    assert {c.key: may_change(c.key, config(), moved) for c in changes(config(), moved)} == {
        "data.path": True,
        "data.more_paths": True,
    }

    old, new = mixed("/a", 1.0), mixed("/there", 2.0)
    found = {change.key: may_change(change.key, old, new) for change in changes(old, new)}
    assert found == {"data.sources.a.path": True, "data.sources.a.weight": False}
    assert not all(may_change(change.key, config(), old) for change in changes(config(), old))


def test_scores_that_choose_what_is_released_are_fixed() -> None:
    best = ("evaluation.best.score=retrieval/left->caption/recall@1", "evaluation.every_steps=5")
    old, new = config(*best), config(*best, "evaluation.max_samples=9", "evaluation.intervals=false")
    assert {change.key: may_change(change.key, old, new) for change in changes(old, new)} == {
        "evaluation.max_samples": False,
        "evaluation.intervals": True,
    }


def test_scores_that_are_compared_with_those_of_the_start_are_measured_alike() -> None:
    old = config("finetune.before=true")
    new = config("finetune.before=true", "evaluation.max_samples=9", "evaluation.split=other")
    found = changes(old, new)
    assert len(found) == 2 and not any(may_change(change.key, old, new) for change in found)
    assert may_change("evaluation.split", config(), config("evaluation.split=other"))


def test_a_key_that_only_one_of_the_two_has_is_fixed() -> None:
    old = config()
    (first, *_) = found = changes(old, config("data.modalities.right=null", "model.encoders.right=null"))
    assert found and not any(may_change(change.key, old, old) for change in found)
    assert str(first).startswith(first.key)
