"""A release of a checkpoint's average, and of its mixture with the start: those of the engine to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmpretrain.assembly.build import build_processor
from mmpretrain.config.averaging import AveragingConfig, Weights
from mmpretrain.config.compose import save_config
from mmpretrain.engine import checkpoint
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.problems import UnusableError
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.chosen_weights import Chosen, choose, was_evaluated
from mmpretrain.training.export import export_run
from mmpretrain.training.interpolation import Mixtures
from mmpretrain.training.parts import Parts, write_parts
from mmpretrain.training.start_sources import open_source
from mmpretrain.training.start_weights import StartWeights, write_start
from tests.engine import runs

SCORE = "retrieval/left->caption/recall@1"
TOKENS = ["method=clip", "data.path=/nowhere", "averaging.ema=0.5", "averaging.interpolate=[0,1]"]
TOKENS += [f"evaluation.best.score={SCORE}", "evaluation.every_steps=1", "model.encoders.left.freeze=true"]


def train_a_little(folder: str, *tokens: str) -> None:
    """A run folder with a checkpoint after 2 steps; beside it the average and a mixture that the engine then held."""
    config = runs.tiny_config(*TOKENS, *tokens)
    run = RunFolder(Path(folder))
    runs.forget_engines()
    torch.manual_seed(0)
    engine = runs.start(config)
    if engine.world.rank == 0:
        save_config(config, run.config)
        write_parts(run.parts, Parts(engine.method.model.config, build_processor(config), None, None))  # type: ignore[arg-type]
    torch.manual_seed(0)
    write_whole(run, runs.build_method(config), engine.world.rank)
    engine.world.barrier()
    runs._run(engine, range(2))
    checkpoint.save(engine, run.checkpoints, 2, {})
    assert engine.average
    engine.average.take()
    keep(engine, run.path / "average.pt")
    Mixtures(engine, StartWeights(run.start_weights, engine.world)).put(0.25)
    keep(engine, run.path / "mixture.pt")


def write_whole(run: RunFolder, method: runs.Method, rank: int) -> None:
    """As before a run's first step, of a model that is still whole."""
    if rank == 0:
        write_start(run.start_weights, method.model, method.heads)


def keep(engine: runs.Engine, path: Path) -> None:
    """Weights and scale; a collective."""
    state = engine.state_dict()
    if state is not None:
        scale = engine.method.heads.state_dict()["temperature.logit_scale"]
        torch.save(state | {"logit_scale": scale.view(1).clone()}, path)


def check(run: RunFolder, release: Path, name: str) -> None:
    """The release holds the weights that the engine held."""
    right: dict[str, Tensor] = torch.load(run.path / f"{name}.pt")
    written = MMPretrainModel.from_pretrained(release).state_dict()
    assert written.keys() == right.keys()
    assert [key for key in right if not torch.equal(written[key], right[key])] == []


@pytest.mark.parametrize(
    ("world_size", "stage"),
    [(2, 3), *(pytest.param(w, s, marks=pytest.mark.slow) for w in (1, 2) for s in (0, 1, 2, 3) if (w, s) != (2, 3))],
)
def test_average_and_mixture_are_those_of_the_engine(
    ranks: Callable, tmp_path: Path, world_size: int, stage: int
) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    ranks(world_size, train_a_little, str(run.path), f"engine=zero{stage}")
    made = export_run(run, tmp_path / "average")
    assert made.chosen == Chosen(Weights.ema)
    check(run, made.folder, "average")
    check(run, export_run(run, tmp_path / "mixture", mixture=0.25).folder, "mixture")
    raw = MMPretrainModel.from_pretrained(export_run(run, tmp_path / "raw", kind=Weights.raw).folder).state_dict()
    average = torch.load(run.path / "average.pt")
    assert any(not torch.equal(raw[name], average[name]) for name in average)
    ((_, started),) = open_source(str(run.path)).tensors(["projections.left.weight"])
    assert torch.equal(started, average["projections.left.weight"])
    for path in (run.checkpoints / "step-00000002").glob("ema-*"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"ema-00000\.safetensors is missing"):
        export_run(run, tmp_path / "lost")


def test_what_a_run_did_not_keep_is_refused() -> None:
    kept = AveragingConfig(ema=0.9, interpolate=[0, 1])
    with pytest.raises(UnusableError, match="kept no average"):
        choose(AveragingConfig(), {}, 2, Weights.ema, None)
    with pytest.raises(UnusableError, match="did not keep the weights that it started from"):
        choose(AveragingConfig(), {}, 2, None, 0.5)
    with pytest.raises(UnusableError, match="a mixture of 2 is asked for"):
        choose(kept, {}, 2, None, 2)


def test_a_release_of_the_released_step_is_as_the_run_released_it_and_has_its_scores() -> None:
    settings, status = (
        AveragingConfig(ema=0.9, interpolate=[0, 1]),
        {"released_step": 6, "interpolation": {"alpha": 0.5}},
    )
    found = choose(settings, status, 6, None, None)
    assert found == Chosen(Weights.ema, 0.5) and was_evaluated(found, settings, status, 6)
    for step, kind, mixture in ((5, None, None), (6, Weights.raw, None), (6, None, 1.0)):
        other = choose(settings, status, step, kind, mixture)
        assert not was_evaluated(other, settings, status, step)
