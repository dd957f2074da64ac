"""The stream: the same samples for any number of ranks and workers, from any step on, whatever the shards hold."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch

from mmpretrain.data.batch import Batch
from mmpretrain.data.index import ShardError, load_index
from mmpretrain.data.quarantine import BadDataError
from tests.data.small_dataset import CLASSES, Sample, npy, png, stream, write_split

SIZES = (5, 3, 6, 1, 6)
TOTAL = sum(SIZES)
BAD = {2: ("picture.png", png(2)[:-30]), 9: ("values.npy", npy([1.0, 2.0])), 17: ("label.cls", b"99")}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """21 samples in 5 shards."""
    path = tmp_path_factory.mktemp("dataset")
    write_split(path / "train", SIZES)
    return path


def damage(number: int, sample: Sample) -> Sample:
    """The sample, with what BAD puts into it."""
    return sample | dict([BAD[number]]) if number in BAD else sample


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with three samples that cannot be used."""
    path = tmp_path_factory.mktemp("damaged")
    write_split(path / "train", SIZES, damage)
    return path


def content(batch: Batch) -> dict[str, Any]:
    """Everything in a batch, as comparable values."""
    tensors = {f"{m}.{k}": t.tolist() for m, inputs in batch.inputs.items() for k, t in inputs.items()}
    rest = {name: getattr(batch, name) for name in ("keys", "replaced")}
    return tensors | rest | {name: getattr(batch, name).tolist() for name in ("labels", "sample_ids", "positions")}


def run(path: Path, first: int, stop: int, world_size: int = 1, **changes: Any) -> list[list[dict[str, Any]]]:
    """Contents of the batches: one list per rank."""
    ranks = range(world_size)
    return [[content(b) for b in stream(path, r, world_size, **changes).batches(first, stop)] for r in ranks]


def joined(ranks: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The batches of several ranks put together, step by step."""
    steps = []
    for first, *others in zip(*ranks, strict=True):
        for other in others:
            first = {name: first[name] + other[name] for name in first}
        steps.append(first)
    return steps


def test_a_batch_holds_what_the_shards_hold(dataset: Path) -> None:
    batch = next(stream(dataset).batches(0, 1))
    ids = batch.sample_ids
    assert len(batch) == 8
    assert batch.positions.tolist() == list(range(8))
    assert batch.keys == tuple(f"s{i:04d}" for i in ids.tolist())
    assert batch.labels is not None
    assert torch.equal(batch.labels, ids % CLASSES)
    assert torch.equal(batch.inputs["values"]["values"], ids[:, None].expand(-1, 3).float())
    pictures = batch.inputs["picture"]["pixel_values"]
    assert pictures.shape == (8, 1, 4, 6)
    assert torch.allclose(pictures[:, 0, 0, 0], (ids / 255 - 0.5) / 0.5)
    assert batch.inputs["caption"]["input_ids"].shape == (8, 6)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_every_sample_comes_once_per_epoch(dataset: Path, world_size: int) -> None:
    steps = joined(run(dataset, 0, TOTAL, world_size))  # 21 batches of 8 are 8 epochs
    ids = np.array([i for step in steps for i in step["sample_ids"]]).reshape(8, TOTAL)
    assert all(sorted(epoch) == list(range(TOTAL)) for epoch in ids.tolist())
    assert len({tuple(epoch) for epoch in ids.tolist()}) == 8


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.processes)])
@pytest.mark.parametrize("world_size", [1, 2])
def test_ranks_and_workers_do_not_change_the_stream(damaged: Path, world_size: int, workers: int) -> None:
    steps = joined(run(damaged, 0, 6, world_size, workers=workers))
    assert steps == run(damaged, 0, 6)[0]


@pytest.mark.processes
def test_resuming_at_any_step_gives_the_same_tail(damaged: Path) -> None:
    whole = run(damaged, 0, 6)[0]
    for first in range(6):
        assert run(damaged, first, 6)[0] == whole[first:]
    assert joined(run(damaged, 3, 6, world_size=4, workers=1)) == whole[3:]


def test_the_global_batch_may_exceed_the_data(dataset: Path) -> None:
    batch = next(stream(dataset, global_batch=50).batches(0, 1))
    assert set(Counter(batch.keys).values()) == {2, 3}


def test_seeds_differ(dataset: Path) -> None:
    assert run(dataset, 0, 3, seed=1) != run(dataset, 0, 3, seed=2)


@pytest.mark.processes
def test_loading_leaves_the_global_generator_alone(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_rng_state()
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    run(dataset, 0, 2, workers=1)
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"  # fast tokenizers would warn at each fork
    assert torch.equal(torch.get_rng_state(), before)


def test_loader_processes_may_start_afresh(dataset: Path) -> None:
    """Where processes are spawned instead of forked, what they need arrives pickled."""
    there = stream(dataset)
    expected = next(there.batches(3, 4))
    batcher, plan = pickle.loads(pickle.dumps((there._batcher, there.plan)))
    assert content(batcher.finished(batcher.batch(*plan.slice(3, 0, 1)))) == content(expected)


def test_unlabeled_data(dataset: Path) -> None:
    assert next(stream(dataset, classes=None).batches(0, 1)).labels is None


@pytest.mark.processes
def test_bad_samples_are_replaced_and_logged(damaged: Path, tmp_path: Path) -> None:
    log = tmp_path / "quarantine.jsonl"
    batches = list(stream(damaged, log=log, workers=1, max_bad_fraction=0.2).batches(0, TOTAL))
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    bad_keys = {f"s{number:04d}" for number in BAD}
    assert Counter(e["key"] for e in entries) == dict.fromkeys(bad_keys, 8)
    errors = {e["key"]: e["error"] for e in entries}
    assert errors["s0002"].startswith("picture.png: ")
    assert errors["s0009"] == "values.npy: has shape [2], but vectors of shape [3] are expected"
    assert errors["s0017"] == "label.cls: class 99 is not below data.classes=7"
    assert {e["shard"] for e in entries} == {f"{damaged}/train/shard-{n:06d}.tar" for n in (0, 2, 4)}
    where = {
        int(p): (key, i) for b in batches for p, key, i in zip(b.positions, b.keys, b.sample_ids.tolist(), strict=True)
    }
    for entry in entries:
        assert where[entry["position"]][0] == entry["substitute"] not in bad_keys
    assert all(key == f"s{i:04d}" for key, i in where.values())
    assert bad_keys.isdisjoint(key for key, _ in where.values())


def test_too_many_bad_samples_end_the_run(damaged: Path, tmp_path: Path) -> None:
    log = tmp_path / "quarantine.jsonl"
    batches = stream(damaged, log=log).batches(0, 1000)
    with pytest.raises(BadDataError) as caught:
        for _ in batches:
            pass
    count = len(log.read_text().splitlines())
    assert 10 < count <= 10 + len(BAD), "1 % of the first thousand are 10, and no batch of 8 has more than these"
    assert str(caught.value).startswith(f"{count} of ")
    assert "data.max_bad_fraction=0.01" in str(caught.value)
    assert str(log) in str(caught.value)


def test_a_modality_that_no_sample_has_is_named_with_what_is_there(tmp_path: Path) -> None:
    write_split(tmp_path / "train", (3,), lambda _, s: {k: v for k, v in s.items() if k != "caption.txt"})
    with pytest.raises(ShardError, match=r"no member .* holds 'caption'; they have .*picture\.png.*caption\.member"):
        stream(tmp_path)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.processes)])
def test_a_modality_that_cannot_be_read_ends_the_run_at_once(tmp_path: Path, workers: int) -> None:
    write_split(tmp_path / "train", (3,), lambda _, s: s | {"caption.txt": b" "})
    with pytest.raises(BadDataError, match=r"^sample 's000\d' in .*the text is empty.*15 others"):
        next(stream(tmp_path, workers=workers).batches(0, 1))


def test_two_members_of_one_modality_are_ambiguous(tmp_path: Path) -> None:
    write_split(tmp_path / "train", (3,), lambda _, s: s | {"picture.jpg": b"x"})
    with pytest.raises(BadDataError, match=r"it has picture\.jpg and picture\.png for 'picture': exactly one"):
        next(stream(tmp_path).batches(0, 1))


def test_a_pickle_in_a_shard_is_not_opened(tmp_path: Path) -> None:
    class Canary:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "canary"),)

    def infect(number: int, sample: Sample) -> Sample:
        rest = {name: value for name, value in sample.items() if name != "values.npy"}
        return rest | ({"values.pkl": pickle.dumps(Canary())} if number % 2 else {"values.npy": npy([[Canary()]])})

    write_split(tmp_path / "train", (4,), infect)
    with pytest.raises(BadDataError, match=r"no decoder for \.pkl|not numeric"):
        next(stream(tmp_path).batches(0, 1))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.processes)])
def test_a_missing_shard_is_named_without_a_traceback(tmp_path: Path, workers: int) -> None:
    write_split(tmp_path / "train", (3,))
    (tmp_path / "train" / "shard-000000.tar").unlink()
    with pytest.raises(ShardError, match=rf"^{tmp_path}/train/shard-000000\.tar cannot be opened .*`make-small`$"):
        next(stream(tmp_path, workers=workers).batches(0, 1))


def test_an_empty_or_missing_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"index\.json is missing"):
        stream(tmp_path)
    write_split(tmp_path / "train", (0,))
    with pytest.raises(ShardError, match="has no samples: run `make-small`"):
        stream(tmp_path)


@pytest.mark.processes
def test_workers_ignore_the_warning_before_the_end(dataset: Path) -> None:
    """As Slurm sends it, to every process of the step; the training process has a handler, as a fork inherits it."""
    caught: list[int] = []
    previous = signal.signal(signal.SIGUSR2, lambda number, _: caught.append(os.getpid()))
    try:
        batches = stream(dataset, workers=2).batches(0, 30)
        first = content(next(batches))
        children = [int(p) for p in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
        for process in children:
            os.kill(process, signal.SIGUSR2)
        rest = [content(batch) for batch in batches]
    finally:
        signal.signal(signal.SIGUSR2, previous)
    assert len(children) >= 2
    assert [first, *rest] == run(dataset, 0, 30)[0]
    assert caught == []


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.processes)])
def test_a_split_is_dealt_in_order(dataset: Path, world_size: int, workers: int) -> None:
    ranks = [list(stream(dataset, r, world_size, workers=workers).split_batches(4)) for r in range(world_size)]
    assert {len(batch) for batches in ranks for batch in batches} == {4}
    gathered = [p for step in zip(*ranks, strict=True) for batch in step for p in batch.positions.tolist()]
    assert gathered[:TOTAL] == list(range(TOTAL))
    assert set(gathered[TOTAL:]) <= {TOTAL - 1}
    assert len(gathered) - TOTAL < 4 * world_size


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.processes)])
def test_listed_samples_come_in_the_order_of_the_list(damaged: Path, workers: int) -> None:
    """Those that cannot be read are left out, and named."""
    listed = [np.array([20, 3]), np.array([9]), np.array([0, 2, 1])]
    batches = list(stream(damaged, max_bad_fraction=1.0, workers=workers).listed_batches(listed))
    assert [batch.positions.tolist() for batch in batches] == [[20, 3], [], [0, 1]]
    assert [[(e.position, e.key, e.substitute) for e in batch.replaced] for batch in batches] == [
        [],
        [(9, "s0009", "")],
        [(2, "s0002", "")],
    ]
    assert [batch.keys for batch in batches] == [("s0020", "s0003"), (), ("s0000", "s0001")]
    assert batches[1].inputs == {} and batches[2].inputs["values"]["values"][:, 0].tolist() == [0, 1]
    with pytest.raises(BadDataError, match=r"1 of 2 .*data\.max_bad_fraction=0\.0 .*'s0002'"):
        next(stream(damaged, max_bad_fraction=0.0).listed_batches([np.array([2, 1])]))


def test_a_replaced_sample_of_a_split_repeats_another(damaged: Path) -> None:
    positions = [p for b in stream(damaged).split_batches(4) for p in b.positions.tolist()]
    assert set(positions) == set(range(TOTAL)) - set(BAD)
    assert [p for n, p in enumerate(positions[:TOTAL]) if n not in BAD] == [n for n in range(TOTAL) if n not in BAD]


@pytest.fixture
def remote(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The data set in memory://, with a cache of its own."""
    monkeypatch.setenv("MMPRETRAIN_CACHE", str(tmp_path / "cache"))
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(dataset), "/bucket", recursive=True)
    yield "memory://bucket"
    filesystem.rm("/bucket", recursive=True)


def shard_sizes(folder: Path) -> list[int]:
    """Bytes of each shard and its columns."""
    index = load_index(folder)
    return [sum(content.bytes for _, content in index.files(shard)) for shard in index.shards]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.processes)])
def test_a_remote_stream_equals_the_local_one(dataset: Path, remote: str, tmp_path: Path, workers: int) -> None:
    bound = sum(shard_sizes(dataset / "train")) / 1e9
    assert [content(b) for b in stream(remote, workers=workers, cache_gb=bound).batches(0, 9)] == run(dataset, 0, 9)[0]
    cached = list((tmp_path / "cache" / "shards").iterdir())
    assert sum(path.stat().st_size for path in cached) <= bound * 1e9


def test_a_remote_stream_in_a_small_cache(dataset: Path, remote: str, tmp_path: Path) -> None:
    bound = sum(sorted(shard_sizes(dataset / "train"))[-3:]) / 1e9
    with pytest.raises(
        ShardError, match=r"data\.cache_gb is .* 3 windows of 2 shards .* raise it or lower data\.window"
    ):
        stream(remote, cache_gb=bound)
    assert [content(b) for b in stream(remote, cache_gb=bound, window=1).batches(0, 9)] == run(dataset, 0, 9, window=1)[
        0
    ]
    assert sum(path.stat().st_size for path in (tmp_path / "cache" / "shards").iterdir()) <= bound * 1e9


def test_the_next_shards_are_fetched_meanwhile(remote: str, tmp_path: Path) -> None:
    ahead = stream(remote, window=1, global_batch=1)
    next(ahead.batches(0, 100))
    wanted = {ahead.index.shards[number].sha256 for number in ahead.plan.shards_ahead(1)}
    deadline = time.monotonic() + 20
    while not wanted <= set(os.listdir(tmp_path / "cache" / "shards")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(wanted) == 2
    assert wanted <= set(os.listdir(tmp_path / "cache" / "shards"))


def test_a_command_as_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"data\.path is 'pipe:touch .* is not read"):
        stream(f"pipe:touch {tmp_path}/canary")
    assert not (tmp_path / "canary").exists()
