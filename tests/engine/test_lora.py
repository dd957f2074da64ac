"""LoRA under the engine: ZeRO 0-3, ranks and micro-batches agree, bases stay to the bit, runs go on to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.assembly.lora_weights import Layout, MergedState
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.replicas import average_gradients
from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Method
from mmpretrain.methods.build import build_method
from tests.engine import runs

LORA = ["method=clip", "model.lora.rank=2", "optim.lr=3e-3"]
STEPS = 8
DROPOUT = ["model.lora.dropout=0.3"]


@pytest.fixture(scope="module")
def reference(ranks: Callable) -> list[float]:
    """The curve of one process at stage 0."""
    curve: list[float] = ranks(1, runs.train, [*LORA, "engine=zero0"], STEPS)[0]
    return curve


def check_curve(ranks: Callable, reference: list[float], world_size: int, *tokens: str) -> None:
    """The losses of every rank are those of the reference, and fall."""
    curves = ranks(world_size, runs.train, [*LORA, *tokens], STEPS)
    assert max(abs(a - b) for curve in curves for a, b in zip(curve, reference, strict=True)) <= 1e-5
    assert curves[0][-1] < curves[0][0]


def test_same_curve_on_two_ranks_of_zero_3(ranks: Callable, reference: list[float]) -> None:
    check_curve(ranks, reference, 2, "engine=zero3")


def test_same_curve_in_micro_batches(ranks: Callable, reference: list[float]) -> None:
    check_curve(ranks, reference, 1, "engine=zero1", "engine.micro_batches=2")


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("more", ["engine.micro_batches=1", "engine.micro_batches=2"])
def test_same_curve_everywhere(ranks: Callable, reference: list[float], world_size: int, stage: int, more: str) -> None:
    check_curve(ranks, reference, world_size, f"engine=zero{stage}", more)


def test_resume_is_bit_equal_with_dropout(ranks: Callable, tmp_path: Path) -> None:
    tokens = [*LORA, *DROPOUT, "engine=zero3"]
    straight, resumed, losses, losses_again = ranks(2, runs.train_and_resume, tokens, 4, str(tmp_path))[0]
    assert straight == resumed and losses == losses_again


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
def test_resume_is_bit_equal_everywhere(ranks: Callable, tmp_path: Path, world_size: int, stage: int) -> None:
    tokens = [*LORA, *DROPOUT, f"engine=zero{stage}", "engine.micro_batches=2"]
    straight, resumed, losses, losses_again = ranks(world_size, runs.train_and_resume, tokens, 8, str(tmp_path))[0]
    assert straight == resumed and losses == losses_again


def what_moves(tokens: list[str]) -> tuple[set[str], set[str], int, int]:
    """Names of tensors that two steps change, those that are to train, and how many numbers the latter and Adam's
    first moments on this rank have."""
    engine = runs.start(runs.tiny_config(*tokens))
    module = engine.deepspeed.module
    trained = {name: getattr(p, "ds_numel", p.numel()) for name, p in module.named_parameters() if p.requires_grad}
    before = {name: tensor.clone() for name, tensor in (engine.state_dict() or {}).items()}
    runs._run(engine, range(2))
    after = engine.state_dict() or {}
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    optimizer = getattr(engine.deepspeed.optimizer, "optimizer", engine.deepspeed.optimizer)
    moments = sum(state["exp_avg"].numel() for state in optimizer.state.values() if "exp_avg" in state)
    return moved, set(trained), sum(trained.values()), moments


@pytest.mark.parametrize("stage", [0, 2])
def test_only_what_trains_moves_and_has_a_state(ranks: Callable, stage: int) -> None:
    moved, trained, numbers, moments = ranks(1, what_moves, [*LORA, f"engine=zero{stage}"])[0]
    assert moved == trained and any(".lora_A." in name for name in trained)
    assert all(".lora_" in name or name.startswith("projections.") for name in trained)
    assert 0 <= moments - numbers < 16  # ZeRO pads a group of parameters


@pytest.mark.parametrize(
    "change",
    [
        "model.lora.rank=3",
        "model.lora.alpha=1",
        "model.lora.dropout=0.3",
        "model.lora.targets=[query,q_proj]",
        "model.lora.modalities=[left]",
        "model.encoders.left.lr_scale=0.1",
        "optim.layer_decay=0.5",
    ],
)
def test_every_option_changes_something(ranks: Callable, reference: list[float], change: str) -> None:
    assert ranks(1, runs.train, [*LORA, "engine=zero0", change], 3)[0] != reference[:3]


def gradients(tokens: list[str], merged: bool = False) -> dict[str, Tensor]:
    """Gradients of one step on this rank's rows, averaged over the ranks, in float64 and without DeepSpeed, and
    ``= NAME``: the values of adapters. Of the model with them, or (merged) of the one whose weights are the sums."""
    config, world = runs.tiny_config(*tokens), World.current()
    torch.manual_seed(0)
    method = build_method(config)
    torch.manual_seed(1)
    for name, parameter in method.model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.2)
    method.model.double(), method.heads.double()
    if merged:
        method.model = _sum_of(method, config)
    batch = _double(runs.make_batch(0, world.rank, world.size))
    step = runs.step_of(0, config)
    losses = method.objective(method.encode(method.model, method.prepare(batch, step)), step, world)
    losses.total.backward()
    parameters = {name: p for name, p in method.model.named_parameters() if p.requires_grad}
    average_gradients(parameters.values(), world)
    values = {name: p.detach() for name, p in method.model.named_parameters() if ".lora_" in name}
    found = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    return found | {f"= {name}": value for name, value in values.items()}


def _sum_of(method: Method, config: Config) -> Any:
    plain = type(method.model)(method.model.config).double()  # type: ignore[arg-type]
    state = method.model.state_dict()
    layout = Layout.of(state, plain, config.model.lora.scaling)
    summed = {name: _exact(layout, state, name) for name in MergedState(state, layout)}
    plain.load_state_dict(summed)
    return plain.train()


def _exact(layout: Layout, state: dict[str, Tensor], name: str) -> Tensor:
    """As ``Layout.merged``, without rounding to float32."""
    base = state[layout.origins[name]]
    if name not in layout.products:
        return base
    down, up = (state[part] for part in layout.products[name])
    return base + layout.scaling * up @ down


def _double(batch: Batch) -> Batch:
    for tensors in batch.inputs.values():
        tensors |= {key: tensor.double() for key, tensor in tensors.items() if tensor.is_floating_point()}
    return batch


def test_gradients_of_adapters_are_those_of_one_process_and_of_the_dense_formula(ranks: Callable) -> None:
    whole, dense = ranks(1, gradients, LORA)[0], ranks(1, gradients, LORA, True)[0]
    shares = ranks(2, gradients, LORA)
    compared = 0
    for name, gradient in whole.items():
        assert all((share[name] - gradient).abs().max() <= 1e-12 for share in shares), name
        if not name.endswith(".lora_A.default.weight") or name.startswith("="):
            continue
        layer, scaling = name.removesuffix(".lora_A.default.weight"), 2.0
        up, down = whole[f"= {layer}.lora_B.default.weight"], whole[f"= {name}"]
        of_sum = dense[f"{layer}.weight"]
        assert (gradient - scaling * up.T @ of_sum).abs().max() <= 1e-12
        assert (whole[f"{layer}.lora_B.default.weight"] - scaling * of_sum @ down.T).abs().max() <= 1e-12
        compared += 1
    assert compared >= 12
