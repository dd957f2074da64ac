"""What a run ends with: averages, mixtures with its start, and the early stop, in whole runs with made-up scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpretrain.config.averaging import AveragingConfig, Weights
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.engine.checkpoint_files import steps
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.records import told_ending
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.export import export_run
from mmpretrain.training.final_weights import in_words
from mmpretrain.training.interpolation import Mixed
from mmpretrain.training.measuring import Measuring
from mmpretrain.training.session import Session
from mmpretrain.training.train import fit
from tests.engine.runs import forget_engines
from tests.rank_pool import Ranks
from tests.training.test_best import SCORE, run_folder, with_validation

__all__ = ["with_validation"]  # a fixture

WHILE_TRAINING = {3: 0.2, 6: 0.9, 9: 0.9, 12: 0.1}  # by step
OF_MIXTURES = [0.5, 0.8, 0.8, 0.3]  # in the order of their shares
SHARES = "averaging.interpolate=[1,0.25,0,0.5]"


def whole(session: Session) -> dict[str, Tensor]:
    """The weights of model and heads, on rank 0; a collective."""
    heads = {f"heads.{name}": t.clone() for name, t in session.method.heads.state_dict().items()}
    return {name: t.clone() for name, t in (session.engine.state_dict() or {}).items()} | heads


def trained(folder: str, kill_after: int | None = None, kill_at_mixture: int | None = None) -> dict[str, Any]:
    """Train to the end, or until it is killed; what was seen on the way.

    steps: that were taken. watched: step -> the weights that were measured. mixtures: those that were, in order.
    start, raw, final: the weights before the first step, after the last one, and at the end.
    """
    forget_engines()
    seen: dict[str, Any] = {"steps": [], "watched": {}, "mixtures": []}
    session = Session(RunFolder(Path(folder)))
    step, conclude = session.engine.step, session.method.conclude
    seen["start"] = whole(session)

    def stepped(batch: Batch, at: Step) -> object:
        if at.index == kill_after:
            raise KeyboardInterrupt
        seen["steps"].append(at.index + 1)
        return step(batch, at)

    def while_training(*, shown: bool = True) -> tuple[dict[str, float], Embeddings]:
        done = seen["steps"][-1]
        seen["watched"][done] = whole(session)
        return {SCORE: WHILE_TRAINING[done]}, Measuring.while_training(session.measuring)[1]

    def deciding() -> dict[str, float]:
        if len(seen["mixtures"]) == kill_at_mixture:
            raise KeyboardInterrupt
        seen["mixtures"].append(whole(session))
        return {SCORE: OF_MIXTURES[len(seen["mixtures"]) - 1]}

    def concluded(*arguments: Any) -> None:
        seen["final"] = whole(session)
        conclude(*arguments)

    session.measuring.while_training = while_training  # type: ignore[method-assign]
    session.measuring.deciding = deciding  # type: ignore[method-assign]
    session.engine.step = stepped  # type: ignore[method-assign, assignment]
    session.method.conclude = concluded  # type: ignore[method-assign, assignment]
    try:
        fit(session)
    except KeyboardInterrupt:
        return seen
    return seen


def equal(ours: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """To the last digit."""
    assert ours.keys() == right.keys()
    return all(torch.equal(ours[name], right[name]) for name in right)


def opened(release: Path) -> dict[str, Tensor]:
    """The weights in a release, by the names that they have in the model."""
    return MMPretrainModel.from_pretrained(release).state_dict()


def mixture(start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """The plain one of whole weights."""
    return {n: torch.lerp(start[n], end[n], share) if end[n].is_floating_point() else end[n] for n in end}


@pytest.mark.parametrize("zero", [3, *(pytest.param(stage, marks=pytest.mark.slow) for stage in (0, 1, 2))])
def test_the_best_mixture_of_start_and_average_is_released(
    ranks: Ranks, with_validation: Path, tmp_path: Path, zero: int
) -> None:
    tokens = [f"engine.zero={zero}", "method=clip", "averaging.ema=0.5", SHARES]
    run = run_folder(with_validation, tmp_path / "run", *tokens)
    seen, _ = ranks(2, trained, str(run))
    average = seen["watched"][6]  # of the best step
    for share, found in zip((0, 0.25, 0.5, 1), seen["mixtures"], strict=True):
        assert equal(found, mixture(seen["start"], average, share)), share
    assert equal(seen["final"], seen["mixtures"][1])
    status = RunFolder(run).status()
    scores = {"0": 0.5, "0.25": 0.8, "0.5": 0.8, "1": 0.3}
    assert status["interpolation"] == {"alpha": 0.25, "score": SCORE, "split": "validation", "scores": scores}
    assert status["released_step"] == 6 and status["evaluated"]["weights"] == "ema"
    shipped = opened(run / "release")
    assert all(torch.equal(shipped[name], seen["final"][name]) for name in shipped if name != "logit_scale")
    assert shipped["logit_scale"].item() == pytest.approx(seen["final"]["heads.temperature.logit_scale"].item())
    assert "0.25 of the exponential moving average" in (run / "release" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("zero", [1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_that_was_killed_twice_ends_with_the_same(
    ranks: Ranks, with_validation: Path, tmp_path: Path, zero: int, world_size: int
) -> None:
    tokens = [f"engine.zero={zero}", "method=clip", "averaging.ema=0.5", SHARES, "optim.layer_decay=0.5"]
    run = run_folder(with_validation, tmp_path / "run", *tokens)
    straight = ranks(world_size, trained, str(run))[0]
    again = run_folder(with_validation, tmp_path / "again", *tokens)
    ranks(world_size, trained, str(again), 8)
    ranks(world_size, trained, str(again), None, 2)
    resumed = ranks(world_size, trained, str(again))[0]
    assert resumed["steps"] == [] and equal(resumed["final"], straight["final"])


def test_a_run_without_a_better_score_ends_early_and_stays_complete(
    ranks: Ranks, with_validation: Path, tmp_path: Path
) -> None:
    tokens = ["method=clip", "evaluation.best.patience=1", "averaging.ema=0.5", "averaging.release=raw"]
    run = run_folder(with_validation, tmp_path / "run", *tokens)
    seen, _ = ranks(2, trained, str(run))
    assert seen["steps"] == list(range(1, 10)) and equal(seen["final"], seen["watched"][6])
    status = RunFolder(run).status()
    early = {"step": 9, "patience": 1, "best": 6, "score": SCORE, "value": 0.9}
    assert status["stopped_early"] == early and status["state"] == "completed"
    assert told_ending(status)[0].startswith("stopped early, after step 9 of 12: 1 measurements in a row of")
    assert (status["step"], status["total_steps"], status["released_step"]) == (9, 12, 6)
    assert status["evaluated"]["weights"] == "raw" and steps(run / "checkpoints") == [9, 6]
    again, _ = ranks(2, trained, str(run))  # as after a kill while it was finishing
    assert again["steps"] == [] and equal(again["final"], seen["final"])
    assert RunFolder(run).status()["released_step"] == 6


def start_again(folder: str) -> str:
    """What a new start of a run says."""
    forget_engines()
    try:
        Session(RunFolder(Path(folder)))
    except RuntimeError as error:
        return str(error)
    return "nothing"


def test_damaged_weights_of_the_start_are_found_when_the_run_goes_on(
    ranks: Ranks, with_validation: Path, tmp_path: Path
) -> None:
    run = run_folder(with_validation, tmp_path / "run", "method=clip", SHARES)
    ranks(1, trained, str(run), 7)
    (file,) = (run / "start_weights").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert "averaging.interpolate needs, and cannot be used" in ranks(1, start_again, str(run))[0]


def test_the_table_names_the_released_share() -> None:
    mixed = Mixed(0.5, SCORE, "validation", {0.0: 0.25, 0.5: 0.75})
    lines = told_ending({"interpolation": json.loads(json.dumps(mixed.facts()))})
    assert lines[1:] == ["      0  0.2500", "    0.5  0.7500  (released)"]


def test_a_card_says_which_weights_they_are() -> None:
    settings = AveragingConfig(ema=0.999)
    assert in_words(settings, Weights.raw, None) is None
    assert in_words(settings, Weights.ema, None) == (
        "the exponential moving average of the training's (decay 0.999, with warm-up)"
    )


def test_a_mixture_of_adapters_is_that_of_the_merged_weights(
    ranks: Ranks, with_validation: Path, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    tokens = ["method=clip", "model.lora.rank=2", "engine.zero=1", "optim.layer_decay=0.5", SHARES]
    run = run_folder(with_validation, tmp_path / "run", *tokens, "optim.lr=0.05", "optim.warmup_samples=0")
    ranks(1, trained, str(run))
    shares = {}
    for share in (0.0, 0.25, 1.0):
        made = export_run(RunFolder(run), tmp_path / f"share-{share}", 6, mixture=share, native=False)
        shares[share] = opened(made.folder)
    adapted = "encoders.left.backbone.layers.0.attention.q_proj.weight"
    assert (shares[1.0][adapted] - shares[0.0][adapted]).abs().max() > 1e-3
    for name, right in mixture(shares[0.0], shares[1.0], 0.25).items():
        if name != "logit_scale":
            torch.testing.assert_close(shares[0.25][name], right, rtol=1e-4, atol=1e-6, msg=name)
    chosen = opened(run / "release")
    assert all(torch.equal(chosen[name], tensor) for name, tensor in shares[0.25].items())
