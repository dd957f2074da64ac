"""The engine's own part of a step on the pretended device: how often the host waits in update and record."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.config.engine import EngineConfig, OptimConfig
from mmpretrain.data.batch import Batch
from mmpretrain.engine.accumulate import MicroBatches
from mmpretrain.engine.model_update import ModelUpdate
from mmpretrain.engine.replicated import Replicated
from mmpretrain.engine.told import told_over_ranks
from mmpretrain.methods.base import Features, Losses
from tests.pretended import PretendedDevice
from tests.pretended.tensor import CUDA


class PlainEngine:
    """What ModelUpdate asks of DeepSpeed at stage 0."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.steps = module, 0
        self.optimizer = torch.optim.AdamW(module.parameters(), fused=True)

    def set_gradient_accumulation_boundary(self, last: bool) -> None:
        """Nothing is accumulated."""

    def backward(self, loss: Tensor) -> None:
        """Plainly."""
        loss.backward()

    def step(self) -> None:
        """Of the optimizer."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps += 1

    zero_grad: Any = None


@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("layers", [1, 6])
def test_update_and_record_wait_twice_however_many_parameters_there_are(ranks: int, layers: int) -> None:
    with PretendedDevice() as device, device.alone(ranks):
        world = device.world(ranks, ahead=True)
        model = device.module(nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers))))
        heads = nn.ModuleDict({f"head_{n}": device.module(nn.Linear(4, 1)) for n in range(layers)})
        replicated = Replicated.__new__(Replicated)  # without the broadcast of its start
        replicated.modules, replicated.config, replicated.world = heads, OptimConfig(), world
        replicated._averaged, replicated._norm, replicated.faulty = None, None, []
        replicated.optimizer = torch.optim.AdamW(heads.parameters(), fused=True)
        engine = PlainEngine(model)
        update = ModelUpdate(engine, EngineConfig(zero=0), 1.0, None, world)
        ids = torch.arange(8)
        batch = Batch({"x": {"values": torch.randn(8, 4)}}, None, ids, ids).to(CUDA)
        device.log.clear()

        def encode(number: int, part: Batch) -> Features:
            return Features.of(part, {"x": model(part.inputs["x"]["values"])})

        def objective(features: Features) -> Losses:
            return Losses({name: head(features.embeds["x"]).square().mean() for name, head in heads.items()})

        parts = MicroBatches(batch, 1, encode)
        losses = parts.objective(objective)
        norm = update.step(parts, replicated.unread())
        norm = replicated.update(norm, None, update.read)
        told = told_over_ranks({"loss": losses.total.detach()}, [0.0, 1.5], world, batch.sample_ids)
    assert device.log.syncs == [wait for wait in device.log.syncs if wait.startswith("tolist")]
    assert len(device.log.syncs) == 2 and not device.log.mixes
    # The sum over pretended ranks is this one's, so many times.
    assert engine.steps == 1 and norm > 0 and told.most[1] == 1.5 * ranks and told.numbers == list(range(8))


def test_critics_step_unread_as_they_do_read() -> None:
    torch.manual_seed(0)
    rows, critics = torch.randn(8, 4), nn.ModuleDict({"one": nn.Linear(4, 3), "two": nn.Linear(4, 1)})
    with PretendedDevice() as device:
        world = device.world(ahead=True)
        found = [Replicated.__new__(Replicated) for _ in range(2)]
        for replicated in found:
            replicated.modules = nn.ModuleDict({k: device.module(copy.deepcopy(v)) for k, v in critics.items()})
            replicated.config, replicated.world = OptimConfig(clip=0.1), world
            replicated._averaged, replicated._norm, replicated.faulty = None, None, []
            replicated.optimizer = torch.optim.AdamW(replicated.modules.parameters(), fused=True)
        read, unread = found
        given, norms = device.tensor(rows), []
        for replicated in found:
            device.log.clear()
            for _ in range(2):
                torch.stack([critic(given).square().mean() for critic in replicated.modules.values()]).sum().backward()
                norms.append(replicated.update() if replicated is read else replicated.update_unread())
        assert device.log.syncs == [] and not device.log.mixes
        below = [getattr(norm, "below").item() for norm in norms[2:]]  # noqa: B009 - what a pretended tensor holds
        assert below == pytest.approx(norms[:2])
    for one, other in zip(read.modules.parameters(), unread.modules.parameters(), strict=True):
        assert torch.equal(one.below, other.below)  # type: ignore[attr-defined]
