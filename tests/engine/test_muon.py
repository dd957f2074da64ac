"""Muon: the steps of torch's own, at every stage of ZeRO, on 1 and 2 ranks, whole and in micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import _muon

from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.engine import OptimConfig, OptimizerName
from mmpretrain.distributed.world import World
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.matrices import ROOMS, counted, hidden_matrices
from mmpretrain.engine.muon import MuonAdamW
from mmpretrain.engine.optimizer import build_optimizer, parameter_groups
from mmpretrain.engine.partitions import Piece, Share
from mmpretrain.engine.schedule import lr_factor
from mmpretrain.methods.build import build_method
from tests.engine import runs

STEPS = 5
MUON = ["optim.name=muon", "optim.weight_decay=0.1", "optim.muon_lr=2e-3", "optim.clip=0.5",
        "model.encoders.right.lr_scale=0.5"]  # fmt: skip
CLIP = ["method=clip", *MUON]


@contextmanager
def orthogonal_in_float32() -> Iterator[None]:
    """Newton and Schulz in float32: in torch's bfloat16 the last digit of a gradient shows early in an update."""

    def iterate(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
        a, b, c = coefficients
        x = matrix.float().T if matrix.shape[0] > matrix.shape[1] else matrix.float()
        x = x / x.norm().clamp(min=eps)
        for _ in range(steps):
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.T if matrix.shape[0] > matrix.shape[1] else x

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_muon, "_zeropower_via_newtonschulz", iterate)
        yield


def engine_run(tokens: list[str]) -> runs.Outcome:
    """Steps of the engine."""
    with orthogonal_in_float32():
        return runs.outcome(runs.tiny_config(*tokens), STEPS)


def plain_run(tokens: list[str]) -> runs.Outcome:
    """The same by torch's optimizers on one process, without the engine."""
    with orthogonal_in_float32():
        return _plain_steps(tokens)


def _plain_steps(tokens: list[str]) -> runs.Outcome:
    config = runs.tiny_config(*tokens)
    runs.forget_engines()
    torch.manual_seed(config.seed)
    method = build_method(config)
    runs._initialize(method, config, World.single())
    named = dict(method.model.named_parameters())
    optim, names = config.optim, hidden_matrices(method.model)
    undecayed = {name for name, p in named.items() if p.ndim < 2 or "norm" in name.lower()}
    inside = [({"params": [named[n]], "weight_decay": 0.1}, _rate(n, optim.muon_lr or 0.0)) for n in names]
    others = [
        ({"params": [p], "weight_decay": 0.0 if n in undecayed else 0.1}, _rate(n, optim.lr))
        for n, p in named.items()
        if n not in names
    ]
    optimizers = [
        (torch.optim.Muon([g for g, _ in inside], adjust_lr_fn="match_rms_adamw"), [r for _, r in inside]),
        (torch.optim.AdamW([g for g, _ in others], eps=optim.eps), [r for _, r in others]),
    ]
    heads = list(method.heads.parameters())
    if heads:
        groups = parameter_groups(method.heads, optim, {})
        optimizers.append((torch.optim.AdamW(groups, eps=optim.eps), [optim.lr] * len(groups)))
    losses, norms = [], []
    for index in range(STEPS):
        step = runs.step_of(index, config)
        batch = runs.make_batch(index, 0, 1, modalities=config.data.modalities)
        batch = method.prepare(method.augmenter.training_inputs(batch, step), step)
        total = method.objective(method.encode(method.model, batch), step, World.single()).total
        total.backward()
        model_norm = nn.utils.clip_grad_norm_(named.values(), optim.clip or 0.0)
        heads_norm = nn.utils.clip_grad_norm_(heads, optim.clip or 0.0)
        factor = lr_factor(optim, (index + 1) * runs.GLOBAL_BATCH, config.total_steps * runs.GLOBAL_BATCH)
        for optimizer, rates in optimizers:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad()
        method.clamp_()
        losses.append(total.item())
        norms.append(float((model_norm**2 + heads_norm**2) ** 0.5))
    weights = {name: tensor.detach() for name, tensor in method.model.state_dict().items()}
    return runs.Outcome(losses, norms, weights | {f"heads.{n}": t for n, t in method.heads.state_dict().items()}, None)


def _rate(name: str, rate: float) -> float:
    return rate * (0.5 if ".right." in name else 1.0)


@pytest.fixture(scope="module")
def plain(ranks: Callable) -> runs.Outcome:
    """CLIP by torch's optimizers."""
    return ranks(1, plain_run, CLIP)[0]


CASES = [(1, 0, 1), (2, 0, 2), (1, 1, 1), (2, 1, 1), (2, 2, 2), (1, 3, 1), (2, 3, 1)]


@pytest.mark.parametrize(("world_size", "stage", "micro"), CASES)
def test_the_engine_takes_the_steps_of_torchs_muon(
    ranks: Callable, plain: runs.Outcome, world_size: int, stage: int, micro: int
) -> None:
    ours = ranks(world_size, engine_run, [*CLIP, f"engine=zero{stage}", f"engine.micro_batches={micro}"])[0]
    runs.check_equal(ours, plain)


@pytest.mark.slow
@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_engine_takes_the_steps_of_torchs_muon_everywhere(
    ranks: Callable, plain: runs.Outcome, world_size: int, stage: int, micro: int
) -> None:
    ours = ranks(world_size, engine_run, [*CLIP, f"engine=zero{stage}", f"engine.micro_batches={micro}"])[0]
    runs.check_equal(ours, plain)


def test_a_model_with_a_fusion_takes_the_steps_of_torchs_muon(ranks: Callable) -> None:
    """CoMM's loss curve and matrices; the gradient of biases before its head's batch norms is 0 but for rounding, out
    of which AdamW would make whole steps if its eps were small."""
    tokens = ["method=comm", *MUON, "optim.eps=1e-3"]
    torchs, ours = ranks(1, plain_run, tokens)[0], ranks(2, engine_run, [*tokens, "engine=zero1"])[0]
    assert ours.losses == pytest.approx(torchs.losses, abs=1e-5)
    matrices = [name for name, weight in torchs.weights.items() if weight.ndim == 2 and name.startswith(ROOMS)]
    assert any(name.startswith("fusion.") for name in matrices)
    for name in matrices:
        torch.testing.assert_close(ours.weights[name], torchs.weights[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("nesterov", [True, False])
def test_matrices_take_torchs_steps_to_the_last_bit(nesterov: bool) -> None:
    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    config = OptimConfig(name=OptimizerName.muon, lr=0.01, muon_nesterov=nesterov)
    optimizer = build_optimizer([{"params": [ours], "matrices": True, "weight_decay": 0.1}], config)
    torchs = torch.optim.Muon([theirs], 0.01, 0.1, nesterov=nesterov, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        ours.grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        theirs.grad = ours.grad.clone()
        optimizer.step()
        torchs.step()
    assert torch.equal(ours, theirs)


SHAPES = [(2, 3), (8, 5), (3, 2), (4, 4)]  # 68 numbers, 17 of them on each of 4 ranks: the second lies on three


def steps_in_pieces(steps: int) -> Tensor:
    """Steps of matrices whose numbers, one matrix behind the other, are divided evenly among the ranks."""
    world = World.current()
    flat, ends = numbers(0), [0, *accumulate(rows * columns for rows, columns in SHAPES)]
    size = len(flat) // world.size
    own = slice(world.rank * size, (world.rank + 1) * size)
    pieces = []
    for shape, start, end in zip(SHAPES, ends, ends[1:], strict=False):
        cuts = [min(max(rank * size, start), end) for rank in range(world.size + 1)]
        shares = tuple(Share(a - start, b - a) for a, b in pairwise(cuts))
        pieces.append(Piece(torch.Size(shape), max(start - own.start, 0), world.rank, shares))
    part = nn.Parameter(flat[own].clone())
    config = OptimConfig(name=OptimizerName.muon, lr=0.01)
    optimizer = MuonAdamW([{"params": [part], "matrices": True, "weight_decay": 0.1}], config)
    optimizer.divide({part: pieces}, world)
    for step in range(steps):
        part.grad = numbers(step + 1)[own].clone()
        optimizer.step()
    return part.detach()


def numbers(seed: int) -> Tensor:
    """Of all matrices."""
    return torch.randn(sum(rows * columns for rows, columns in SHAPES), generator=torch.Generator().manual_seed(seed))


def test_a_matrix_on_three_ranks_takes_torchs_steps_to_the_last_bit(ranks: Callable) -> None:
    sizes = [rows * columns for rows, columns in SHAPES]
    whole = [nn.Parameter(part.view(shape)) for part, shape in zip(numbers(0).split(sizes), SHAPES, strict=True)]
    torchs = torch.optim.Muon(whole, 0.01, 0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        for matrix, gradient in zip(whole, numbers(step + 1).split(sizes), strict=True):
            matrix.grad = gradient.view_as(matrix).clone()
        torchs.step()
    assert torch.equal(
        torch.cat(ranks(4, steps_in_pieces, 3)), torch.cat([matrix.detach().flatten() for matrix in whole])
    )


def first_update(tokens: list[str]) -> dict[str, Tensor]:
    """What the first step adds to each matrix."""
    config = runs.tiny_config(*tokens)
    engine = runs.start(config)
    before = {name: p.detach().clone() for name, p in engine.method.model.named_parameters()}
    runs._run(engine, range(1))
    return {name: p.detach() - before[name] for name, p in engine.method.model.named_parameters()}


def test_every_direction_of_a_matrix_moves_alike(ranks: Callable) -> None:
    tokens = ["method=clip", "optim.weight_decay=0", "optim.warmup_samples=0", "engine=zero0"]
    spreads = {}
    for name in ("muon", "adamw"):
        update = ranks(1, first_update, [*tokens, f"optim.name={name}"])[0]
        values = torch.linalg.svdvals(update["encoders.left.backbone.layers.0.mlp.fc1.weight"])
        spreads[name] = float(values[0] / values[8])  # a batch of 16 samples gives few directions more
    assert spreads["muon"] < 2.5
    assert spreads["adamw"] > 4


@pytest.mark.parametrize(
    "change", ["optim.muon_lr=1e-2", "optim.muon_momentum=0.5", "optim.muon_nesterov=false", "optim.muon_ns_steps=2",
               "optim.muon_adjust=original"],
)  # fmt: skip
@pytest.mark.slow
def test_every_option_changes_something(ranks: Callable, plain: runs.Outcome, change: str) -> None:
    weights = ranks(1, engine_run, [*CLIP, "engine=zero0", change])[0].weights
    name = "encoders.left.backbone.layers.0.mlp.fc1.weight"
    assert not torch.allclose(weights[name], plain.weights[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("world_size", "stage"), [(2, 1), (2, 3)])
def test_resume_is_bit_equal(ranks: Callable, tmp_path: Path, world_size: int, stage: int) -> None:
    tokens = ["method=m3col", "optim.name=muon", f"engine=zero{stage}"]
    straight, resumed, losses, losses_again = ranks(world_size, runs.train_and_resume, tokens, 4, str(tmp_path))[0]
    assert straight == resumed
    assert losses == losses_again


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
def test_training_in_16_bits_learns_and_resumes(
    ranks: Callable, tmp_path: Path, world_size: int, stage: int, precision: str
) -> None:
    tokens = ["method=clip", "optim.name=muon", f"engine=zero{stage}", f"engine.precision={precision}"]
    straight, resumed, losses, _ = ranks(world_size, runs.train_and_resume, tokens, 8, str(tmp_path))[0]
    assert straight == resumed
    assert losses[-1] < losses[0]


class Model(nn.Module):
    """A linear layer in each place that a model may have one."""

    def __init__(self) -> None:
        super().__init__()
        backbone = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(8, 4),
                "input": nn.Linear(3, 4),
                "layer": nn.Linear(4, 4),
                "attention": nn.MultiheadAttention(4, 1),
                "convolution": nn.Conv2d(1, 4, 2),
                "lm_head": nn.Linear(4, 8, bias=False),
                "thin": nn.Linear(4, 1),
            }
        )
        backbone["adapter"] = nn.ModuleDict({"lora_A": nn.Linear(4, 2)})
        self.encoders = nn.ModuleDict({"embedded": nn.ModuleDict({"backbone": backbone})})
        self.projections = nn.ModuleDict({"embedded": nn.Linear(4, 4)})
        self.fusion = nn.Linear(4, 4)
        self.classifier = nn.Linear(4, 2)


HIDDEN = {
    "encoders.embedded.backbone.layer.weight",
    "encoders.embedded.backbone.attention.in_proj_weight",
    "encoders.embedded.backbone.attention.out_proj.weight",
    "fusion.weight",
}


def test_only_hidden_matrices_are_orthogonalized() -> None:
    model = Model()
    assert hidden_matrices(model) == HIDDEN
    assert "4 hidden matrices (96 parameters), AdamW the other" in counted(model)
    model.fusion.requires_grad_(False)
    assert hidden_matrices(model) == HIDDEN - {"fusion.weight"}


def test_a_matrix_that_is_an_embedding_too_is_left_to_adamw() -> None:
    model = Model()
    shared = model.get_submodule("encoders.embedded.backbone")["layer"]  # type: ignore[index]
    shared.weight = nn.Embedding(4, 4).weight
    model.add_module("table", nn.Embedding(4, 4))
    model.get_submodule("table").weight = shared.weight
    assert "encoders.embedded.backbone.layer.weight" not in hidden_matrices(model)


def test_heads_stay_with_adamw() -> None:
    heads = nn.ModuleDict({"head": nn.Linear(4, 4)})
    config = OptimConfig(name=OptimizerName.muon)
    assert type(build_optimizer(parameter_groups(heads, config, {}), config)) is torch.optim.AdamW


def test_a_model_without_hidden_matrices_is_refused(ranks: Callable) -> None:
    tokens = ["method=clip", "optim.name=muon"]
    tokens += [f"model.encoders.{name}.freeze=true" for name in runs.MODALITIES]
    assert "finds no hidden matrix" in ranks(1, runs.refusal, engine_of, tokens)[0]


def engine_of(tokens: list[str]) -> Engine:
    """An engine."""
    return runs.start(runs.tiny_config(*tokens))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["optim.muon_momentum=0.9"], "optim.muon_momentum has no effect with optim.name=adamw"),
        (["optim=muon", "optim.muon_ns_steps=0"], "optim.muon_ns_steps is 0"),
        (["optim=muon", "engine.deepspeed.zero_optimization.offload_optimizer.device=cpu"], "leave it out, or use"),
    ],
)
def test_what_muon_cannot_do_is_refused_before_the_run(tokens: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["method=clip", "experiment=digits", *tokens])
