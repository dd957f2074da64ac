"""Pseudo pairs: the dense formula, the same for any number of ranks, and no mixing up of corpora or spaces."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from mmpretrain.data.column_shards import Table
from mmpretrain.data.index import ShardError, load_index
from mmpretrain.data.info import DatasetInfo, load_info
from mmpretrain.data.writing import RawSample, npy, write_split
from mmpretrain.distributed.world import World
from mmpretrain.embedding.jobs import PairJob
from mmpretrain.embedding.output import Output, SplitOrigin
from mmpretrain.embedding.pairing import _place, align, pair_share
from mmpretrain.embedding.perplexity import read_perplexity, read_top1_counts
from mmpretrain.embedding.vectors import Vectors
from tests.data.tars import keys_by_shard
from tests.embedding.files import contents
from tests.rank_pool import Ranks

TEXTS, WIDTHS = 17, (6, 9)
MEMORIES = (23, 11)
COLUMNS = ("first_shared", "first_partner", "second_shared", "second_partner")


def unit(seed: int, count: int, width: int) -> np.ndarray:
    """Rows of unit norm around three directions, float32."""
    draw = np.random.default_rng([seed, width])
    rows = np.random.default_rng(width).normal(size=(3, width))[np.arange(count) % 3] + draw.normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write(
    folder: Path, rows: np.ndarray, modality: str, keys: list[str], release: str = "", per_shard: int = 5
) -> Path:
    """Embedding shards as `mmpretrain embed` leaves them."""
    samples: list[RawSample] = [
        {"__key__": key, f"{modality}.npy": npy(row)} for key, row in zip(keys, rows, strict=True)
    ]
    write_split(folder / "train", samples, per_shard)
    info = DatasetInfo(
        "texts",
        "Texts",
        "made up",
        "MIT",
        {modality: {"kind": "vector", "size": [rows.shape[1]]}},
        provenance={"release": release, "weights_sha256": release},
    )
    (folder / "dataset.json").write_text(info.to_json())
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corpora and memories in two spaces of different widths; memories in five shards and in one."""
    folder = tmp_path_factory.mktemp("world")
    keys = [f"t{number:03d}" for number in range(TEXTS)]
    for space, width, size in zip(("1", "2"), WIDTHS, MEMORIES, strict=True):
        write(folder / f"texts-{space}", unit(1, TEXTS, width), "caption", keys, release=space)
        items = [f"m{number:03d}" for number in range(size)]
        write(
            folder / f"memory-{space}", unit(2, size, width), "item", items, space, per_shard=5 if space == "1" else 50
        )
    return folder


def job(world: Path, out: Path, **changes: Any) -> PairJob:
    """Pairs from the world, four texts per shard."""
    known: dict[str, Any] = {
        "first": str(world / "texts-1"),
        "second": str(world / "texts-2"),
        "shared": "caption",
        "first_memory": str(world / "memory-1"),
        "second_memory": f"{world / 'memory-2'}:item",
        "samples_per_shard": 4,
        "temperature": 0.05,
    }
    return PairJob(out=str(out), **known | changes)


def pairs(out: Path) -> dict[str, np.ndarray]:
    """Name -> rows, in the order of the keys."""
    return {name: Vectors(str(out), "train", name).read(np.arange(TEXTS)).numpy() for name in COLUMNS}


def run(work: PairJob) -> None:
    """The work of however many ranks there are."""
    pair_share(work, World.current())


def test_partners_are_those_of_the_dense_formula(world: Path, tmp_path: Path) -> None:
    run(job(world, tmp_path / "out"))
    found = pairs(tmp_path / "out")
    for side, width, size in zip(("first", "second"), WIDTHS, MEMORIES, strict=True):
        texts, items = (unit(seed, n, width).astype(np.float64) for seed, n in ((1, TEXTS), (2, size)))
        weights = np.exp(texts @ items.T / 0.05)
        mean = (weights / weights.sum(axis=1, keepdims=True)) @ items
        expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        np.testing.assert_allclose(found[f"{side}_shared"], texts, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found[f"{side}_partner"], expected, rtol=0, atol=1e-6)


def test_names_of_memories_and_of_folders_with_colons(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    assert _place(f"{tmp_path}/a:b", "train") == (f"{tmp_path}/a:b", "train", None)
    assert _place(f"{tmp_path}/a:b:left-ear", "train") == (f"{tmp_path}/a:b", "train", "left-ear")
    assert _place(f"{tmp_path}/nowhere", "train") == (f"{tmp_path}/nowhere", "train", None)


def test_the_dataset_says_what_it_is(world: Path, tmp_path: Path) -> None:
    run(job(world, tmp_path / "out"))
    info, index = load_info(tmp_path / "out"), load_index(tmp_path / "out" / "train")
    assert {name: entry["size"] for name, entry in info.modalities.items()} == {
        name: [WIDTHS[0] if name.startswith("first") else WIDTHS[1]] for name in COLUMNS
    }
    assert info.provenance["temperature"] == 0.05 and info.provenance["second_memory"]["modality"] == "item"
    assert [shard.samples for shard in index.shards] == [4, 4, 4, 4, 1]
    assert set(index.shards[0].extensions) == {f"{name}.f32" for name in COLUMNS}


def test_every_number_of_ranks_gives_the_same_pairs(world: Path, tmp_path: Path, ranks: Ranks) -> None:
    """Two ranks share the first memory's shards unevenly; the second memory has one shard, and one rank has none."""
    run(job(world, tmp_path / "1"))
    one = pairs(tmp_path / "1")
    for size in (2, 4):
        ranks(size, run, job(world, tmp_path / f"{size}"))
        for name, rows in pairs(tmp_path / f"{size}").items():
            np.testing.assert_allclose(rows, one[name], rtol=0, atol=1e-6)
        keys = keys_by_shard(load_index(tmp_path / f"{size}" / "train"))
        assert keys == keys_by_shard(load_index(tmp_path / "1" / "train"))
        alone, together = (read_perplexity(tmp_path / name / "train") for name in ("1", f"{size}"))
        assert alone is not None and together is not None
        assert together["first"] == pytest.approx(alone["first"], abs=2e-4)
        counts = [read_top1_counts(tmp_path / name / "train") for name in ("1", f"{size}")]
        assert counts[0] is not None and counts[1] == counts[0]


def cut(work: PairJob) -> None:
    """The work of all ranks, each of which ends in the middle of its second shard."""
    written: list[int] = []
    write = Output.write

    def once(self: Output, number: int, table: Table) -> None:
        if written:
            raise InterruptedError
        written.append(number)
        write(self, number, table)

    with mock.patch.object(Output, "write", once), pytest.raises(InterruptedError):
        run(work)


@pytest.mark.parametrize("size", [1, 4])
def test_an_interrupted_command_goes_on(world: Path, tmp_path: Path, ranks: Ranks, size: int) -> None:
    """Two ranks were cut; on another number of them it becomes what one leaves that was not."""
    run(job(world, tmp_path / "whole"))
    ranks(2, cut, job(world, tmp_path / "part"))
    train = tmp_path / "part" / "train"
    effective = [f".effective-{number:06d}.npy" for number in range(4)]
    shards = ["shard-000000.tar", "shard-000001.tar"]
    assert sorted(path.name for path in train.iterdir()) == [*effective, "columns", "origin.json", *shards]
    before = [(train / name).stat().st_mtime_ns for name in shards]
    ranks(size, run, job(world, tmp_path / "part"))
    assert [(train / name).stat().st_mtime_ns for name in shards] == before
    assert contents(tmp_path / "part").keys() == contents(tmp_path / "whole").keys()
    whole, part = pairs(tmp_path / "whole"), pairs(tmp_path / "part")
    for name in COLUMNS:
        np.testing.assert_allclose(part[name], whole[name], rtol=0, atol=1e-6)
    indexes = [load_index(tmp_path / name / "train") for name in ("whole", "part")]
    assert keys_by_shard(indexes[0]) == keys_by_shard(indexes[1])
    alone, together = (read_perplexity(tmp_path / name / "train") for name in ("whole", "part"))
    assert alone is not None and together is not None
    for side in ("first", "second"):
        assert together[side] == pytest.approx(alone[side], abs=2e-4)
    counts = [read_top1_counts(tmp_path / name / "train") for name in ("whole", "part")]
    assert counts[0] is not None and counts[1] == counts[0]


def test_shards_that_are_made_once_more_leave_nothing_behind(world: Path, tmp_path: Path) -> None:
    """The summary of the complete output stands, so that their numbers are not waited for."""
    run(job(world, tmp_path / "out"))
    before, train = contents(tmp_path / "out"), tmp_path / "out" / "train"
    for name in ("shard-000001.tar", "shard-000004.tar", "index.json"):
        (train / name).unlink()
    run(job(world, tmp_path / "out"))
    assert contents(tmp_path / "out") == before


def test_the_effective_number_of_memory_items_is_logged(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        run(job(world, tmp_path / "hot", temperature=1000.0))
    found = read_perplexity(tmp_path / "hot" / "train")
    assert found is not None
    assert found["first"] == pytest.approx({"memory": 23, "mean": 23, "median": 23, "p10": 23, "p90": 23}, abs=0.01)
    assert found["second"]["median"] == pytest.approx(11, abs=0.01)
    assert "first memory: of 23 items, a median of 23 carry a query" in caplog.text
    assert "of 23 items are the nearest of some query" in caplog.text
    run(job(world, tmp_path / "cold", temperature=1e-4))
    found = read_perplexity(tmp_path / "cold" / "train")
    assert found is not None and found["first"]["median"] == pytest.approx(1, abs=0.01)
    assert not list((tmp_path / "cold" / "train").glob(".effective*"))


def test_corpora_in_another_order_are_brought_together(world: Path, tmp_path: Path) -> None:
    keys = [f"t{number:03d}" for number in range(TEXTS)]
    turned = write(tmp_path / "turned", unit(1, TEXTS, WIDTHS[1])[::-1], "caption", keys[::-1], release="2")
    run(job(world, tmp_path / "plain"))
    run(job(world, tmp_path / "out", second=str(turned)))
    plain, found = pairs(tmp_path / "plain"), pairs(tmp_path / "out")
    assert all(np.array_equal(plain[name], found[name]) for name in COLUMNS)


@pytest.mark.parametrize("lacking", ["first", "second"])
def test_the_first_key_that_differs_is_named(world: Path, tmp_path: Path, lacking: str) -> None:
    keys = [f"t{number:03d}" for number in range(TEXTS) if number not in (5, 9)]
    space, width = ("1", WIDTHS[0]) if lacking == "first" else ("2", WIDTHS[1])
    rows = np.delete(unit(1, TEXTS, width), [5, 9], axis=0)
    less = write(tmp_path / "less", rows, "caption", keys, release=space)
    with pytest.raises(ShardError, match=r"texts-.* has the key 't005', and .*less/train \('caption'\) has not"):
        run(job(world, tmp_path / "out", **{lacking: str(less)}))
    assert not (tmp_path / "out").exists()


def made_of(folder: Path, to: Path, name: str | None, fingerprint: str | None) -> Path:
    """A copy of a corpus that says so of its source; None: it does not say."""
    shutil.copytree(folder, to)
    if name is not None:
        info = load_info(to)
        (to / "dataset.json").write_text(replace(info, provenance=info.provenance | {"data": name}).to_json())
    if fingerprint is not None:
        origin = SplitOrigin({"data": fingerprint}, TEXTS, 5)
        (to / "train" / "origin.json").write_text(json.dumps(asdict(origin)))
    return to


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (("coco", "a1"), ("clotho", "b2"), r"from coco \(a1\) and .*texts-2.* from clotho \(b2\)"),
        (("coco", "a1"), ("coco", "b2"), r"from coco \(a1\) and .* from coco \(b2\)"),
        ((None, "a1"), (None, "b2"), r"from data \(a1\) and .* from data \(b2\)"),
        (("coco", "a1"), ("clotho", None), r"from coco \(a1\) and .* from clotho:"),
    ],
)
def test_other_data_is_refused_unless_it_is_allowed(
    world: Path, tmp_path: Path, first: tuple[str | None, ...], second: tuple[str | None, ...], said: str
) -> None:
    """The keys are the same: they are numbers."""
    sides = {
        "first": str(made_of(world / "texts-1", tmp_path / "texts-1", *first)),
        "second": str(made_of(world / "texts-2", tmp_path / "texts-2", *second)),
    }
    with pytest.raises(ShardError, match=rf"texts-1.* was embedded {said}.*--allow-other-data"):
        run(job(world, tmp_path / "out", **sides))
    assert not (tmp_path / "out").exists()
    run(job(world, tmp_path / "out", **sides, allow_other_data=True))
    assert len(load_index(tmp_path / "out" / "train")) == TEXTS


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("coco", "a1"), ("renamed", "a1")),
        (("coco", "a1"), (None, None)),
        (("coco", None), ("coco", "b2")),
        ((None, "a1"), ("coco", None)),
    ],
)
def test_the_same_or_unknown_data_is_paired(
    world: Path, tmp_path: Path, first: tuple[str | None, ...], second: tuple[str | None, ...]
) -> None:
    one, two = (made_of(world / f"texts-{n}", tmp_path / n, *made) for n, made in (("1", first), ("2", second)))
    run(job(world, tmp_path / "out", first=str(one), second=str(two)))
    assert len(load_index(tmp_path / "out" / "train")) == TEXTS


def test_a_damaged_origin_is_named(world: Path, tmp_path: Path) -> None:
    folder = made_of(world / "texts-1", tmp_path / "texts-1", None, "a1")
    (folder / "train" / "origin.json").write_text("[]")
    with pytest.raises(ShardError, match=r"texts-1/train/origin\.json is damaged"):
        run(job(world, tmp_path / "out", first=str(folder)))


def test_shards_without_a_description_are_paired(world: Path, tmp_path: Path) -> None:
    """Embeddings may come from elsewhere, as tars and their index alone: nothing is known of what made them."""
    names = ("texts-1", "texts-2", "memory-1", "memory-2")
    for name in names:
        shutil.copytree(world / name, tmp_path / name, ignore=shutil.ignore_patterns("dataset.json"))
    bare = dict(zip(("first", "second", "first_memory", "second_memory"), names, strict=True))
    run(job(world, tmp_path / "out", **{key: str(tmp_path / name) for key, name in bare.items()}))
    run(job(world, tmp_path / "plain"))
    plain, found = pairs(tmp_path / "plain"), pairs(tmp_path / "out")
    assert all(np.array_equal(plain[name], found[name]) for name in COLUMNS)
    info = load_info(tmp_path / "out")
    assert info.name == "corpus-pairs" and info.license == "not recorded"
    assert {name: entry["size"] for name, entry in info.modalities.items()} == {
        name: [WIDTHS[0] if name.startswith("first") else WIDTHS[1]] for name in COLUMNS
    }
    assert info.provenance["first"] == {} and info.provenance["first_memory"] == {"modality": "item"}


def test_spaces_that_are_mixed_up_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"6 features and .* 9: --first and --first-memory must be of one space"):
        run(job(world, tmp_path / "out", first_memory=str(world / "memory-2")))
    other = write(tmp_path / "other", unit(2, 4, WIDTHS[0]), "item", list("abcd"), release="3")
    with pytest.raises(ShardError, match=r"embedded by 1 and .* by 3, whose weights differ"):
        run(job(world, tmp_path / "out", first_memory=str(other)))


def test_a_modality_that_is_not_there_or_not_clear(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="has no vectors 'text': it holds caption"):
        run(job(world, tmp_path / "out", shared="text"))
    row = npy(np.ones(6))
    samples: list[RawSample] = [{"__key__": "a", "x.npy": row, "y.npy": row}]
    write_split(tmp_path / "two" / "train", samples)
    with pytest.raises(ShardError, match="holds x, y: say which, FOLDER:MODALITY"):
        run(job(world, tmp_path / "out", first_memory=str(tmp_path / "two")))


def test_vectors_of_another_width_in_one_folder_are_refused(tmp_path: Path) -> None:
    samples: list[RawSample] = [{"__key__": f"{n}", "x.npy": npy(np.ones(n))} for n in (3, 4)]
    write_split(tmp_path / "train", samples)
    with pytest.raises(ShardError, match=r"4.x.npy has shape \[4\], not \[3\]"):
        Vectors(str(tmp_path), "train").read([0, 1])


def test_memories_may_lack_what_they_do_not_have(tmp_path: Path) -> None:
    """Samples without the modality are no items."""
    row = npy(np.ones(3))
    samples: list[RawSample] = [{"__key__": f"{n}", **({"x.npy": row} if n % 2 else {"y.npy": row})} for n in range(7)]
    write_split(tmp_path / "train", samples, per_shard=2)
    found = Vectors(str(tmp_path), "train", "x")
    assert len(found) == 3 and found.keys() == ["1", "3", "5"]
    shares = [found.share(rank, 2).tolist() for rank in range(2)]
    assert shares == [[1, 5], [3]]
    assert align(found, found).tolist() == [1, 3, 5]


def test_json_of_the_effective_numbers(world: Path, tmp_path: Path) -> None:
    run(job(world, tmp_path / "out"))
    text = json.loads((tmp_path / "out" / "train" / "perplexity.json").read_text())
    assert set(text) == {"first", "second"} and set(text["first"]) == {"memory", "mean", "median", "p10", "p90"}
