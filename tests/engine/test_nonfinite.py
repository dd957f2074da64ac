"""Steps that are not finite: what of them is told, and that skipping one leaves a run as if it had not been."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, replace

import pytest

from mmpretrain.endings import Ending, ending_of
from mmpretrain.engine.engine import Engine, StepReport
from mmpretrain.engine.nonfinite import Fault, NonFiniteError
from tests.engine import runs

GONE = 1  # the step that goes wrong


def step(engine: Engine, index: int, poisoned: str = "") -> StepReport:
    """One step on its rank's rows; poisoned: what goes wrong on the last rank."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    batch = runs.make_batch(index, rank, size, modalities=engine.config.data.modalities)
    if poisoned == "sample" and rank == size - 1:
        inputs = {name: dict(values) for name, values in batch.inputs.items()}
        inputs["left"]["pixel_values"] = inputs["left"]["pixel_values"].clone()
        inputs["left"]["pixel_values"][2] *= math.nan
        batch = replace(batch, inputs=inputs)
    handle = None
    if poisoned == "gradient" and rank == size - 1:
        weight = next(p for name, p in engine.method.model.named_parameters() if name.startswith("encoders.left"))
        handle = weight.register_hook(lambda gradient: gradient * math.inf)
    report = engine.step(batch, runs.step_of(index, engine.config))
    if handle is not None:
        handle.remove()
    return report


def with_and_without(tokens: list[str], poisoned: str) -> tuple[str, str, object, Fault | None, object]:
    """Digests after two good steps, and after the same two with a bad one between them that is skipped."""
    outcomes, fault, states = [], None, []
    for bad in ("", poisoned):
        engine = runs.start(runs.tiny_config(*tokens, "engine.skip_nonfinite=1"))
        step(engine, 0)
        before = engine.loss_scale and asdict(engine.loss_scale)
        if bad:
            fault = step(engine, GONE, bad).fault
            assert (engine.loss_scale and asdict(engine.loss_scale)) == before
        report = step(engine, 2)
        assert report.fault is None and math.isfinite(report.grad_norm)
        buffers = [buffer.double().sum().item() for buffer in engine.method.model.buffers()]
        numbers = engine.average and {n: t.double().sum().item() for n, t in engine.average._numbers.items()}
        outcomes.append(runs.weights_digest(engine))
        states.append((buffers, numbers))
    return outcomes[0], outcomes[1], states[0], fault, states[1]


def check(ranks: Callable, size: int, tokens: list[str], poisoned: str) -> None:
    """Nothing is left of the step, on any rank, and every rank knows what was wrong."""
    for straight, skipped, before, fault, after in ranks(size, with_and_without, tokens, poisoned):
        assert straight == skipped and before == after
        assert fault is not None
        if poisoned == "sample":
            assert [rank for rank, _ in fault.samples] == [size - 1] and not fault.weights
        else:
            assert any(name.startswith("model.encoders.left") for name in fault.gradients), fault
            assert not fault.samples


EMA = "averaging.ema=0.9"


@pytest.mark.parametrize(
    ("stage", "poisoned", "tokens"),
    [
        (1, "sample", [EMA, "method=m3col"]),
        (0, "gradient", [EMA, "method=clip"]),
        pytest.param(1, "gradient", ["method=clip", "engine.micro_batches=2"], marks=pytest.mark.slow),
        pytest.param(2, "gradient", ["method=clip"], marks=pytest.mark.slow),
        pytest.param(3, "gradient", [EMA, "method=m3col"], marks=pytest.mark.slow),
        pytest.param(3, "sample", ["method=clip", "engine.micro_batches=2"], marks=pytest.mark.slow),
        pytest.param(1, "gradient", ["method=clip", "engine.precision=float16"], marks=pytest.mark.slow),
        pytest.param(2, "sample", ["method=clip", "engine.precision=float16"], marks=pytest.mark.slow),
        pytest.param(1, "gradient", ["method=clip", "engine.offload=optimizer"], marks=pytest.mark.slow),
        pytest.param(2, "gradient", ["method=clip", "engine.offload=optimizer"], marks=pytest.mark.slow),
        pytest.param(3, "gradient", ["method=clip", "engine.offload=optimizer"], marks=pytest.mark.slow),
        pytest.param(3, "gradient", ["method=clip", "engine.offload=parameters"], marks=pytest.mark.slow),
    ],
)
def test_a_skipped_step_leaves_nothing_behind(ranks: Callable, stage: int, poisoned: str, tokens: list[str]) -> None:
    check(ranks, 2, [*tokens, f"engine=zero{stage}"], poisoned)


def blown_up_run(tokens: list[str]) -> tuple[str, str]:
    """The error of the second step, whose weights are out of all bounds, and its ending."""
    engine = runs.start(runs.tiny_config(*tokens))
    try:
        reports = [step(engine, index) for index in range(3)]
    except NonFiniteError as error:
        return str(error), ending_of(error).name
    raise AssertionError(f"three steps were made: {reports}")


def test_a_rate_of_1e30_is_the_cause_and_not_what_it_leads_to(ranks: Callable) -> None:
    """Its scale becomes 0, which the loss refuses."""
    for said, ending in ranks(2, blown_up_run, ["method=siglip", "optim.lr=1e30", "optim.warmup_samples=0"]):
        assert said.startswith("before step 2 weights have become as large as ") and "e+" in said
        assert "the scale (1 / temperature) is 0" in said
        assert "lower optim.lr (it is 1e+30)" in said and ending == Ending.diverged.name


def test_what_is_not_finite_is_named_briefly() -> None:
    fault = Fault(("a", "b", "c", "d", "e"), (), ((1, 7),))
    assert fault.words({7: "dog-7"}) == (
        "not finite are the features of dog-7 (rank 1); the gradients of a, b, c and 2 more"
    )
    assert fault.advice.startswith("look at these samples")
    assert Fault().words({}) == ""
