"""What a run will need, predicted and counted: memory within a tenth, traffic and checkpoints to the byte."""

from __future__ import annotations

import gc
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor

from benchmarks import prediction_table
from mmpretrain.assembly.check import check_model
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.root import Config
from mmpretrain.engine import checkpoint
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.told import OF_HOSTS, told_over_ranks
from mmpretrain.training.prediction.counting import Collectives, LiveBytes
from mmpretrain.training.prediction.fit import RESERVE
from mmpretrain.training.prediction.foretold import foretold
from mmpretrain.training.prediction.predict import Prediction, predict
from tests.engine import runs
from tests.test_docs import ROOT

RANKS, STEPS = 2, 3
# Wide enough for weights and activations to outweigh what torch and DeepSpeed keep beside them.
WIDER = [
    f"model.encoders.{half}.config.{key}={value}"
    for half in runs.MODALITIES
    for key, value in {"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 512}.items()
]
HALVES = ["data.modalities.left=null", "model.encoders.left=null"]
FIRST = ["method=clip", "engine=zero1", "averaging.ema=0.9", "optim.name=muon"]
CASES = [
    FIRST,
    ["method=m3col", "engine=zero1", "objective.negatives=ring"],
    ["method=siglip", "engine=zero2", "engine.micro_batches=2", "engine.precision=bfloat16"],
]
MORE = [
    ["method=clip", "engine=zero0", "averaging.ema=0.9"],
    ["method=clip", "engine=zero0", "engine.precision=bfloat16"],
    ["method=clip", "engine=zero3", "engine.micro_batches=2", "engine.precision=bfloat16"],
    ["method=clip", "engine=zero3", "optim.name=muon", "averaging.ema=0.9"],
    ["method=comm", "engine=zero1", "method.head_hidden=64"],
    ["method=comm_supervised"],
    ["method=cross_self"],
    ["method=supcon"],
    ["method=factorcl", "method.critic_hidden=32", *HALVES],
    ["method=mucmm", "method.variance=1.0", "model.embed_dim=null", "model.components.common=3",
     "model.components.individual=4"],
    ["method=clip", "model.encoders.caption.freeze=true", "engine=zero3"],
    ["method=clip", *(f"model.encoders.{half}.checkpointing=true" for half in runs.MODALITIES)],
]  # fmt: skip


@dataclass
class Counted:
    """Of one rank. payloads: kind of collective -> bytes of a step. tensors: bytes in the checkpoint's files."""

    peak: int
    payloads: dict[str, int]
    tensors: int
    files: int


def small_config(tokens: list[str]) -> Config:
    """What both sides are about."""
    return runs.tiny_config(*WIDER, *tokens)


def counted(tokens: list[str], folder: str) -> Counted:
    """What the last of some steps, and a checkpoint, really took."""
    before = {tensor.untyped_storage()._cdata for tensor in _existing()}
    config = small_config(tokens)
    engine = runs.start(config)
    live, moved = LiveBytes(), Collectives()
    for index in range(STEPS - 1):
        _step(engine, index)
    live.add(tensor for tensor in _existing() if tensor.untyped_storage()._cdata not in before)
    with live, moved:
        _step(engine, STEPS - 1)
    checkpoint.save(engine, Path(folder), STEPS, {})
    written = [path for path in Path(folder, f"step-{STEPS:08d}").rglob("*") if path.is_file()]
    payloads = {kind: found.payload for kind, found in moved.found.items()}
    return Counted(live.peak, payloads, sum(map(_tensor_bytes, written)), sum(path.stat().st_size for path in written))


def predicted(tokens: list[str], gpu: bool = False) -> Prediction:
    """The same, foretold."""
    config = small_config(tokens)
    sources = EncoderSources(config)
    model = check_model(config, sources).model
    assert model is not None
    return predict(config, sources, model, RANKS, gpu=gpu)


def _step(engine: Engine, index: int) -> None:
    """A step and its record, of samples that come once."""
    world, config = engine.world, engine.config
    batch = runs.make_batch(index, world.rank, world.size, repeat=False, modalities=config.data.modalities)
    report = engine.step(batch, runs.step_of(index, config))
    told_over_ranks(report.losses, OF_HOSTS, world, world.all_gather_rows(batch.sample_ids))


def _existing() -> list[Tensor]:
    gc.collect()
    found = (thing for thing in gc.get_objects() if issubclass(type(thing), Tensor))
    return [tensor for tensor in found if tensor.device.type == "cpu"]


def _tensor_bytes(path: Path) -> int:
    """Bytes of the numbers in a file of torch or of safetensors."""
    if path.suffix == ".pt":
        with zipfile.ZipFile(path) as archive:
            return sum(entry.file_size for entry in archive.infolist() if "/data/" in entry.filename)
    if path.suffix == ".safetensors":
        with path.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        return sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values() if "dtype" in entry)
    return 0


def compare(ranks: Callable, folder: Path, tokens: list[str]) -> None:
    """Predict, count, and hold the one against the other."""
    ours, right = predicted(tokens), ranks(RANKS, counted, tokens, str(folder))[0]
    assert ours.memory is not None and ours.wire is not None
    assert ours.memory.total == pytest.approx(right.peak, rel=0.1)
    assert ours.wire.payloads == right.payloads
    assert ours.checkpoint.tensors == right.tensors
    assert ours.checkpoint.files == pytest.approx(right.files, rel=0.1)


@pytest.mark.parametrize("tokens", CASES, ids=" ".join)
def test_what_is_predicted_is_what_is_counted(ranks: Callable, tmp_path: Path, tokens: list[str]) -> None:
    compare(ranks, tmp_path, tokens)


@pytest.mark.slow
@pytest.mark.parametrize("tokens", MORE, ids=" ".join)
def test_it_is_everywhere(ranks: Callable, tmp_path: Path, tokens: list[str]) -> None:
    compare(ranks, tmp_path, tokens)


@pytest.mark.slow
def test_the_table_of_the_docs_is_what_the_code_says() -> None:
    page = (ROOT / "docs" / "prediction.md").read_text()
    for line in prediction_table.table():
        assert line in page, line


def test_what_saves_memory_is_predicted_to() -> None:
    plain = predicted(["method=clip", "data.global_batch=512"]).memory
    assert plain is not None
    for token in ("engine.micro_batches=4", "engine.precision=bfloat16"):
        other = predicted(["method=clip", "data.global_batch=512", token]).memory
        assert other is not None and other.activations < 0.8 * plain.activations


@pytest.mark.parametrize(("limit", "ring"), [(8, False), (7, True)])
def test_negatives_are_chosen_by_what_travels(limit: int, ring: bool) -> None:
    """Of CLIP's two modalities one: 2 x 4 bytes x 65536 x 16 = 8 MiB."""
    tokens = ["method=clip", *HALVES, "data.global_batch=65536", "model.embed_dim=16", f"objective.gather_mb={limit}"]
    wire = predicted(tokens).wire
    assert wire is not None and ("send" in wire.payloads) is ring


def test_stage_1_keeps_all_gradients_until_they_are_reduced() -> None:
    found = predicted(["method=clip", "engine=zero1"], gpu=True)
    assert found.memory is not None and found.memory.gradients >= 4 * found.trained


def test_a_run_that_does_not_fit_is_told_what_would() -> None:
    config = small_config(["method=clip", "data.global_batch=512"])
    sources = EncoderSources(config)
    model = check_model(config, sources).model
    assert model is not None
    needed = predicted(["method=clip", "data.global_batch=512"], gpu=True).memory
    assert needed is not None
    _, notes = foretold(config, sources, model, RANKS, gpu=True, limit=RESERVE + needed.total - 1)
    (note,) = notes
    assert note.startswith("does not fit: ") and "; engine.micro_batches=2 would need " in note
