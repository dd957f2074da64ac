"""The best step on a validation split is kept, released and found again after a kill; test samples are read once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpretrain.config.compose import compose, save_config
from mmpretrain.config.evaluation import BestConfig
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.engine.checkpoint_files import steps
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.evaluate import plain
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.training.best import Best, better, known_best
from mmpretrain.training.measuring import Measuring
from mmpretrain.training.session import Session
from mmpretrain.training.train import fit
from tests.engine.runs import forget_engines, weights_digest
from tests.rank_pool import Ranks

SCORE = "retrieval/left->caption/recall@1"
VALUES = {3: 0.2, 6: 0.9, 9: 0.9, 12: 0.1}  # step 6 is the best, and the first of two
SETTINGS = BestConfig(SCORE)


@pytest.fixture(scope="module")
def with_validation(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, a third of whose held-out shards are for validation."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    shutil.copytree(digits, folder)
    shutil.copytree(folder / "test", folder / "validation")
    return folder


def run_folder(data: Path, path: Path, *tokens: str) -> Path:
    """A run of 12 steps, to be started."""
    config = compose(
        [
            "experiment=digits",
            f"data.path={data}",
            f"model.encoders.caption.tokenizer={data / 'tokenizer'}",
            *(f"model.encoders.{name}.config.num_hidden_layers=1" for name in ("left", "right", "caption")),
            "data.global_batch=12",
            "train.samples=144",
            "checkpoint.every_steps=5",
            "checkpoint.keep_last=1",
            "evaluation.every_steps=3",
            "evaluation.final=[retrieval]",
            "evaluation.max_samples=24",
            "evaluation.batch=4",
            f"evaluation.best.score={SCORE}",
            "evaluation.release=best",
            "tracking.tensorboard=off",
            *tokens,
        ]
    )
    path.mkdir()
    save_config(config, path / "config.yaml")
    return path


def trained(folder: str, kill_after: int | None = None) -> dict[str, Any]:
    """Train to the end, with made-up scores; killed once after a step if so wished. What was seen on the way."""
    forget_engines()
    seen: dict[str, Any] = {"splits": [], "weights": {}}
    session = Session(RunFolder(Path(folder)))
    measure, embed, step = Measuring.while_training, session.measuring.embed, session.engine.step
    done = [0]

    def scored(measuring: Measuring) -> tuple[dict[str, float], Embeddings]:
        results, shown = measure(measuring)
        seen["weights"][done[0]] = weights_digest(session.engine)
        return {**results, SCORE: VALUES[done[0]]} if results else {}, shown

    def noted(split: str, *rest: Any, **options: Any) -> object:
        seen["splits"].append((done[0], split))
        return embed(split, *rest, **options)

    def stepped(batch: Batch, at: Step) -> object:
        if at.index == kill_after:
            raise KeyboardInterrupt
        done[0] = at.index + 1
        return step(batch, at)

    session.measuring.while_training = lambda **_: scored(session.measuring)  # type: ignore[method-assign]
    session.measuring.embed = noted  # type: ignore[method-assign, assignment]
    session.engine.step = stepped  # type: ignore[method-assign, assignment]
    try:
        fit(session)
    except KeyboardInterrupt:
        return seen
    seen["released"] = weights_digest(session.engine)
    return seen


def check_released(run: Path, seen: dict[str, Any], at_best: str) -> None:
    status = RunFolder(run).status()
    assert status["best"] == {"score": SCORE, "step": 6, "value": 0.9, "split": "validation"}
    assert status["released_step"] == 6 and status["evaluated"]["held_out"]
    assert seen["released"] == at_best
    assert steps(run / "checkpoints") == [12, 6]
    assert {split for _, split in seen["splits"][:-1]} == {"validation"} and seen["splits"][-1][1] == "test"
    assert json.loads((run / "evaluation.json").read_text())["retrieval/left->caption/recall@1/low"] >= 0


@pytest.mark.parametrize("zero", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_the_best_step_is_released_and_the_test_split_is_read_once(
    ranks: Ranks, with_validation: Path, tmp_path: Path, zero: int
) -> None:
    run = run_folder(with_validation, tmp_path / "run", f"engine.zero={zero}")
    first, _ = ranks(2, trained, str(run))
    check_released(run, first, first["weights"][6])
    lines = [line for line in read_lines(run / "metrics.jsonl") if f"eval/validation/{SCORE}" in line]
    assert {line["step"]: line[f"eval/validation/{SCORE}"] for line in lines} == VALUES

    again = run_folder(with_validation, tmp_path / "killed", f"engine.zero={zero}")
    killed, _ = ranks(2, trained, str(again), 8)
    assert killed["weights"][6] == first["weights"][6] and steps(again / "checkpoints") == [6]
    resumed, _ = ranks(2, trained, str(again))
    check_released(again, resumed, first["weights"][6])


@pytest.mark.parametrize(
    ("settings", "before", "value", "after"),
    [
        (SETTINGS, None, 0.5, 5),
        (SETTINGS, 0.4, 0.5, 5),
        (SETTINGS, 0.5, 0.5, 1),
        (BestConfig("retrieval/left->caption/median_rank"), 9.0, 7.0, 5),
        (BestConfig("retrieval/left->caption/median_rank"), 9.0, 11.0, 1),
    ],
)
def test_the_better_step_wins_and_of_equals_the_earlier(
    settings: BestConfig, before: float | None, value: float, after: int
) -> None:
    score = str(settings.score)
    best = None if before is None else Best(score, 1, before, "validation")
    found = better(best, settings, 5, {score: value}, World.single())
    assert found is not None and found.step == after
    assert known_best(json.loads(json.dumps({"best": found.facts()}))) == found


@pytest.mark.parametrize("results", [{}, {SCORE: float("nan")}])
def test_a_score_that_is_not_there_ends_the_run(results: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no finite 'retrieval/left->caption/recall@1'"):
        better(None, SETTINGS, 5, results, World.single())


def measured(folder: str) -> dict[str, float]:
    """The final evaluation of a model that was never trained, on the ranks that there are."""
    forget_engines()
    torch.manual_seed(0)
    return plain(Session(RunFolder(Path(folder))).measuring.final()[0], wanted=True)


def test_all_metrics_of_a_live_engine_are_the_same_on_1_2_and_3_ranks_and_under_zero(
    ranks: Callable[..., list[Any]], with_validation: Path, tmp_path: Path
) -> None:
    found = {}
    for size, zero in ((1, 0), (2, 3), (3, 2)):
        run = run_folder(
            with_validation,
            tmp_path / f"run{size}",
            "method=comm",
            f"engine.zero={zero}",
            "evaluation.final=[knn, linear_probe, retrieval, robustness, zero_shot]",
            "evaluation.retrieval.captions=all",
            "evaluation.retrieval.same=[left]",
            "evaluation.knn.k=3",
        )
        found[size] = ranks(size, measured, str(run))[0]
    assert {"zero_shot/left->caption/accuracy", "robustness/fused/probe/without/caption"} <= set(found[1])
    for size in (2, 3):
        assert found[size] == pytest.approx(found[1], abs=1e-6), size
