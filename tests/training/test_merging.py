"""Runs with LoRA become releases without it: the training model's embeddings, and adapters that peft opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from torch import Tensor

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.config.compose import save_config
from mmpretrain.config.root import Config
from mmpretrain.engine import checkpoint
from mmpretrain.hub.export import export_release
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.release_folder import verify_release
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.export import export_run
from mmpretrain.training.merging import adapters_of, without_adapters
from mmpretrain.training.parts import Parts, write_parts
from mmpretrain.training.publish import Scores, TrainingFacts, card_facts
from tests.engine import runs

LORA = ["method=clip", "model.lora.rank=2", "optim.lr=1e-2", "model.lora.modalities=[left,caption]"]
Embeddings = dict[str, Tensor]


def embeddings(model: MMPretrainModel) -> Embeddings:
    """Of one batch, whatever the model."""
    inputs = runs.make_batch(0, 0, 1).inputs
    inputs["caption"] = {key: tensor[:, :8] for key, tensor in inputs["caption"].items()}  # as many as the config says
    with torch.inference_mode():
        return dict(model.eval()(**inputs).embeds)


def train(folder: str, stage: int) -> tuple[Embeddings, Embeddings]:
    """A run folder with a checkpoint after 3 steps and a release in ``live``, written from the engine as at a run's
    end; embeddings of the model that trained, and as it was before (on rank 0)."""
    config = runs.tiny_config(*LORA, f"engine=zero{stage}", "data.path=/nowhere")
    run, engine = RunFolder(Path(folder)), runs.start(config)
    before = _as_trained(config, engine.state_dict())
    processor = build_processor(config)
    if engine.world.rank == 0:
        save_config(config, run.config)
        write_parts(run.parts, Parts(engine.method.model.config, processor, None, "2 x abacus"))  # type: ignore[arg-type]
    runs._run(engine, range(3))
    checkpoint.save(engine, run.checkpoints, 3, {})
    state = engine.state_dict()
    if state is None:
        return {}, {}
    shipped = without_adapters(config, engine.method.ship(state, processor))
    card = card_facts(config, None, TrainingFacts(48, 3, 2), Scores({}, "test"))
    adapters = adapters_of(config, state)
    export_release(shipped.model, shipped.state, processor, run.path / "live", card, adapters=adapters)
    return _as_trained(config, state), before


def _as_trained(config: Config, state: dict[str, Tensor] | None) -> Embeddings:
    """Of the model with adapters."""
    if state is None:
        return {}
    model = build_model(config)
    model.load_state_dict(state)
    return embeddings(model)


@pytest.fixture(scope="module")
def run(ranks: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Embeddings, Embeddings]:
    """Written by two ranks of ZeRO 3."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    return RunFolder(folder), *ranks(2, train, str(folder), 3)[0]


def close(ours: Embeddings, right: Embeddings) -> bool:
    """Whether all embeddings are the same to 1e-6 of their largest number: float32 adds in another order."""
    return all((ours[name] - embeds).abs().max() < 1e-6 * embeds.abs().max() for name, embeds in right.items())


def test_release_and_export_are_the_model_that_trained(
    run: tuple[RunFolder, Embeddings, Embeddings], tmp_path: Path
) -> None:
    folder, trained, before = run
    exported = export_run(folder, tmp_path / "release").folder
    for release in (folder.path / "live", exported):
        assert verify_release(release) == []
        model = MMPretrainModel.from_pretrained(release)
        assert not any("lora" in name or "base_layer" in name for name in model.state_dict())
        assert close(embeddings(model), trained) and not close(embeddings(model), before)
    own, other = (MMPretrainModel.from_pretrained(path).state_dict() for path in (folder.path / "live", exported))
    assert all(torch.equal(tensor, other[name]) for name, tensor in own.items())
    assert (folder.path / "live" / "adapter" / "left" / "adapter_model.safetensors").read_bytes() == (
        exported / "adapter" / "left" / "adapter_model.safetensors"
    ).read_bytes()


def test_peft_opens_the_adapters_on_what_the_encoders_were(run: tuple[RunFolder, Embeddings, Embeddings]) -> None:
    folder, trained, _ = run
    release = folder.path / "live"
    config = runs.tiny_config("method=clip")
    torch.manual_seed(config.seed)
    base, model = build_model(config), MMPretrainModel.from_pretrained(release)
    assert sorted(path.name for path in (release / "adapter").iterdir()) == ["caption", "left"]
    for name in ("left", "caption"):
        bare = base.get_submodule(f"encoders.{name}.backbone")
        adapted = peft.PeftModel.from_pretrained(bare, release / "adapter" / name)
        model.encoders[name].backbone = adapted.merge_and_unload()
    assert close(embeddings(model), trained)


def test_the_card_tells_rank_and_numbers(run: tuple[RunFolder, Embeddings, Embeddings]) -> None:
    card = (run[0].path / "live" / "README.md").read_text()
    assert "## LoRA" in card and "- `caption`: rank 2, scaling 2" in card and "rank: 2" in card
    assert "adapter/caption/adapter_model.safetensors" in (run[0].path / "live" / "SHA256SUMS").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
def test_every_stage_and_number_of_ranks(ranks: Callable, tmp_path: Path, stage: int, world_size: int) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    trained, _ = ranks(world_size, train, str(run.path), stage)[0]
    assert close(embeddings(MMPretrainModel.from_pretrained(export_run(run, tmp_path / "release").folder)), trained)
