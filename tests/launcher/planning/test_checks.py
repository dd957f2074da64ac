"""Batch arithmetic and data checks before anything starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import webdataset

from launcher.planning.checks import Batches, batches, check_batches, check_data
from launcher.planning.resources import Cluster, Purpose, Resources
from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config
from mmpretrain.data.index import build_index


def local(ranks: int) -> Resources:
    """That many CPU ranks here."""
    return Resources(Cluster.local, 1, ranks, 0)


def rosmap(folder: Path, *tokens: str) -> Config:
    """A config for vectors in ``folder``."""
    return compose(["method=m3col", "data=rosmap", f"data.path={folder}", *tokens])


def write_split(folder: Path, samples: int, modalities: tuple[str, ...] = ("mrna", "methylation", "mirna")) -> None:
    """A split of random vectors with labels."""
    folder.mkdir(parents=True)
    with webdataset.TarWriter(str(folder / "shard-000000.tar")) as writer:
        for number in range(samples):
            vectors = {f"{name}.npy": np.zeros(200, np.float32) for name in modalities}
            writer.write({"__key__": f"person{number}", "label.cls": number % 2, **vectors})
    build_index(folder)


@pytest.mark.parametrize(
    ("batch", "ranks", "sizes", "counts"),
    [(128, 3, "126 and 129", "2 and 4"), (244, 8, "240 and 248", "4 and 61"), (2, 4, "4", "2")],
)
def test_a_batch_that_does_not_divide_names_what_would(batch: int, ranks: int, sizes: str, counts: str) -> None:
    config = compose(["method=clip", f"data.global_batch={batch}"])
    (problem,) = check_batches(config, local(ranks))
    assert f"the nearest batch sizes that can are {sizes}, the nearest numbers of ranks {counts}" in problem


@pytest.mark.parametrize(("group", "right"), [(64, True), (32, True), (48, False), (128, False)])
def test_mixing_groups_divide_the_local_batch(group: int, right: bool) -> None:
    config = compose(["method=m3col", f"method.mix_group={group}"])
    problems = check_batches(config, local(2))
    assert (problems == []) is right
    if not right:
        assert f"method.mix_group={group} does not divide the local batch of 64" in problems[0]


def test_kept_out_data_that_the_run_learns_from_are_refused(tmp_path: Path) -> None:
    write_split(tmp_path / "train", 12)
    write_split(tmp_path / "test", 4)
    general = ["evaluation.final=[retrieval]", "finetune.before=true", f"finetune.general.path={tmp_path}"]
    assert check_data(rosmap(tmp_path, *general), Purpose.run).problems == ()
    (problem,) = check_data(rosmap(tmp_path, *general, "finetune.general.split=train"), Purpose.run).problems
    assert "finetune.general: 1 of the 1 shards in" in problem and "are shards that the run learns from" in problem


def test_arithmetic_of_a_built_dataset(tmp_path: Path) -> None:
    write_split(tmp_path / "train", 12)
    config = rosmap(tmp_path, "data.global_batch=8", "train.samples=30")
    found = batches(config, local(2))
    assert found == Batches(global_batch=8, local_batch=4, steps=4, samples=32, dataset_samples=12)
    assert found.epochs == pytest.approx(32 / 12)


def test_data_that_is_not_built_is_a_note_only_for_a_dry_run(tmp_path: Path) -> None:
    config = compose(["method=clip", "data=digits", f"data.path={tmp_path / 'digits'}"])
    dry, real = check_data(config, Purpose.show), check_data(config, Purpose.run)
    assert not dry.problems and "run `mmpretrain shards build digits`" in dry.notes[0]
    assert not real.notes and "run `mmpretrain shards build digits`" in real.problems[0]


def test_every_problem_of_both_splits(tmp_path: Path) -> None:
    write_split(tmp_path / "train", 4, ("mrna", "mirna"))
    write_split(tmp_path / "test", 4)
    shard = tmp_path / "test" / "shard-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    problems = " ".join(check_data(rosmap(tmp_path), Purpose.show).problems)
    assert "'methylation'" in problems and str(shard) in problems
    shard.unlink()
    assert f"{shard} is missing" in " ".join(check_data(rosmap(tmp_path), Purpose.run).problems)
