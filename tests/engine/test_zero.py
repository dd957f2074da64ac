"""DeepSpeed ZeRO 0-3 on 1 and 2 ranks: one loss curve. (DeepSpeed does not compute in float64.)"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine import runs

STEPS = 20


@pytest.fixture(scope="module")
def reference(ranks: Callable) -> Callable[[str], list[float]]:
    """The curve of one process at stage 0, by method."""
    curves: dict[str, list[float]] = {}

    def curve(method: str) -> list[float]:
        if method not in curves:
            curves[method] = ranks(1, runs.train, [f"method={method}", "engine=zero0"], STEPS)[0]
        return curves[method]

    return curve


def check_curve(ranks: Callable, reference: Callable, method: str, world_size: int, stage: int) -> None:
    """The losses of every rank are those of the reference, and fall."""
    curves = ranks(world_size, runs.train, [f"method={method}", f"engine=zero{stage}"], STEPS)
    differences = [abs(a - b) for curve in curves for a, b in zip(curve, reference(method), strict=True)]
    assert max(differences) <= 1e-5
    assert curves[0][-1] < curves[0][0]  # and it learns


@pytest.mark.parametrize(
    ("method", "world_size", "stage"),
    [("m3col", 2, 0), ("m3col", 1, 1), ("m3col", 2, 2), ("clip", 2, 3)],
)
def test_same_curve(ranks: Callable, reference: Callable, method: str, world_size: int, stage: int) -> None:
    check_curve(ranks, reference, method, world_size, stage)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("method", ["clip", "m3col"])
def test_same_curve_everywhere(ranks: Callable, reference: Callable, method: str, world_size: int, stage: int) -> None:
    check_curve(ranks, reference, method, world_size, stage)


def test_gradients_are_clipped_alike_with_and_without_zero(ranks: Callable) -> None:
    # Adam sees the scale of gradients only through a large eps.
    tokens = ["method=clip", "optim.clip=0.05", "optim.eps=1", "optim.lr=0.5", "optim.warmup_samples=0"]
    whole, divided = (ranks(1, runs.train, [*tokens, f"engine=zero{stage}"], 5)[0] for stage in (0, 1))
    unclipped = ranks(1, runs.train, [*tokens, "optim.clip=null", "engine=zero0"], 5)[0]
    assert max(abs(a - b) for a, b in zip(whole, divided, strict=True)) <= 1e-5
    assert max(abs(a - b) for a, b in zip(whole, unclipped, strict=True)) > 1e-4


@pytest.mark.parametrize(("world_size", "stage"), [(2, 1), (2, 3)])
def test_resume_is_bit_equal(ranks: Callable, tmp_path: Path, world_size: int, stage: int) -> None:
    results = ranks(world_size, runs.train_and_resume, ["method=m3col", f"engine=zero{stage}"], 8, str(tmp_path))
    straight, resumed, losses, losses_again = results[0]
    assert straight == resumed
    assert losses == losses_again


@pytest.mark.slow
@pytest.mark.parametrize("method", ["clip", "m3col"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_resume_is_bit_equal_everywhere(
    ranks: Callable, tmp_path: Path, method: str, stage: int, world_size: int
) -> None:
    tokens = [f"method={method}", f"engine=zero{stage}"]
    straight, resumed, *_ = ranks(world_size, runs.train_and_resume, tokens, 8, str(tmp_path))[0]
    assert straight == resumed


@pytest.mark.parametrize(
    "change",
    ["optim.name=adam", "optim.clip=0.01", "optim.schedule=constant",
     "optim.step_samples=32 optim.schedule=step", "optim.warmup_samples=0", "seed=1", "optim.lr=5e-4",
     "optim.heads_lr=0.01", "model.encoders.left.lr_scale=0.1", "model.encoders.left.freeze=true",
     "optim.betas=[0.5,0.9]", "optim.weight_decay=1.0", "optim.eps=1e-4"],
)  # fmt: skip
def test_every_option_changes_something(ranks: Callable, reference: Callable, change: str) -> None:
    curve = ranks(1, runs.train, ["method=m3col", "engine=zero0", *change.split()], 8)[0]
    assert curve != reference("m3col")[:8]


def test_nothing_trainable_is_refused(ranks: Callable) -> None:
    tokens = ["method=clip", "model.embed_dim=null"]
    tokens += [f"model.encoders.{name}.freeze=true" for name in ("left", "right", "caption")]
    assert "every encoder is frozen" in ranks(1, runs.refusal, runs.train, tokens, 1)[0]
