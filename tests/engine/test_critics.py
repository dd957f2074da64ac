"""Two players: critics and everything else take turns as the plain loop of the paper does, and touch only their own."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmpretrain.config.model import EncoderConfig
from mmpretrain.config.root import Config
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.engine.engine import Engine, mean_over_ranks
from mmpretrain.methods.base import Features, Losses, RefineOn
from mmpretrain.methods.build import build_method
from tests.engine import runs

SUP, SSL = ["method.form=sup"], ["method.form=ssl"]
NEXT, SAME = ["method.critic_batch=next"], ["method.critic_batch=same"]
PREVIOUS = ["method.critic_batch=previous"]
TWO = ["method=factorcl", "method.critic_hidden=16", "data.modalities.caption=null", "model.encoders.caption=null"]
# New critics hardly score at all: a low temperature gives them weight. Lower ones, or an epsilon that lets Adam make
# large steps of small gradients, let rounding grow to visible differences within these steps, in the plain loop too.
ADAM = ["method.temperature=0.05", "optim.name=adam", "optim.lr=0.01", "optim.eps=0.3", "optim.clip=null"]
ADAM += ["optim.weight_decay=0", "optim.schedule=constant", "optim.warmup_samples=0"]
STEPS = 10


@dataclass
class Course:
    """What a run came to: per step the losses of both players by name, and at its end all weights by name."""

    losses: list[dict[str, float]]
    weights: dict[str, Tensor]


def config_of(*tokens: str) -> Config:
    """Left and right halves of the digits, 2 critics' steps."""
    return runs.tiny_config(*TWO, *ADAM, "method.critic_steps=2", *tokens)


def batch_of(config: Config, index: int, rank: int = 0, size: int = 1) -> runs.Batch:
    """A rank's rows of a global batch."""
    return runs.make_batch(index, rank, size, modalities=config.data.modalities)


def by_engine(tokens: list[str]) -> Course:
    """The run by the engine, in a rank; weights on rank 0 only."""
    config = config_of(*tokens)
    engine = runs.start(config)
    losses = []
    for index in range(STEPS):
        batch = batch_of(config, index, engine.world.rank, engine.world.size)
        report = engine.step(batch, runs.step_of(index, config))
        losses.append(mean_over_ranks(report.losses, engine.world))
    return Course(losses, weights_of(engine))


def weights_of(engine: Engine) -> dict[str, Tensor]:
    """Of model, heads and critics; a collective."""
    weights = engine.state_dict() or {}
    for part, modules in (("heads", engine.method.heads), ("critics", engine.method.critics)):
        weights |= {f"{part}.{name}": tensor.clone() for name, tensor in modules.state_dict().items()}
    return weights


def by_plain_loop(tokens: list[str]) -> Course:
    """Algorithm 3, on the batches that are asked for, by two optimizers on one process; each zeroes what is left."""
    config, world = config_of(*tokens), World.single()
    beta1, beta2 = config.optim.betas
    torch.manual_seed(config.seed)
    method = build_method(config)
    players, critics = (
        torch.optim.Adam(parameters, config.optim.lr, (beta1, beta2), config.optim.eps)
        for parameters in ([*method.model.parameters(), *method.heads.parameters()], method.critics.parameters())
    )
    course = Course([], {})

    def encoded(batch: runs.Batch) -> Features:
        with torch.no_grad():
            return method.encode(method.model, batch)

    def refine(features: Features, step: Step) -> dict[str, float]:
        for _ in range(method.refinement.times):
            losses = method.refine(features, step, world)
            critics.zero_grad()
            losses.total.backward()
            critics.step()
        return {f"critics/{name}": loss.item() for name, loss in losses.terms.items()}

    for index in range(STEPS):
        step = runs.step_of(index, config)
        batch = method.prepare(batch_of(config, index), step)
        before = encoded(batch)
        refined = refine(before, step) if method.refinement.on is RefineOn.next else {}
        losses = method.objective(method.encode(method.model, batch), step, world)
        players.zero_grad()
        losses.total.backward()
        players.step()
        refined = refined or refine(encoded(batch) if method.refinement.on is RefineOn.same else before, step)
        terms = {f"loss/{name}": term.item() for name, term in losses.terms.items()}
        course.losses.append({"loss": losses.total.item(), **terms, **refined})
    course.weights |= method.model.state_dict()
    for part, modules in (("heads", method.heads), ("critics", method.critics)):
        course.weights |= {f"{part}.{name}": tensor for name, tensor in modules.state_dict().items()}
    return course


def check(ours: Course, right: Course) -> None:
    """Losses to 1e-5, weights to 1e-4 or 1e-5; and something was learned by both."""
    for found, wanted in zip(ours.losses, right.losses, strict=True):
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-5)
    assert ours.weights.keys() == right.weights.keys()
    for name, weight in right.weights.items():
        torch.testing.assert_close(ours.weights[name], weight, rtol=1e-4, atol=1e-5, msg=name)
    for name in ("loss", "critics/unique", "critics/shared_conditional"):
        values = [losses[name] for losses in right.losses]
        assert max(values) - min(values) > 2e-3


@pytest.fixture(scope="module")
def plain() -> Callable[[list[str]], Course]:
    """The plain loop's course, by tokens."""
    known: dict[tuple[str, ...], Course] = {}

    def course(tokens: list[str]) -> Course:
        if tuple(tokens) not in known:
            known[tuple(tokens)] = by_plain_loop(tokens)
        return known[tuple(tokens)]

    return course


@pytest.mark.parametrize(
    ("world_size", "tokens", "engine"),
    [
        (2, SUP + NEXT, ["engine=zero1"]),
        (1, SSL + SAME, ["engine=zero2", "engine.micro_batches=2"]),
        (2, SSL + PREVIOUS, ["engine=zero1", "engine.micro_batches=2"]),
    ],
)
def test_the_engine_is_the_plain_loop(
    ranks: Callable, plain: Callable, world_size: int, tokens: list[str], engine: list[str]
) -> None:
    check(ranks(world_size, by_engine, [*tokens, *engine])[0], plain(tokens))


@pytest.mark.slow
@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("on", [NEXT, SAME, PREVIOUS])
@pytest.mark.parametrize("form", [SUP, SSL])
def test_the_engine_is_the_plain_loop_everywhere(
    ranks: Callable, plain: Callable, form: list[str], on: list[str], world_size: int, stage: int, micro_batches: int
) -> None:
    engine = [f"engine=zero{stage}", f"engine.micro_batches={micro_batches}"]
    check(ranks(world_size, by_engine, [*form, *on, *engine])[0], plain(form + on))


def turns(tokens: list[str]) -> list[dict[str, Tensor]]:
    """All weights around one step: before, before the critics' turn, after it, and at the end."""
    config = config_of(*tokens)
    engine = runs.start(config)
    seen = [weights_of(engine)]

    def watched(
        refine: Callable[..., dict[str, Tensor]], features: Features, step: Step, *, looks: bool
    ) -> dict[str, Tensor]:
        seen.append(weights_of(engine))
        losses = refine(features, step, looks=looks)
        seen.append(weights_of(engine))
        return losses

    runs.wrap(engine, "_refine", watched)
    engine.step(batch_of(config, 0, engine.world.rank, engine.world.size), runs.step_of(0, config))
    return [*seen, weights_of(engine)]


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names of the weights that differ."""
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("on", [NEXT, SAME, PREVIOUS])
def test_each_turn_changes_its_own_weights_alone(ranks: Callable, on: list[str]) -> None:
    before, entered, left, after = ranks(2, turns, [*SUP, *on, "engine=zero1"])[0]
    critics = {name for name in before if name.startswith("critics.")}
    turn, others = changed(entered, left), changed(before, entered) | changed(left, after)
    # The last bias shifts all scores alike, which changes no estimate.
    assert {name for name in critics if name.endswith("weight")} <= turn <= critics
    assert others.isdisjoint(critics)
    # The upper bounds' heads learn through the critics that stay as they are.
    heads = {name for name in before if "_upper" in name and name.endswith("output.weight")}
    assert len(heads) == 4 and heads <= others
    assert {name for name in before if name.startswith("heads.") and name.endswith("weight")} <= others
    assert (changed(before, entered) == set()) is (on is NEXT) and (changed(left, after) == set()) is (on is not NEXT)


def statistics(on: list[str]) -> dict[str, Tensor]:
    """Running statistics of encoders with batch norm after one step."""
    config = config_of(*SUP, *on, "engine=zero1")
    for name in config.data.modalities:
        config.model.encoders[name] = EncoderConfig("cnn", {"batch_norm": True, "layers": [{"channels": 4}]})
    engine = runs.start(config)
    engine.step(batch_of(config, 0, engine.world.rank, engine.world.size), runs.step_of(0, config))
    kinds = ("running_mean", "running_var", "num_batches_tracked")
    return {name: buffer.clone() for name, buffer in engine.method.model.named_buffers() if name.endswith(kinds)}


def test_a_second_look_at_a_batch_moves_no_running_statistics(ranks: Callable) -> None:
    once, twice = (ranks(2, statistics, on)[0] for on in (NEXT, SAME))
    assert len(once) == 6 and once.keys() == twice.keys()
    assert all(count == 1 for name, count in twice.items() if name.endswith("_tracked"))
    for name, values in once.items():
        assert torch.equal(values, twice[name]), name


@pytest.mark.parametrize(("on", "stage"), [(NEXT, 3), (SAME, 1), (PREVIOUS, 1)])
def test_resume_is_bit_equal(ranks: Callable, tmp_path: Path, on: list[str], stage: int) -> None:
    tokens = [*TWO, *SSL, *on, "method.critic_steps=2", f"engine=zero{stage}"]
    straight, resumed, losses, losses_again = ranks(2, runs.train_and_resume, tokens, 8, str(tmp_path))[0]
    assert straight == resumed and losses == losses_again


Poison = Callable[[Engine], None]


def failed(tokens: list[str], poison: Poison) -> tuple[float, set[str], int]:
    """A second step in which ``poison`` works on the last rank: its norm, what it changed, and gradients left over."""
    config = config_of(*tokens)
    engine = runs.start(config)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    engine.step(batch_of(config, 0, rank, size), runs.step_of(0, config))
    if rank == size - 1:
        poison(engine)
    before = weights_of(engine)
    norm = engine.step(batch_of(config, 1, rank, size), runs.step_of(1, config)).grad_norm
    replicated = [*engine.method.heads.parameters(), *engine.method.critics.parameters()]
    return norm, changed(before, weights_of(engine)), sum(p.grad is not None for p in replicated)


def poison_features(engine: Engine) -> None:
    """One modality's heads give what is no number."""

    def poisoned(encode: Callable[..., Features], *arguments: object) -> Features:
        features = encode(*arguments)
        return replace(features, views={v: {m: t * math.nan for m, t in e.items()} for v, e in features.views.items()})

    runs.wrap(engine.method, "encode", poisoned)


def poison_objective(engine: Engine) -> None:
    """The loss of everything else is infinite."""
    runs.wrap(engine.method, "objective", infinite)


def poison_refinement(engine: Engine) -> None:
    """The critics' loss is infinite."""
    runs.wrap(engine.method, "refine", infinite)


def infinite(loss: Callable[..., Losses], *arguments: object) -> Losses:
    """What ``loss`` gives, times infinity."""
    losses = loss(*arguments)
    return replace(losses, terms={name: term * math.inf for name, term in losses.terms.items()})


@pytest.mark.parametrize(
    ("on", "poison", "stepped"),
    [
        (NEXT, poison_features, set()),
        (SAME, poison_features, set()),
        (NEXT, poison_objective, {"critics"}),  # their turn was over
        (SAME, poison_objective, set()),
        (NEXT, poison_refinement, {"model", "heads"}),
    ],
)
def test_a_turn_that_fails_changes_nothing_and_is_told(
    ranks: Callable, on: list[str], poison: Poison, stepped: set[str]
) -> None:
    for norm, names, gradients in ranks(2, failed, [*SUP, *on, "engine=zero1"], poison):
        assert not math.isfinite(norm)
        parts = {name.partition(".")[0] for name in names}
        assert {part if part in ("heads", "critics") else "model" for part in parts} <= stepped
        assert gradients == 0


@pytest.mark.parametrize(
    ("on", "poison", "stepped"),
    [
        (NEXT, poison_objective, set()),
        (NEXT, poison_refinement, set()),
        (SAME, poison_refinement, {"model", "heads"}),  # their turn was over
    ],
)
def test_of_a_turn_that_is_skipped_nothing_is_left(
    ranks: Callable, on: list[str], poison: Poison, stepped: set[str]
) -> None:
    told = ranks(2, failed, [*SUP, *on, "engine=zero1", "engine.skip_nonfinite=1"], poison)
    assert not any(math.isfinite(norm) or gradients for norm, _, gradients in told)
    # Of the model every rank steps its own share, which may be none.
    parts = {name.partition(".")[0] for _, names, _ in told for name in names}
    assert {part if part in ("heads", "critics") else "model" for part in parts} == stepped
