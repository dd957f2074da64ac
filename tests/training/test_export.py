"""A release from a checkpoint: the live weights to the bit, whatever stage and ranks wrote it, data or no data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpretrain.assembly.build import build_processor
from mmpretrain.config.compose import save_config
from mmpretrain.engine import checkpoint, checkpoint_files
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.hub.card import CardFacts
from mmpretrain.hub.export import export_release
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import verify_release
from mmpretrain.run_folder import RunFolder, append_line
from mmpretrain.training import export
from mmpretrain.training.export import export_run
from mmpretrain.training.lazy_weights import LazyWeights
from mmpretrain.training.parts import Parts, write_parts
from tests.engine import runs
from tests.small_runs import OTHERS

LIVE = "live.pt"


def train_a_little(folder: str, *tokens: str) -> None:
    """A run folder with checkpoints after 1 and 2 steps, of data that is nowhere, and the live weights beside it."""
    config = runs.tiny_config(*tokens, "data.path=/nowhere", "checkpoint.keep_last=9")
    run, engine = RunFolder(Path(folder)), runs.start(config)
    if engine.world.rank == 0:
        save_config(config, run.config)
        write_parts(run.parts, Parts(engine.method.model.config, build_processor(config), None, "2 x abacus"))  # type: ignore[arg-type]
    for step in range(2):
        runs._run(engine, range(step, step + 1))
        checkpoint.save(engine, run.checkpoints, step + 1, {})
    state = engine.state_dict()
    if state is not None:
        torch.save(state, run.path / LIVE)


@pytest.fixture(scope="module")
def run(ranks: Callable, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Written by two ranks of ZeRO 3, every tensor of a trained part in two halves, and one encoder frozen."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    frozen = "model.encoders.left.freeze=true"
    ranks(2, train_a_little, str(folder), "method=m3col", "engine=zero3", frozen)
    return RunFolder(folder)


def live(run: RunFolder) -> dict[str, Tensor]:
    """The weights that the engine held after the last step."""
    found: dict[str, Tensor] = torch.load(run.path / LIVE)
    return found


def weights(release: Path) -> dict[str, Tensor]:
    """As the release opens."""
    return MMPretrainModel.from_pretrained(release).state_dict()


def copied(run: RunFolder, folder: Path) -> RunFolder:
    """The same, to be damaged."""
    shutil.copytree(run.path, folder)
    return RunFolder(folder)


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list[CardFacts]:
    """What the cards of the releases were made from."""
    found: list[CardFacts] = []

    def noted(*arguments: Any) -> list[str]:
        found.append(arguments[4])
        return export_release(*arguments)

    monkeypatch.setattr(export, "export_release", noted)
    return found


def test_weights_are_those_of_the_engine_to_the_bit(run: RunFolder, tmp_path: Path, cards: list[CardFacts]) -> None:
    made = export_run(run, tmp_path / "release")
    assert made.step == 2 and not made.scores and not made.concluded
    assert verify_release(made.folder) == [] and [path.name for path in tmp_path.iterdir()] == ["release"]
    written, right = weights(made.folder), live(run)
    assert written.keys() - right.keys() == {"logit_scale"}  # a head, in which the method keeps it
    assert all(torch.equal(written[name], right[name]) for name in right)
    told = cards[0].training
    assert (told.samples, told.steps, told.world_size, told.hardware) == (2 * runs.GLOBAL_BATCH, 2, 2, "2 x abacus")


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_every_stage_and_number_of_ranks(ranks: Callable, tmp_path: Path, stage: int, world_size: int) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    ranks(world_size, train_a_little, str(run.path), "method=m3col", f"engine=zero{stage}")
    written = weights(export_run(run, tmp_path / "release").folder)
    right = live(run)
    assert written.keys() >= right.keys() and all(torch.equal(written[name], right[name]) for name in right)


def test_bfloat16_in_several_files(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmpretrain.training.lazy_weights.SMALL", 16)
    monkeypatch.setattr("mmpretrain.engine.checkpoint_weights.WINDOW", 10_000)
    made = export_run(run, tmp_path / "release", dtype="bfloat16", max_shard_size="64KB")
    assert len(list(made.folder.glob("*.safetensors"))) > 2 and verify_release(made.folder) == []
    model = MMPretrainModel.from_pretrained(made.folder)
    assert model.dtype is torch.bfloat16
    written = model.state_dict()
    assert all(torch.equal(written[name], tensor.bfloat16()) for name, tensor in live(run).items())


def test_one_of_several_steps_and_its_own_evaluation(run: RunFolder, tmp_path: Path, cards: list[CardFacts]) -> None:
    again = copied(run, tmp_path / "run")
    append_line(again.metrics, {"step": 1, "eval/test/alignment/left->caption/distance": 0.5})
    append_line(again.metrics, {"step": 2, "eval/test/alignment/left->caption/distance": 0.25})
    again.evaluation.write_text('{"alignment/left->caption/distance": 0.125}')  # of the end, which is another step
    made = export_run(again, tmp_path / "release", step=1)
    assert made.scores == 1 and cards[0].evaluation == {"alignment/left->caption/distance": 0.5}
    assert "was not recorded" in str(cards[0].not_held_out)
    with pytest.raises(CheckpointError, match="no complete checkpoint after 7 steps: there are 1, 2"):
        export_run(again, tmp_path / "other", step=7)


def test_damage_is_found_before_anything_is_read(run: RunFolder, tmp_path: Path) -> None:
    again = copied(run, tmp_path / "run")
    newest = checkpoint_files.step_folder(again.checkpoints, 2)
    path = newest / "deepspeed" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert export_run(again, tmp_path / "release").step == 1
    with pytest.raises(CheckpointError, match=f"{path.name} has changed since it was written"):
        export_run(again, tmp_path / "other", step=2)
    assert not (tmp_path / "other").exists()


def test_a_file_that_would_run_code_is_refused(run: RunFolder, tmp_path: Path) -> None:
    """Checksums are no proof: who can write the file can write them too."""
    again, canary = copied(run, tmp_path / "run"), tmp_path / "canary"
    newest = checkpoint_files.step_folder(again.checkpoints, 2)
    path = newest / "deepspeed" / "zero_pp_rank_0_mp_rank_00_model_states.pt"
    torch.save({"module": Evil(canary)}, path)
    manifest = json.loads((newest / checkpoint_files.MANIFEST).read_text())
    manifest["files"][f"deepspeed/{path.name}"] = checkpoint_files.describe(path)
    (newest / checkpoint_files.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="cannot be read"):
        export_run(again, tmp_path / "release")
    assert not canary.exists()


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self.canary,)


def test_nothing_half_is_left_when_it_is_interrupted(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(weights: LazyWeights, name: str) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(LazyWeights, "__getitem__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_run(run, tmp_path / "release")
    assert not list(tmp_path.iterdir())


def test_a_run_that_kept_nothing_needs_its_data(run: RunFolder, tmp_path: Path) -> None:
    again = copied(run, tmp_path / "run")
    shutil.rmtree(again.parts)
    with pytest.raises(UnusableError, match="/nowhere is not there"):
        export_run(again, tmp_path / "release")


def test_what_is_learned_after_the_last_step_needs_the_training_split(ranks: Callable, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    ranks(1, train_a_little, str(run.path), *OTHERS["mucmm"])
    with pytest.raises(UnusableError, match=r"mucmm sets a part of what it ships .* make it available"):
        export_run(run, tmp_path / "release")
    assert not (tmp_path / "release").exists()


def test_no_run_and_no_size(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="is no run"):
        export_run(RunFolder(tmp_path), tmp_path / "release")
    with pytest.raises(ValueError, match="5XB"):
        export_run(run, tmp_path / "release", max_shard_size="5XB")
