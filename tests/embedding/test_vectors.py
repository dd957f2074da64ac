"""Vectors in columns and in files of their own: the same rows, resident or swept where they lie."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from mmpretrain.data.column_shards import Column, Table
from mmpretrain.data.index import ShardError
from mmpretrain.embedding import pairing
from mmpretrain.embedding.jobs import ShardForm
from mmpretrain.embedding.output import Output, SplitOrigin
from mmpretrain.embedding.soft_retrieval import soft_retrieve
from mmpretrain.embedding.vectors import MappedRows, Vectors
from tests.embedding.test_output import INFO
from tests.embedding.test_pairing import COLUMNS, job, pairs, run, unit, world

__all__ = ["world"]  # a fixture

COUNT, WIDTH = 23, 6


def stored(folder: Path, form: ShardForm, rows: np.ndarray, suffix: str = "f32", per_shard: int = 5) -> Vectors:
    """Rows as `mmpretrain embed` leaves them."""
    output = Output(folder, "train", INFO, SplitOrigin({}, len(rows), per_shard, form))
    for number in output.missing():
        part = output.rows(number)
        column = Column(rows[part.start : part.stop].astype("<f2" if suffix == "f16" else "<f4"))
        output.write(number, Table([f"k{row:03d}" for row in part], {f"a.{suffix}": column}))
    output.finish(changed=True)
    return Vectors(str(folder), "train")


@pytest.mark.parametrize("form", list(ShardForm))
def test_both_forms_give_the_rows_and_keys_in_any_order(form: ShardForm, tmp_path: Path) -> None:
    rows = unit(0, COUNT, WIDTH)
    vectors = stored(tmp_path, form, rows)
    chosen = np.array([22, 3, 3, 11, 0])
    assert np.array_equal(vectors.read(chosen).numpy(), rows[chosen])
    assert vectors.keys(chosen) == ["k022", "k003", "k003", "k011", "k000"] and len(vectors.keys()) == COUNT
    assert (vectors.stored is None) == (form is ShardForm.samples) and vectors.width == WIDTH


def test_a_memory_that_stays_in_its_files_gives_what_a_resident_one_gives(tmp_path: Path) -> None:
    vectors = stored(tmp_path, ShardForm.columns, unit(0, COUNT, WIDTH), "f16")
    queries = torch.from_numpy(unit(1, 9, WIDTH))
    swept = soft_retrieve(queries, MappedRows(vectors, vectors.ordinals), temperature=0.05, tile=4)
    resident = soft_retrieve(queries, vectors.read(vectors.ordinals), temperature=0.05, tile=4)
    for name in ("values", "effective", "length", "nearest"):
        assert torch.equal(getattr(swept, name), getattr(resident, name))


def test_a_row_that_is_not_finite_is_named(tmp_path: Path) -> None:
    rows = unit(0, COUNT, WIDTH)
    rows[13, 2] = np.inf
    vectors = stored(tmp_path, ShardForm.columns, rows)
    with pytest.raises(ShardError, match=r"shard-000002.tar: k013: a.f32: .*not finite"):
        vectors.read(np.arange(COUNT))


def test_pairs_are_the_same_in_both_forms_and_of_memories_in_files(world: Path, tmp_path: Path) -> None:
    run(job(world, tmp_path / "samples", form=ShardForm.samples))
    once = pairs(tmp_path / "samples")
    for name in ("1", "2"):
        rows = Vectors(str(world / f"memory-{name}"), "train")
        values = rows.read(rows.ordinals).numpy()
        output = Output(tmp_path / f"m{name}", "train", INFO, SplitOrigin({}, len(values), 4, ShardForm.columns))
        for number in output.missing():
            part = output.rows(number)
            column = Column(values[part.start : part.stop])
            output.write(number, Table([f"m{row}" for row in part], {"item.f32": column}))
        output.finish(changed=True)
    changes = {"first_memory": str(tmp_path / "m1"), "second_memory": str(tmp_path / "m2")}
    with mock.patch.object(pairing, "RESIDENT_BYTES", 0):
        run(job(world, tmp_path / "columns", **changes))
    again = pairs(tmp_path / "columns")
    for name in COLUMNS:
        np.testing.assert_allclose(again[name], once[name], rtol=0, atol=1e-6)
