"""From a file of MultiBench's layout to a trained model: the command, the experiments' checks, two steps, scores."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launcher.planning.checks import check_data
from launcher.planning.resources import Purpose
from mmpretrain.assembly.check import check_model
from mmpretrain.config.compose import compose, save_config
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.training.session import Session
from mmpretrain.training.train import fit
from shards.cli import app
from tests.engine.runs import forget_engines
from tests.rank_pool import Ranks
from tests.shards.multibench.drawn import affect_arrays, mimic_arrays, write_pickle, write_trajectories


def affect(vision: int, audio: int) -> Callable[[Path], Path]:
    """Writes a file of people who speak."""
    sizes = {"vision": vision, "audio": audio, "text": 300}
    return lambda folder: write_pickle(folder / "file.pkl", affect_arrays(16, sizes, 12))


def mimic(folder: Path) -> Path:
    """Writes a file of stays in hospital."""
    return write_pickle(folder / "im.pk", mimic_arrays(60))


def robot(folder: Path) -> Path:
    """Writes a folder of trajectories."""
    return write_trajectories(folder / "runs", 10)


FILES: dict[str, Callable[[Path], Path]] = {
    "mosi": affect(20, 5),
    "mosei": affect(35, 74),
    "urfunny": affect(371, 81),
    "mustard": affect(371, 81),
    "mimic": mimic,
    "vision_touch": robot,
}
# As drawn, for processors that are slow.
SMALL = {
    "vision_touch": [
        "data.modalities.image.size=[32,32]",
        "model.encoders.image.config.hidden_sizes=[8,8,8,8]",
        "model.encoders.image.config.depths=[1,1,1,1]",
    ]
}


def built(folder: Path, name: str) -> list[str]:
    """The tokens that point to the shards of a drawn file."""
    arguments = ["build", "multibench", "--file", str(FILES[name](folder)), "--name", name, "--out", str(folder / name)]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.stdout
    assert set(json.loads(done.stdout)["samples"]) == {"train", "validation", "test"}
    return [f"data.path={folder / name}", "data.global_batch=8", *SMALL.get(name, [])]


@pytest.mark.parametrize("name", FILES)
def test_an_experiment_stands_before_it_runs(tmp_path: Path, name: str) -> None:
    """What `--dry-run` looks at: config, shards and model, for every experiment of the data set."""
    tokens = built(tmp_path, name)
    experiments = sorted(path.stem for path in Path("configs/experiment").glob(f"{name}*.yaml"))
    assert name in experiments
    for experiment in experiments:
        config = compose([f"experiment={experiment}", *tokens])
        assert check_data(config, Purpose.run).problems == (), experiment
        assert check_model(config).problems == [], experiment


def trained(folder: str) -> None:
    """Train to the end, on this rank."""
    forget_engines()
    fit(Session(RunFolder(Path(folder))))


@pytest.mark.parametrize(
    ("name", "experiment", "score"),
    [
        pytest.param("mosi", "mosi", "fused/balanced_accuracy", marks=pytest.mark.slow),
        pytest.param("mimic", "mimic", "fused/accuracy", marks=pytest.mark.slow),
        pytest.param("mimic", "mimic_factorcl", "timeseries/accuracy", marks=pytest.mark.slow),
        pytest.param("vision_touch", "vision_touch", "fused/mse", marks=pytest.mark.slow),
        ("vision_touch", "vision_touch_contact_three", "fused/accuracy"),
        pytest.param("vision_touch", "vision_touch_finetune", "fused/mse", marks=pytest.mark.slow),
    ],
)
def test_two_steps_of_every_encoder_and_its_score(
    tmp_path: Path, ranks: Ranks, name: str, experiment: str, score: str
) -> None:
    tokens = built(tmp_path, name)
    small = ["train.samples=16", "checkpoint.every_steps=2", "evaluation.linear_probe.candidates=[]"]
    small += ["evaluation.linear_probe.chosen_by=accuracy"]
    small += ["tracking.tensorboard=off", "evaluation.intervals=false", "evaluation.every_steps=2"]
    run = tmp_path / "run"
    run.mkdir()
    config = compose([f"experiment={experiment}", *tokens, *small])
    if config.evaluation.best.score is None:
        config.evaluation.every_steps = None
    save_config(config, run / "config.yaml")
    ranks(1, trained, str(run))
    losses = [line["loss"] for line in read_lines(run / "metrics.jsonl") if "loss" in line]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    assert math.isfinite(json.loads((run / "evaluation.json").read_text())[f"linear_probe/{score}"])


def test_options_of_other_data_sets_are_refused(tmp_path: Path) -> None:
    for option, file in ((["--task", "3"], "mosi_raw.pkl"), (["--label", "seven"], "im.pk"), (["--z-norm"], "im.pk")):
        failed = CliRunner().invoke(app, ["build", "multibench", "--file", str(tmp_path / file), *option])
        assert failed.exit_code == 1 and f"{option[0]} has no effect on" in failed.stderr
    failed = CliRunner().invoke(app, ["build", "multibench", "--file", str(tmp_path / "x.pkl")])
    assert "say which data set it is by --name mosi or mosei" in failed.stderr
    for file, name in (("humor.pkl", "urfunny"), ("mosi_data.pkl", "mosi"), ("mosi_raw.pkl", "mosi")):
        failed = CliRunner().invoke(app, ["build", "multibench", "--file", str(tmp_path / file)])
        assert f"is no file: name MultiBench's file of {name}" in failed.stderr.replace("\n", " ")
