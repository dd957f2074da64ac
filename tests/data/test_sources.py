"""A stream of several sources: where things lie in each, what is recorded, and that killing it changes nothing."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpretrain.config.data import DataConfig, Mixing, ModalityConfig, SourceConfig
from mmpretrain.config.kind import Kind
from mmpretrain.data.index import ShardError
from mmpretrain.data.info import DatasetInfo, dataset_info
from mmpretrain.data.mixture import Mixture
from mmpretrain.data.quarantine import BadDataError, Quarantine
from mmpretrain.data.source_checks import check_data_split, source_uses, use_notes
from mmpretrain.data.sources import mixed, open_data
from mmpretrain.data.stream import Stream
from tests.data.mixtures import SIZES, mixed_config, mixed_stream, renamed, write_mixture
from tests.data.small_dataset import Sample, write_split

STEPS = 9  # of 12 samples: three in each stage


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mixture."""
    return write_mixture(tmp_path_factory.mktemp("mixture"))


def keys(root: Path | str, first: int = 0, stop: int = STEPS, world_size: int = 1, **changes: Any) -> list[list[str]]:
    """What each step holds, over all ranks."""
    streams = [mixed_stream(root, rank, world_size, **changes) for rank in range(world_size)]
    steps = zip(*(stream.batches(first, stop) for stream in streams), strict=True)
    return [[streams[0].key(o) for batch in step for o in batch.sample_ids.tolist()] for step in steps]


def test_samples_come_in_exact_shares_and_are_known_by_their_source(root: Path) -> None:
    steps = keys(root)
    of = [Counter(key.partition("/")[0] for key in step) for step in steps]
    assert [sum((of[n] for n in range(at, at + 3)), Counter())["web"] for at in (0, 3, 6)] in ([22, 12, 0], [21, 12, 0])
    assert sum(of, Counter()) == {name: n for name, (n, _) in mixed_stream(root).plan.by_source(12 * STEPS).items()}
    assert {key for step in steps for key in step if key.startswith("web/")} <= {f"web/s{n:04d}" for n in range(14)}


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_killed_at_any_step_the_rest_is_the_same(root: Path, world_size: int) -> None:
    whole = keys(root)
    for first in range(STEPS):
        assert keys(root, first, STEPS, world_size) == whole[first:]


@pytest.mark.processes
@pytest.mark.parametrize(("world_size", "workers"), [(1, 2), (3, 1)])
def test_loader_processes_change_nothing(root: Path, world_size: int, workers: int) -> None:
    whole = keys(root)
    for first in (0, 4):
        assert keys(root, first, STEPS, world_size, workers=workers) == whole[first:]


@pytest.mark.slow
@pytest.mark.processes
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    weights=st.lists(st.integers(0, 20).map(lambda n: n / 10), min_size=6, max_size=6),
    border=st.integers(1, 100),
    seed=st.integers(0, 99),
    mixing=st.sampled_from(Mixing),
    world_size=st.sampled_from([1, 2, 3, 4]),
    workers=st.sampled_from([0, 0, 1, 2]),
)
def test_killed_at_any_step_of_any_mixture(
    root: Path, weights: list[float], border: int, seed: int, mixing: Mixing, world_size: int, workers: int
) -> None:
    data = mixed_config(root, window=1 + seed % 3, mixing=mixing, temperature=2.5, workers=workers)
    for number, source in enumerate(data.sources.values()):
        source.weight = weights[number] + (number == 0) * 0.1
        source.weight_from = {str(border): weights[3 + number] + (number == 1) * 0.1}
    whole = keys(root, data=replace(data, workers=0))
    for first in range(STEPS):
        assert keys(root, first, STEPS, world_size, data=data) == whole[first:]


@pytest.fixture
def remote(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The mixture in memory://, with a cache of its own."""
    monkeypatch.setenv("MMPRETRAIN_CACHE", str(tmp_path / "cache"))
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(root), "/mixture", recursive=True)
    yield "memory://mixture"
    filesystem.rm("/mixture", recursive=True)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.processes)])
def test_remote_sources_are_fetched_ahead_and_change_nothing(root: Path, remote: str, workers: int) -> None:
    files = [*root.glob("*/train/*.tar"), *root.glob("*/train/columns/*")]
    bound = sum(path.stat().st_size for path in files) / 1e9 + 1e-9
    assert keys(remote, 2, workers=workers, cache_gb=bound) == keys(root, 2)
    with pytest.raises(ShardError, match=r"3 windows of 1 shards of .*source web.* and .*source few.* may need"):
        mixed_stream(remote, cache_gb=bound / 4, window=1)
    assert len(open_data(mixed_config(remote), "test").index) == 10, "books has no test split, which reading shows"


def test_evaluations_read_the_held_out_samples_of_all_sources(root: Path) -> None:
    stream = Stream(mixed_config(root), "test", 5, 0, 1, dict)
    found = [p for batch in stream.split_batches(4) for p in batch.positions.tolist()]
    assert sorted(set(found)) == list(range(10))
    with pytest.raises(ShardError, match=r"books/probe/index\.json is missing"):
        open_data(mixed_config(root), "probe")


def test_a_bad_sample_is_replaced_within_its_source(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def damage(number: int, sample: Sample) -> Sample:
        return sample | ({"values.npy": b"broken"} if number < 5 else {})

    write_mixture(tmp_path, books=damage)
    log = tmp_path / "quarantine.jsonl"
    with caplog.at_level(logging.WARNING):
        list(mixed_stream(tmp_path, max_bad_fraction=1.0, log=log).batches(0, STEPS))
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert {(entry["source"], entry["substitute"]) for entry in entries} == {("books", f"s000{n}") for n in (5, 6, 7)}
    assert "most of source books cannot be used: " in caplog.text
    with pytest.raises(BadDataError, match=r"data\.max_bad_fraction=0\.01 .*source books is the worst, \d+ of \d+; no"):
        list(mixed_stream(tmp_path).batches(0, STEPS))


def test_a_source_without_one_usable_sample_is_named(tmp_path: Path) -> None:
    write_mixture(tmp_path, books=lambda _, sample: sample | {"values.npy": b"broken"})
    with pytest.raises(BadDataError, match="neither can 15 others of source books drawn in its place"):
        list(mixed_stream(tmp_path, max_bad_fraction=1.0).batches(0, STEPS))


def test_the_worst_source_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    quarantine = Quarantine(None, 1.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(8):
            quarantine.record(6, [], {"a": 6})
    assert caplog.text == ""


def without(*names: str) -> Any:
    """Samples that lack these modalities."""
    return lambda _, sample: {k: v for k, v in sample.items() if k.partition(".")[0] not in names}


def optional(data: DataConfig, *names: str) -> DataConfig:
    """The section with these modalities optional."""
    changed = {n: replace(m, optional=n in names) for n, m in data.modalities.items()}
    return replace(data, modalities=changed)


def test_a_source_may_lack_an_optional_modality(tmp_path: Path) -> None:
    write_mixture(tmp_path, books=without("caption"))
    data = mixed_config(tmp_path)
    with pytest.raises(ShardError, match=r"data\.sources\.books: no member .* holds 'caption'; .*set data\.modalities"):
        mixed_stream(tmp_path, data=data)
    data = optional(data, "caption")
    stream = mixed_stream(tmp_path, data=data)
    for batch in stream.batches(0, STEPS):
        absent = [caption is None for caption in batch.inputs["caption"]]
        assert absent == [stream.key(o).startswith("books/") for o in batch.sample_ids.tolist()]
    checked = check_data_split(data, "train")
    assert checked.problems == () and checked.samples == 25
    assert checked.notes == ("source books has no caption: its samples go without",)
    assert check_data_split(data, "test").notes == ()


def test_what_no_source_holds_or_is_named_wrongly_is_a_problem(tmp_path: Path) -> None:
    write_mixture(tmp_path)
    data = optional(mixed_config(tmp_path), "caption", "music")
    data.modalities["music"] = ModalityConfig(Kind.vector, [3], optional=True)
    (problem,) = check_data_split(data, "train").problems
    assert problem.startswith("no source holds 'music': set data.modalities.music.member")
    data = optional(mixed_config(tmp_path), "caption")
    data.sources["few"].modalities["caption"].member = ["title.txt"]
    assert "data.sources.few.modalities.caption names no member of" in check_data_split(data, "train").problems[0]


def test_sizes_and_temperature_make_shares(root: Path) -> None:
    def shares(**changes: Any) -> list[float]:
        data = mixed_config(root, curriculum=False, **changes)
        for source in data.sources.values():
            source.weight = 1.0
        weights = [
            source.weight(0) for source in mixed(data, {n: p.index for n, p in open_data(data, "train").parts.items()})
        ]
        return [float(weight / sum(weights)) for weight in weights]

    sizes = np.array([sum(of) for _, of in sorted(SIZES.items())])
    assert shares() == pytest.approx([1 / 3] * 3)
    assert shares(mixing=Mixing.size) == pytest.approx(sizes / sizes.sum())
    flat = sizes ** (1 / 3.3)
    assert shares(mixing=Mixing.temperature, temperature=3.3) == pytest.approx(flat / flat.sum())


def test_the_plan_says_what_a_run_takes_of_each_source(root: Path) -> None:
    data = mixed_config(root, curriculum=False)
    uses = source_uses(data, open_data(data, "train"), 5, 1200)
    assert [(use.name, use.samples, use.shares, use.taken) for use in uses] == [
        ("books", 8, (0.3,), 360),
        ("few", 3, (0.1,), 120),
        ("web", 14, (0.6,), 720),
    ]
    assert use_notes(uses) == [
        "source web: the run takes 720 of its 14 samples, 51.4 epochs: a smaller weight repeats it less often"
    ]
    data.sources["web"].weight = 0.0
    notes = use_notes(source_uses(data, open_data(data, "train"), 5, 12))
    assert notes[0] == "source web: the run takes 0 of its 14 samples: its weight is too small, or 0"
    assert source_uses(replace(data, sources={}, path=f"{root}/web"), open_data(data, "train"), 5, 12) == ()


def test_what_sources_are_is_said_together(tmp_path: Path) -> None:
    info = DatasetInfo("one", "One", "here", "CC0", {"v": {"kind": "vector"}}, ["x", "y"])
    ranges = [{"minimum": [0.0, -1.0], "maximum": [1.0, 1.0]}, {"minimum": [-2.0, 0.0], "maximum": [0.5, 3.0]}]
    for name, title, of in zip("ab", ("One", "Two"), ranges, strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset.json").write_text(replace(info, title=title, statistics={"v": of}).to_json())
    sources = {name: SourceConfig(str(tmp_path / name)) for name in "ab"}
    together = dataset_info(DataConfig("ab", sources=sources))
    assert together is not None
    assert (together.title, together.license, together.classes) == ("One; Two", "CC0", ["x", "y"])
    assert together.statistics == {"v": {"minimum": [-2.0, -1.0], "maximum": [1.0, 3.0]}}
    assert dataset_info(DataConfig("ab", sources={"c": SourceConfig(str(tmp_path / "c"))})) is None


def test_the_order_in_which_a_config_names_its_sources_changes_nothing(root: Path) -> None:
    def ordinals(sources: dict[str, SourceConfig]) -> list[list[Any]]:
        stream = Stream(replace(data, sources=sources), "train", 5, 0, 1, dict)
        return [stream.plan.samples(0, 50).tolist(), [stream.key(n) for n in range(len(stream.index))]]

    data = mixed_config(root)
    backwards = dict(reversed(data.sources.items()))
    assert data == replace(data, sources=backwards)  # so a run may be resumed with it
    assert ordinals(data.sources) == ordinals(backwards)


def test_one_source_is_a_mixture_too(tmp_path: Path) -> None:
    write_split(tmp_path / "few" / "train", (5,), renamed)
    data = mixed_config(tmp_path)
    data.sources = {"few": data.sources["few"]}
    stream = mixed_stream(tmp_path, data=data)
    assert isinstance(stream.plan, Mixture)
    assert {stream.key(o) for b in stream.batches(0, 2) for o in b.sample_ids.tolist()} == {
        f"few/s000{n}" for n in range(5)
    }
