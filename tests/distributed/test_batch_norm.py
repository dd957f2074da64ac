"""Synchronized batch norm on 1, 2 and 4 ranks against torch's own on the whole batch in one process, in float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.distributed.batch_norm import SyncBatchNorm, synchronize, training_batch_norms
from mmpretrain.distributed.replicas import average_gradients
from mmpretrain.distributed.world import World
from tests.rank_pool import RankError, Ranks
from tests.submodules import submodule

CHANNELS = 3
Result = dict[str, Tensor]


def data(rows: int, *inner: int, step: int = 0) -> tuple[Tensor, Tensor]:
    """Rows with a mean far from 0, and a direction per element for the loss."""
    generator = torch.Generator().manual_seed(step)
    shape = (rows, CHANNELS, *inner)
    values = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 5
    return values, torch.randn(shape, generator=generator, dtype=torch.float64)


def layer(kind: type[nn.Module] = nn.BatchNorm1d, **options: Any) -> Any:
    """torch's layer in float64, its parameters not those it starts with."""
    norm: Any = kind(CHANNELS, **options).double()
    if norm.affine:
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([0.5, 1.5, -2.0]))
            norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    return norm


def run(norm: Any, shares: list[int], own: int, inner: tuple[int, ...], steps: int, world: World) -> Result:
    """``steps`` forward and backward passes on rows ``own`` of the ranks' ``shares``; the last one's results.

    The loss of a rank is the mean over its own rows; own -1: all rows, and the mean of all ranks' losses.
    """
    for step in range(steps):
        norm.zero_grad()
        values, directions = data(sum(shares), *inner, step=step)
        chunks, parts = values.split(shares), directions.split(shares)
        x = (values if own < 0 else chunks[own]).requires_grad_()
        y = norm(x)
        outputs, wanted = (y.split(shares), parts) if own < 0 else ((y,), (parts[own],))
        losses = [(o.square() * d).flatten(1).sum(1).mean() for o, d in zip(outputs, wanted, strict=True)]
        torch.stack(losses).mean().backward()
    average_gradients(norm.parameters(), world)
    assert x.grad is not None
    found = {"y": y.detach(), "dx": x.grad / world.size}
    found |= {f"d{name}": p.grad for name, p in norm.named_parameters()}
    return found | {f"b{name}": b for name, b in norm.named_buffers()}


def on_rank(make: Callable[[], Any], shares: list[int], inner: tuple[int, ...], steps: int) -> Result:
    """What :func:`run` finds on this rank, with its share of the rows."""
    world = World.current()
    model = nn.Sequential(make())
    synchronize(model, world)
    assert isinstance(model[0], SyncBatchNorm) == (world.size > 1)
    return run(model[0], shares, world.rank, inner, steps, world)


def compare(
    ranks: Ranks, make: Callable[[], Any], shares: list[int], inner: tuple[int, ...] = (), steps: int = 2
) -> None:
    """Ranks with these shares of the rows get what one process with torch's layer gets on all of them."""
    whole = run(make(), shares, -1, inner, steps, World.single())
    results = ranks(len(shares), on_rank, make, shares, inner, steps)
    for key, expected in whole.items():
        parts = [result[key] for result in results]
        # Outputs and their gradients are spread over the ranks; what belongs to the layer is the same everywhere.
        found = [torch.cat(parts)] if key in ("y", "dx") else parts
        for tensor in found:
            torch.testing.assert_close(tensor, expected, rtol=1e-12, atol=1e-12, msg=partial("{}: {}".format, key))


@pytest.mark.parametrize(
    "shares", [[6], [3, 3], [5, 2], [1, 1], [4, 0], [2, 2, 2, 2], [1, 3, 1, 2], [1, 1, 1, 1]], ids=str
)
def test_one_process_and_many_agree(ranks: Ranks, shares: list[int]) -> None:
    compare(ranks, layer, shares)


@pytest.mark.parametrize("inner", [(5,), (3, 2), (2, 1, 2)], ids=str)
def test_more_dimensions(ranks: Ranks, inner: tuple[int, ...]) -> None:
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[len(inner)]
    compare(ranks, lambda: layer(kind), [1, 3], inner)


@pytest.mark.parametrize(
    "options",
    [{"momentum": None}, {"momentum": 0.7}, {"affine": False}, {"track_running_stats": False}, {"eps": 0.5}],
    ids=str,
)
def test_options(ranks: Ranks, options: dict[str, Any]) -> None:
    compare(ranks, lambda: layer(**options), [2, 3], steps=3)


@pytest.mark.parametrize("track", [True, False])
def test_evaluation_mode_is_torchs(ranks: Ranks, track: bool) -> None:
    def evaluate() -> tuple[Tensor, Tensor]:
        world, plain = World.current(), layer(track_running_stats=track)
        model = nn.Sequential(layer(track_running_stats=track))
        synchronize(model, world)
        rows, _ = data(4 + world.rank)
        return model.eval()(rows), plain.eval()(rows)

    for ours, torchs in ranks(2, evaluate):
        assert torch.equal(ours, torchs)


def test_one_value_per_channel_in_the_whole_batch(ranks: Ranks) -> None:
    with pytest.raises(RankError, match="more than 1 value per channel in the whole batch"):
        ranks(2, on_rank, layer, [1, 0], (), 1)


def test_half_precision_under_autocast_is_summed_in_float32(ranks: Ranks) -> None:
    def autocast() -> tuple[Tensor, Tensor]:
        world = World.current()
        model = nn.Sequential(layer().float())
        synchronize(model, world)
        own = data(64)[0].bfloat16()[world.rank :: 2].requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = model(own)
        assert y.dtype is torch.bfloat16
        y.float().sum().backward()
        mean = submodule(model, "0", SyncBatchNorm).running_mean
        assert mean is not None
        return y.detach().double(), mean.double()

    exact = layer()
    expected = exact(data(64)[0].bfloat16().double()).detach()
    for rank, (y, running_mean) in enumerate(ranks(2, autocast)):
        # Only the rounding of the output itself (8 bits) is left.
        assert (y - expected[rank::2]).abs().max() <= expected.abs().max() * 2**-8
        torch.testing.assert_close(running_mean, exact.running_mean, rtol=1e-6, atol=0)


def resnet() -> nn.Module:
    """A tiny ResNet of transformers."""
    from transformers import ResNetConfig, ResNetModel  # only one test needs it, and loading it takes long

    torch.manual_seed(0)
    return ResNetModel(ResNetConfig(num_channels=1, embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic"))


def transformers_model() -> tuple[bool, list[str], list[str], bool, Result, Tensor]:
    """A step of it on this rank: what became of its layers, parameters and outputs."""
    world, model = World.current(), resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = {name: (p, p.requires_grad) for name, p in model.named_parameters()}
    synchronize(model, world)
    kept = all(before[name] == (p, p.requires_grad) for name, p in model.named_parameters())
    pixels = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    model(pixels[2 * world.rank : 2 * world.rank + 2]).pooler_output.square().mean().backward()
    average_gradients(model.parameters(), world)
    optimizer.step()
    left = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    torchs = resnet()
    torchs.load_state_dict(model.state_dict())
    same = torch.equal(torchs.eval()(pixels).pooler_output, model.eval()(pixels).pooler_output)
    return kept, left, training_batch_norms(model), same, model.state_dict(), pixels


def test_a_whole_model_and_its_weights_go_back_to_torchs_layers(ranks: Ranks) -> None:
    plain = resnet()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    results = ranks(2, transformers_model)
    for kept, left, in_evaluation, same, _, _ in results:
        assert kept and left == in_evaluation == [] and same
    *_, state, pixels = results[0]
    plain(pixels).pooler_output.square().mean().backward()
    optimizer.step()
    assert state.keys() == plain.state_dict().keys()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-4, atol=1e-5)


def test_which_layers_use_the_batch() -> None:
    model = nn.ModuleDict(
        {
            "trained": nn.Sequential(nn.Linear(3, 3), layer()),
            "frozen": nn.Sequential(layer()).eval(),
            "stateless": nn.Sequential(layer(track_running_stats=False)).eval(),
            "other": nn.Sequential(nn.LayerNorm(3), nn.InstanceNorm1d(3)),
        }
    )
    assert training_batch_norms(model) == ["trained.1", "stateless.0"]


def test_nothing_happens_alone_and_training_modes_stay() -> None:
    model = nn.Sequential(layer(), layer().eval())
    synchronize(model, World.single())
    assert [type(norm) for norm in model] == [nn.BatchNorm1d] * 2
    synchronize(model, World(0, 2))
    assert [type(norm) for norm in model] == [SyncBatchNorm] * 2
    assert [norm.training for norm in model] == [True, False]
    synchronize(model, World(0, 2))
    norm = SyncBatchNorm(CHANNELS, world=World.single(), eps=0.1)
    assert torch.equal(norm(torch.eye(3)), nn.BatchNorm1d(3, eps=0.1)(torch.eye(3)))


def test_layer_of_another_kind_is_refused() -> None:
    class Activated(nn.BatchNorm1d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).relu()

    with pytest.raises(ValueError, match="0 is a Activated"):
        synchronize(nn.Sequential(Activated(3)), World(0, 2))
