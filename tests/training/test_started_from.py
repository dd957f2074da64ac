"""``init_from``: what of an old run or release a new one takes over, what it says of the rest, and what is refused."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmpretrain.assembly.build import build_processor
from mmpretrain.config.compose import save_config
from mmpretrain.config.root import Config
from mmpretrain.data.info import DatasetInfo
from mmpretrain.distributed.world import World
from mmpretrain.engine import checkpoint, checkpoint_files
from mmpretrain.engine.engine import Engine
from mmpretrain.hub.export import export_release
from mmpretrain.methods.base import Method
from mmpretrain.methods.build import build_method
from mmpretrain.problems import UnusableError
from mmpretrain.run_folder import RunFolder, State
from mmpretrain.training.publish import training_facts
from mmpretrain.training.session import Session
from mmpretrain.training.start_sources import Start, open_source
from mmpretrain.training.started_from import begin, findings
from mmpretrain.training.train import fit
from tests.engine import runs
from tests.hub.test_card import facts

SCALE = 0.25  # log; no method starts there


def made(config: Config, seed: int = 1) -> Method:
    """A method with weights of its own."""
    torch.manual_seed(seed)
    return build_method(config)


def released(folder: Path, *tokens: str) -> dict[str, Tensor]:
    """Write a release with a scale of SCALE if it has one; its weights."""
    config = runs.tiny_config(*tokens)
    method = made(config)
    temperature = getattr(method, "temperature", None)
    if temperature is not None:
        temperature.logit_scale.data.fill_(SCALE)
    shipped = method.ship(method.model.state_dict(), build_processor(config))
    card = replace(facts(method=config.method.name), evaluation={})
    export_release(shipped.model, shipped.state, shipped.processor, folder, card, native=False)
    return dict(shipped.state)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A release of clip, and its weights."""
    folder = tmp_path_factory.mktemp("clip") / "release"
    return folder, released(folder, "method=clip")


def checked(*tokens: str, processor: bool = True) -> tuple[str, str]:
    """(problems, notes) that the plan shows."""
    config = runs.tiny_config(*tokens)
    with torch.device("meta"):
        method = type(made(config))(config, made(config).model.to("meta"))  # type: ignore[arg-type]
    problems, notes = findings(config, method, build_processor(config) if processor else None)
    return " / ".join(problems), " / ".join(notes)


def begun(*tokens: str) -> tuple[Method, list[str]]:
    """The method after it has started from what the tokens name, and the parts that it took."""
    config = runs.tiny_config(*tokens)
    method = made(config, seed=2)
    found = begin(config, method, build_processor(config), World.single())
    assert found is not None
    return method, found.taken


def test_a_release_starts_every_part_of_the_same_method(clip: tuple[Path, dict[str, Tensor]]) -> None:
    folder, weights = clip
    problems, notes = checked("method=clip", f"init_from={folder}")
    assert not problems and "encoders.caption, projections.left" in notes and "nothing is new" in notes
    method, taken = begun("method=clip", f"init_from={folder}")
    assert "heads.temperature" in taken and method.temperature.logit_scale.item() == SCALE  # type: ignore[attr-defined]
    own = method.model.state_dict()
    assert own.keys() == weights.keys() - {"logit_scale"}
    assert all(torch.equal(own[name], weights[name]) for name in own)


def test_another_method_takes_the_encoders_and_says_what_is_new(clip: tuple[Path, dict[str, Tensor]]) -> None:
    folder, weights = clip
    problems, notes = checked("method=comm", f"init_from={folder}")
    assert not problems and "come encoders.left, encoders.right, encoders.caption; new: fusion (" in notes
    assert "heads.projection" in notes and "not needed of it: projections.left" in notes
    method, _ = begun("method=comm", f"init_from={folder}")
    name = next(name for name in weights if name.startswith("encoders.caption"))
    assert torch.equal(method.model.state_dict()[name], weights[name])


def test_a_scale_of_another_form_is_none(clip: tuple[Path, dict[str, Tensor]]) -> None:
    method, taken = begun("method=siglip", f"init_from={clip[0]}")
    assert "projections.left" in taken and "heads.temperature" not in taken
    assert method.temperature.logit_scale.item() == pytest.approx(math.log(10))  # type: ignore[attr-defined]


def test_fusion_factors_and_components_come_along(tmp_path: Path) -> None:
    for method, part in (("comm", "fusion"), ("mucmm", "components.left")):
        tokens = (f"method={method}",) + (("model.embed_dim=null", "method.variance=1.0") if method == "mucmm" else ())
        weights = released(tmp_path / method, *tokens)
        own, taken = begun(*tokens, f"init_from={tmp_path / method}")
        assert part in taken
        assert all(torch.equal(own.model.state_dict()[n], t) for n, t in weights.items() if n.startswith(part))
        assert own.taken_over(taken) is (method == "mucmm"), "whitening is not measured anew"


def test_a_classifier_of_other_classes_starts_anew(tmp_path: Path) -> None:
    weights = released(tmp_path / "old", "method=m3col")
    tokens = ("method=m3col", f"init_from={tmp_path / 'old'}")
    assert "classifier" in begun(*tokens)[1]
    problems, notes = checked(*tokens, "data.classes=7")
    shape = list(weights["classifier.output.weight"].shape)
    assert not problems and f"classifier.output.weight is {shape} there and [7, {shape[1]}] here" in notes


@pytest.mark.parametrize("there", ["ABC", "BAC", "ABD"])
def test_a_classifier_of_classes_with_other_numbers_starts_anew(there: str, tmp_path: Path) -> None:
    """Of equal shapes, which say nothing of what a row stands for."""
    for folder, names in (("there", there), ("here", "ABC")):
        info = DatasetInfo("named", "Named", "made up", "MIT", {}, list(names))
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dataset.json").write_text(info.to_json(), encoding="utf-8")
    tokens = ("method=m3col", "data.classes=3")
    released(tmp_path / "old", *tokens, f"data.path={tmp_path / 'there'}")
    begin_anew = (*tokens, f"data.path={tmp_path / 'here'}", f"init_from={tmp_path / 'old'}")
    problems, notes = checked(*begin_anew)
    assert not problems and ("of other classes: " in notes) is (there != "ABC")
    assert ("classifier" in begun(*begin_anew)[1]) is (there == "ABC")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["model.embed_dim=8"], "projections.left of the release .* set model.embed_dim to the width there, 16"),
        (["model.encoders.left.config.num_hidden_layers=2"], "encoders.left .* is not there.*model.encoders.left.pre"),
        (["model.encoders.left.config.num_hidden_layers=0"], "encoders.left .*it also has .* there"),
    ],
)
def test_a_part_of_another_form_is_refused(
    clip: tuple[Path, dict[str, Tensor]], tokens: list[str], message: str
) -> None:
    problems, notes = checked("method=clip", f"init_from={clip[0]}", *tokens, processor=False)
    assert not notes
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(problems)


def test_words_with_other_numbers_are_refused(
    clip: tuple[Path, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = runs.tiny_config("method=clip", f"init_from={clip[0]}")
    method, processor = made(config), build_processor(config)
    others = {word: number + 1 for word, number in processor.tokenizers["caption"].get_vocab().items()}
    monkeypatch.setattr(processor.tokenizers["caption"], "get_vocab", lambda: others)
    (problem,), _ = findings(config, method, processor)
    assert "the words of caption have other numbers" in problem and "RELEASE/tokenizer_caption" in problem
    with pytest.raises(UnusableError, match="have other numbers"):
        begin(config, method, processor, World.single())


def test_damage_is_found_before_the_first_step(clip: tuple[Path, dict[str, Tensor]], tmp_path: Path) -> None:
    other = tmp_path / "release"
    shutil.copytree(clip[0], other)
    path = other / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert not checked("method=clip", f"init_from={other}")[0], "the plan reads no weights"
    with pytest.raises(UnusableError, match=r"model\.safetensors has changed"):
        begun("method=clip", f"init_from={other}")


def test_what_is_no_start_is_named(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for named, message in {
        f"{tmp_path / 'nowhere'}": "there is no such folder",
        f"{tmp_path / 'bare'}": "name a release, or a run's folder",
        f"{tmp_path / 'bert'}": "is a bert of transformers and no release: convert it",
        f"{tmp_path / 'bare'}@7": "is no run, and a step",
        f"{tmp_path / 'run'}": "holds no complete checkpoint",
    }.items():
        with pytest.raises(UnusableError, match=message):
            open_source(named)
    config = runs.tiny_config("method=clip", f"init_from={tmp_path / 'me'}", f"run.root={tmp_path}", "run.name=me")
    assert "is this very run" in findings(config, made(config), None)[0][0]


def train_a_little(folder: str, *tokens: str) -> None:
    """A run with checkpoints after 1 and 2 steps, and what engine, heads and critics hold after both."""
    config, run = runs.tiny_config(*tokens, "data.path=/nowhere", "checkpoint.keep_last=9"), RunFolder(Path(folder))
    engine = runs.start(config)
    if engine.world.rank == 0:
        save_config(config, run.config)
    for step in range(2):
        runs._run(engine, range(step, step + 1))
        checkpoint.save(engine, run.checkpoints, step + 1, {})
        state = engine.state_dict()
        if state is not None:
            heads = {f"heads.{name}": tensor.cpu() for name, tensor in engine.method.heads.state_dict().items()}
            torch.save({**state, **heads}, run.path / f"live-{step + 1}.pt")


def start_from(*tokens: str) -> dict[str, Tensor]:
    """What an engine holds that started from a run, before its first step."""
    config = runs.tiny_config(*tokens)
    runs.forget_engines()
    method = made(config, seed=3)

    def initialize(world: World) -> None:
        begin(config, method, build_processor(config), world)

    engine = Engine(config, method, initialize)
    state = engine.state_dict() or {}
    return state | {f"heads.{name}": tensor.cpu() for name, tensor in method.heads.state_dict().items()}


@pytest.mark.parametrize("zero", [3, pytest.param(0, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_starts_from_a_checkpoint_of_any_stage_at_any_stage(ranks: Callable, tmp_path: Path, zero: int) -> None:
    run = tmp_path / "old"
    run.mkdir()
    tokens = ["method=comm", f"engine=zero{zero}"]
    ranks(2, train_a_little, str(run), *tokens)
    live = torch.load(run / "live-2.pt")
    other = ["method=comm", f"engine=zero{3 - zero}", f"init_from={run}"]
    started = ranks(2, start_from, *other)[0]
    assert started.keys() == live.keys() and all(torch.equal(started[name], live[name]) for name in live)
    problems, notes = checked("method=comm", f"init_from={run}@1", processor=False)
    assert not problems and "after step 1" in notes and "heads.projection" in notes
    RunFolder(run).update_status(released_step=1)
    assert open_source(str(run)).start(hashed=True).step == 1, "what was released comes before what is newest"
    with pytest.raises(UnusableError, match="after 7 steps: there are 1, 2"):
        open_source(f"{run}@7")


def test_status_manifest_and_card_name_the_start_and_resuming_does_not_need_it(
    ranks: Callable, digits: Path, tmp_path: Path
) -> None:
    data = [f"data.path={digits}", f"model.encoders.caption.tokenizer={digits / 'tokenizer'}"]
    released(tmp_path / "old", "method=clip", *data)
    small = ["data.global_batch=12", "train.samples=24", "evaluation.final=[]", "checkpoint.keep_last=9"]
    config = runs.tiny_config("method=clip", *data, *small, "checkpoint.every_steps=1", f"init_from={tmp_path / 'old'}")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    save_config(config, run.config)
    ranks(1, run_it, str(run.path))
    shutil.rmtree(tmp_path / "old")
    start = Start(**run.status()["started_from"])
    manifest = checkpoint_files.read_manifest(run.checkpoints / "step-00000001")
    assert manifest["started_from"] == vars(start) and len(start.sha256) == 64
    assert f"Started from: release {tmp_path.name}" not in (text := (run.release / "README.md").read_text())
    assert f"Started from: release old (weights sha256 {start.sha256})" in text
    assert training_facts(run, config, 2, 1, None).started_from == str(start)
    shutil.rmtree(run.checkpoints / "step-00000002")
    run.update_status(state=State.failed)
    ranks(1, run_it, str(run.path))
    assert checkpoint_files.read_manifest(run.checkpoints / "step-00000002")["started_from"] == vars(start)


def run_it(folder: str) -> None:
    """Train the run in ``folder`` on a living rank."""
    runs.forget_engines()
    fit(Session(RunFolder(Path(folder))))
