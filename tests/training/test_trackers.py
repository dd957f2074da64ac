"""The seam: every sink gets what metrics.jsonl gets, on rank 0 alone, and forgets what a resumption takes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpretrain.assembly.build import build_processor
from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.world import World
from mmpretrain.engine.engine import StepReport
from mmpretrain.run_folder import RunFolder, State, read_lines
from mmpretrain.training.background import Background
from mmpretrain.training.recorder import Recorder
from mmpretrain.training.trackers import MetricsFile, Tracker, run_trackers


class Memory:
    """A sink that keeps its records, and the names of the calls, in lists that outlive a process of the run."""

    def __init__(self, records: list[dict[str, Any]], calls: list[str]) -> None:
        self.records, self.calls = records, calls

    def start(self, done: int, config: Config) -> None:
        """Drop what lies beyond the checkpoint."""
        self.calls.append(f"start {done} of {config.total_steps}")
        self.records[:] = [record for record in self.records if record["step"] <= done]

    def log(self, record: Mapping[str, Any]) -> None:
        """Keep a record."""
        self.calls.append("log")
        self.records.append(dict(record))

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Note the call."""
        self.calls.append(f"picture {name} of {step}")

    def conclude(self, step: int, scores: Mapping[str, float]) -> None:
        """Note the call."""
        self.calls.append(f"conclude {step}")

    def flush(self) -> None:
        """Note the call."""
        self.calls.append("flush")

    def complete(self) -> None:
        """Note the call."""
        self.calls.append("complete")


class Run:
    """The recorders of one run folder, each as a process of the run would make it, with a second sink."""

    def __init__(self, digits: Path, folder: Path, world: World) -> None:
        tokenizer = f"model.encoders.caption.tokenizer={digits / 'tokenizer'}"
        self.config = compose(
            [
                "data=digits",
                f"data.path={digits}",
                tokenizer,
                "data.global_batch=8",
                "train.samples=24",
                "tracking.tensorboard=off",
            ]
        )
        self.folder, self.world = RunFolder(folder), world
        self.stream = Stream(self.config.data, "train", 0, world.rank, world.size, build_processor(self.config))
        self.batch: Batch = next(self.stream.batches(0, 1))
        self.records: list[dict[str, Any]] = []
        self.calls: list[str] = []

    def recorder(self, done: int) -> Recorder:
        """The recorder of a process that starts after step ``done``."""

        def trackers(folder: RunFolder, config: Config) -> list[Tracker]:
            return [*run_trackers(folder, config), Memory(self.records, self.calls)]

        made = Recorder(self.folder, self.config, self.stream, self.world, trackers)
        made.start(done)
        return made

    def steps(self, recorder: Recorder, first: int, last: int, loss: float) -> None:
        """Record the steps from ``first`` to ``last``."""
        for done in range(first, last + 1):
            report = StepReport({"loss": torch.tensor(loss + self.world.rank)}, 2.0, 0.1)
            recorder.record(done, self.batch, report, stop=False)

    def lines(self) -> list[dict[str, Any]]:
        """What metrics.jsonl holds."""
        return list(read_lines(self.folder.metrics))


def test_metrics_file_is_a_runs_first_sink_and_the_only_one_if_no_other_is_wanted(tmp_path: Path) -> None:
    (tracker,) = run_trackers(RunFolder(tmp_path), compose(["tracking.tensorboard=off"]))
    assert isinstance(tracker, MetricsFile)
    tokens = ["tracking.tensorboard=on", "tracking.wandb.project=p", "tracking.trackio.project=q"]
    first, *others = run_trackers(RunFolder(tmp_path), compose(tokens))
    assert isinstance(first, MetricsFile)
    assert [other.name for other in others if isinstance(other, Background)] == ["tensorboard", "wandb", "trackio"]


def test_a_second_sink_gets_the_same_records_also_across_a_resumption(digits: Path, tmp_path: Path) -> None:
    run = Run(digits, tmp_path, World.single())
    first = run.recorder(0)
    run.steps(first, 1, 2, loss=1.0)
    first.write({"step": 2, "eval/test/knn/left/accuracy": 0.5})
    first.flush()
    run.steps(first, 3, 3, loss=5.0)
    first.write({"step": 3, "eval/test/knn/left/accuracy": 0.75})
    assert len(run.lines()) == 5 and run.lines() == run.records

    again = run.recorder(2)  # killed after step 3, continued from the checkpoint of step 2
    assert run.lines() == run.records and [record["step"] for record in run.records] == [1, 2, 2]
    run.steps(again, 3, 3, loss=7.0)
    again.complete(3)
    assert run.lines() == run.records
    assert [record.get("loss") for record in run.records] == [1.0, 1.0, None, 7.0]
    begun = ["start 0 of 3", "log", "log", "log", "flush", "log", "log"]
    assert run.calls == [*begun, "start 2 of 3", "log", "complete"]
    assert run.folder.status()["state"] == State.completed.value


def test_a_run_is_complete_only_once_its_sinks_are(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(digits, tmp_path, World.single())
    recorder = run.recorder(0)
    states: list[str] = []
    monkeypatch.setattr(Memory, "complete", lambda self: states.append(run.folder.status()["state"]))
    recorder.complete(0)
    assert states == ["running"] and run.folder.status()["state"] == "completed"


def two_steps(digits: Path, folder: Path) -> tuple[list[dict[str, Any]], list[str], int]:
    """On each rank: the second sink's records and calls, and how many sinks the recorder has."""
    run = Run(digits, folder, World.current())
    recorder = run.recorder(0)
    run.steps(recorder, 1, 2, loss=1.0)
    recorder.write({"step": 2, "eval/test/knn/left/accuracy": 0.5})
    recorder.flush()
    recorder.complete(2)
    return run.records, run.calls, len(recorder.trackers)


def test_sinks_are_made_and_called_on_rank_0_alone(ranks: Callable, digits: Path, tmp_path: Path) -> None:
    first, second = ranks(2, two_steps, digits, tmp_path)
    records, calls, sinks = first
    assert records == list(read_lines(RunFolder(tmp_path).metrics)) and sinks == 2
    assert [record.get("loss") for record in records] == [1.5, 1.5, None]  # of both ranks
    assert calls == ["start 0 of 3", "log", "log", "log", "flush", "complete"]
    assert second == ([], [], 0)
