"""Whole runs of a model that no rank may hold: the system limits the memory of each."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import psutil
import pytest

from mmpretrain.config.compose import compose, save_config
from mmpretrain.config.root import Config
from mmpretrain.engine import engine as engine_module
from mmpretrain.engine.deepspeed_setup import Joined
from mmpretrain.engine.engine import Engine, StepReport
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.training import session as session_module
from mmpretrain.training.preemption import PreemptedError, request_preemption
from mmpretrain.training.train import main
from tests.engine.runs import forget_engines
from tests.rank_pool import RankError, RankPool

RANKS, LAYERS, WIDTH = 4, 12, 1024
WHOLE = LAYERS * 12 * WIDTH**2 * 4  # bytes of the matrices of one encoder: 604 MB
SHARE = WHOLE // RANKS
# What a rank may take beside what it has when it starts, until DeepSpeed has the model, and from then on.
BUILDING = WHOLE * 3 // 4
TRAINING = WHOLE + 4 * SHARE + SHARE * 3 // 5
GATHERING = "engine.deepspeed.zero_optimization"
AS_DEEPSPEED = [f"{GATHERING}.stage3_max_{key}=1000000000" for key in ("live_parameters", "reuse_distance")]


def test_the_limits_are_below_what_a_rank_with_the_whole_model_needs() -> None:
    masters = gradients = gradients_of_the_step = SHARE
    needed = WHOLE + masters + gradients + gradients_of_the_step + 2 * SHARE  # the optimizer's two means
    assert WHOLE > BUILDING
    assert needed > TRAINING


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1800)
def test_a_run_starts_stops_goes_on_and_releases_below_them(digits: Path, tmp_path: Path) -> None:
    run = _run(digits, tmp_path / "run")
    assert _start(run, stop_after=2) == ["stopped"] * RANKS
    assert _start(run) == ["done"] * RANKS
    lines = list(read_lines(run.metrics))
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert any(key.startswith("eval") for line in lines for key in line)
    assert sum(file.stat().st_size for file in run.release.glob("*.safetensors")) > WHOLE


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("parts", "tokens"), [(False, []), (True, AS_DEEPSPEED)], ids=["built whole", "whole in steps"]
)
def test_a_run_that_holds_it_whole_does_not_fit(digits: Path, tmp_path: Path, parts: bool, tokens: list[str]) -> None:
    run = _run(digits, tmp_path / "run", *tokens)
    with pytest.raises(RankError, match=r"(?i)memory|alloc"):
        _start(run, parts=parts)


def _run(digits: Path, path: Path, *tokens: str) -> RunFolder:
    """A run of 4 steps, to be started."""
    large = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    config = compose(
        [
            *("experiment=digits", "method=clip", "engine=zero3", "engine.threads=1", "tracking.tensorboard=off"),
            f"data.path={digits}",
            *("data.workers=0", "data.global_batch=8", "train.samples=32"),
            f"model.encoders.caption.tokenizer={digits / 'tokenizer'}",
            *(f"model.encoders.caption.config.{key}={value}" for key, value in large.items()),
            *(f"model.encoders.{name}.config.num_hidden_layers=1" for name in ("left", "right")),
            *("checkpoint.background=false", "checkpoint.every_steps=100", "checkpoint.keep_last=1"),
            *("evaluation.every_steps=4", "evaluation.during=[retrieval]", "evaluation.final=[retrieval]"),
            "evaluation.split=test",
            *("evaluation.max_samples=16", "evaluation.batch=4", "evaluation.best.score=null"),
            "evaluation.release=last",
            *tokens,
        ]
    )
    path.mkdir()
    save_config(config, path / "config.yaml")
    return RunFolder(path)


def _start(run: RunFolder, *, parts: bool = True, stop_after: int | None = None) -> list[str]:
    """One start of a run on new ranks; how it ended on each."""
    with RankPool(RANKS) as pool:
        return pool.run(bounded, (str(run.path), parts, stop_after), 1500)


def bounded(folder: str, parts: bool, stop_after: int | None) -> str:
    """Train the run in ``folder`` on this rank, which lives for it alone, with no more memory than allowed."""
    forget_engines()
    at_first = psutil.Process().memory_info().data
    join, hand_over, step = session_module.join, engine_module.hand_over, Engine.step
    done = 0

    def allow(more: int) -> None:
        # Of memory that is the process's own: mapped files, out of which releases are written, are not.
        resource.setrlimit(resource.RLIMIT_DATA, (at_first + more, resource.RLIM_INFINITY))

    def joined(config: Config, **_: bool) -> Joined:
        return join(config, parts=parts)

    def handed_over(*arguments: Any) -> None:
        hand_over(*arguments)
        allow(TRAINING)

    def stepped(engine: Engine, *arguments: Any) -> StepReport:
        nonlocal done
        report = step(engine, *arguments)
        done += 1
        if done == stop_after:
            request_preemption()
        return report

    session_module.join, engine_module.hand_over = joined, handed_over  # type: ignore[assignment]
    Engine.step = stepped  # type: ignore[assignment, method-assign]
    allow(BUILDING)
    try:
        main(Path(folder))
    except PreemptedError:
        return "stopped"
    return "done"
