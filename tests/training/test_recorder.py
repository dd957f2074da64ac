"""Records: what a step leaves behind, and that a run does not go on from numbers that are not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from mmpretrain.assembly.build import build_processor
from mmpretrain.config.compose import compose
from mmpretrain.data.batch import Batch
from mmpretrain.data.counters import Counts
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.world import World
from mmpretrain.engine.engine import StepReport
from mmpretrain.engine.nonfinite import Fault
from mmpretrain.records import read_training
from mmpretrain.report.metrics import read_metrics
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.summary.panels import draw_evaluations, draw_group
from mmpretrain.training.recorder import NonFiniteError, Recorder


@pytest.fixture
def recorder(digits: Path, tmp_path: Path) -> tuple[Recorder, Batch]:
    """A recorder on a fresh run folder, and the first batch of its stream."""
    tokens = [
        "data=digits",
        f"data.path={digits}",
        f"model.encoders.caption.tokenizer={digits / 'tokenizer'}",
        "data.global_batch=8",
        "tracking.tensorboard=off",
    ]
    config = compose(tokens)
    stream = Stream(config.data, "train", 0, 0, 1, build_processor(config))
    made = Recorder(RunFolder(tmp_path), config, stream, World.single())
    made.start(0)
    return made, next(stream.batches(0, 1))


def report(loss: float = 1.5, grad_norm: float = 2.0) -> StepReport:
    """What a step reports."""
    return StepReport({"loss": torch.tensor(loss), "loss/contrastive": torch.tensor(loss)}, grad_norm, 0.1)


def test_one_line_per_step_with_the_documented_keys(recorder: tuple[Recorder, Batch]) -> None:
    writer, batch = recorder
    assert writer.record(1, batch, report(), stop=False) is False
    (line,) = read_lines(writer.folder.metrics)
    assert (line["step"], line["samples"], line["loss"], line["loss/contrastive"], line["lr"]) == (1, 8, 1.5, 1.5, 0.1)
    assert {"epoch", "grad_norm", "samples_per_s", "data_wait_s", "data_wait_max_s"} <= set(line)
    assert not any(name.startswith("store/") for name in line), "the data are local"
    assert list(read_lines(writer.folder.consumed)) == [{"step": 1, "keys": list(batch.keys)}]
    assert writer.folder.status()["state"] == "running"


def test_a_diagnostic_that_is_not_finite_is_null_and_told_of_once(
    recorder: tuple[Recorder, Batch], caplog: pytest.LogCaptureFixture
) -> None:
    writer, batch = recorder
    writer.config.train.log_every_steps = 2
    odd = report()
    odd.losses.update({"correlation/a-b": torch.tensor(math.nan), "nats/s": torch.tensor(math.inf)})
    writer.record(1, batch, odd, stop=True)  # a step whose diagnostics were not asked for
    writer.record(2, batch, odd, stop=False)
    writer.record(4, batch, odd, stop=False)
    first, *due = read_lines(writer.folder.metrics)
    assert "correlation/a-b" not in first and first["nats/s"] is None
    assert [(line["correlation/a-b"], line["nats/s"]) for line in due] == [(None, None)] * 2
    assert "NaN" not in writer.folder.metrics.read_text() and "Infinity" not in writer.folder.metrics.read_text()
    assert caplog.text.count("not finite (null in metrics.jsonl)") == 2
    assert "at step 2 correlation/a-b is not finite" in caplog.text
    assert [step["nats/s"] for step in read_training(writer.folder)] == [None] * 3
    assert np.isnan(read_metrics(writer.folder.metrics, 8).columns["nats/s"].values).all()
    figure = Figure()
    draw_group(figure.subplots(), read_training(writer.folder), "nats/", "Bounds", "nats")
    draw_evaluations(figure.subplots(), {"x": {1: None, 2: 0.5}}, 8)  # type: ignore[dict-item]


def test_waits_are_told_as_their_mean_and_the_longest(recorder: tuple[Recorder, Batch]) -> None:
    writer, batch = recorder
    writer.config.train.log_every_steps = 3

    def batches() -> Iterator[Batch]:
        for pause in (0.0, 0.06, 0.0):
            time.sleep(pause)
            yield batch

    for number, _ in enumerate(writer.timed(batches()), 1):
        writer.record(number, batch, report(), stop=False)
    (line,) = read_lines(writer.folder.metrics)
    assert line["data_wait_max_s"] >= 0.06 > 0.03 > line["data_wait_s"] >= 0.02


def test_what_was_fetched_is_in_the_lines_and_said_at_the_end(
    recorder: tuple[Recorder, Batch], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    writer, batch = recorder
    counts = Counts(fetched_bytes=123e6, shards=7, hits=5, retries=2, waited_s=1.5)
    monkeypatch.setattr(writer.stream, "store_counts", lambda: counts)
    writer.record(1, batch, report(), stop=False)
    (line,) = read_lines(writer.folder.metrics)
    assert {name: value for name, value in line.items() if name.startswith("store/")} == {
        "store/fetched_bytes": 123e6,
        "store/shards": 7,
        "store/hits": 5,
        "store/retries": 2,
        "store/waited_s": 1.5,
    }
    writer.complete(1)
    said = "rank 0, training data: 7 files fetched (123 MB), 5 found in the cache, 2 requests repeated, 1.5 s waited"
    assert said in capsys.readouterr().out


def test_a_wish_to_stop_is_passed_on(recorder: tuple[Recorder, Batch]) -> None:
    writer, batch = recorder
    assert writer.record(1, batch, report(), stop=True) is True


@pytest.mark.parametrize("bad", [{"loss": float("nan")}, {"loss": float("inf")}, {"grad_norm": float("inf")}])
def test_not_finite_ends_the_run(recorder: tuple[Recorder, Batch], bad: dict[str, float]) -> None:
    writer, batch = recorder
    with pytest.raises(NonFiniteError, match=r"lower optim\.lr"):
        writer.record(1, batch, report(**bad), stop=False)


def test_some_steps_in_a_row_may_be_skipped_and_are_counted(recorder: tuple[Recorder, Batch]) -> None:
    writer, batch = recorder
    writer.config.engine.skip_nonfinite = 2
    sample = int(batch.sample_ids[3])
    bad = replace(report(grad_norm=float("nan")), fault=Fault(samples=((0, sample),)))
    for done, found in enumerate((bad, report(), bad, bad), start=1):
        writer.record(done, batch, found, stop=False)
    lines = list(read_lines(writer.folder.metrics))
    assert [line["skipped"] for line in lines] == [1, 1, 2, 3]
    assert ["loss" in line for line in lines] == [False, True, False, False]
    with pytest.raises(NonFiniteError) as caught:
        writer.record(5, batch, bad, stop=False)
    assert f"features of {batch.keys[3]} (rank 0), as in the 2 before it, which were skipped" in str(caught.value)


def test_a_resumed_run_rolls_its_records_back(recorder: tuple[Recorder, Batch]) -> None:
    writer, batch = recorder
    for done in (1, 2, 3):
        writer.record(done, batch, report(), stop=False)
    writer.start(2)
    assert [line["step"] for line in read_lines(writer.folder.metrics)] == [1, 2]
    assert [line["step"] for line in read_lines(writer.folder.consumed)] == [1, 2]


def nan_on_one_rank(stage: int) -> tuple[bool, bool]:
    """Whether the gradient norm is finite on this rank before and in a step in which rank 1 met a nan."""
    from math import isfinite

    from tests.engine import runs

    config = runs.tiny_config("method=m3col", f"engine=zero{stage}")
    engine = runs.start(config)
    norms = []
    for index in range(2):
        batch = runs.make_batch(index, engine.world.rank, 2)
        if index == 1 and engine.world.rank == 1:
            batch.inputs["left"]["pixel_values"][0] = float("nan")
        norms.append(engine.step(batch, runs.step_of(index, config)).grad_norm)
    return isfinite(norms[0]), isfinite(norms[1])


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_nan_on_one_rank_shows_on_all(ranks: Callable, stage: int) -> None:
    assert ranks(2, nan_on_one_rank, stage) == [(True, False), (True, False)]
