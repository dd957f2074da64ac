"""A run on several sources: what it records of each, and that a checkpoint fits no other mixture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.world import World
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.engine.engine import StepReport
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.training.known_data import known_data
from mmpretrain.training.recorder import Recorder
from tests.data.mixtures import mixed_config, mixed_stream, write_mixture


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mixture."""
    return write_mixture(tmp_path_factory.mktemp("mixture"))


def test_lines_tell_samples_and_epochs_of_each_source(root: Path, tmp_path: Path) -> None:
    data = mixed_config(root, curriculum=False)
    stream = mixed_stream(root, data=data)
    recorder = Recorder(RunFolder(tmp_path), Config(data=data), stream, World.single())
    recorder.start(0)
    batches: list[Batch] = list(stream.batches(0, 2))
    for done, batch in enumerate(batches, 1):
        recorder.record(done, batch, StepReport({"loss": torch.tensor(1.0)}, 1.0, 0.1), stop=False)
    *_, line = read_lines(recorder.folder.metrics)
    counts = {name: line[f"samples/{name}"] for name in ("web", "books", "few")}
    assert sum(counts.values()) == line["samples"] == 24 and counts["web"] in (14, 15)
    assert line["epoch/few"] == counts["few"] / 3 and line["epoch"] == 24 / 25
    keys = [key for entry in read_lines(recorder.folder.consumed) for key in entry["keys"]]
    assert keys == [stream.key(ordinal) for batch in batches for ordinal in batch.sample_ids.tolist()]
    assert sum(key.startswith("web/") for key in keys) == counts["web"]


def test_a_checkpoint_fits_no_other_mixture(root: Path) -> None:
    data = mixed_config(root)
    stream = mixed_stream(root, data=data)
    facts = {"step": 3, "index": stream.index.fingerprint, "mixture": stream.plan.facts}
    manifest = json.loads(json.dumps(facts))
    assert known_data(manifest, stream, Config(data=data)) == []
    data.sources["web"].weight = 0.5
    other = mixed_stream(root, data=data)
    with pytest.raises(CheckpointError, match=r"in other shares than when .* restore data\.sources, data\.mixing"):
        known_data(manifest, other, Config(data=data))
    del manifest["mixture"]
    with pytest.raises(CheckpointError, match="in other shares"):
        known_data(manifest, other, Config(data=data))
