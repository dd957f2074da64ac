"""A folder of embedding shards: continued by the same command, refused to any other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmpretrain.data.column_shards import Column, Table
from mmpretrain.data.index import ShardError, build_index
from mmpretrain.data.index_earlier import earlier_fingerprint
from mmpretrain.data.info import DatasetInfo, load_info
from mmpretrain.embedding.jobs import ShardForm
from mmpretrain.embedding.output import Output, SplitOrigin, form_of, known_as
from tests.data.tars import keys_by_shard, sample_members, write_tar

INFO = DatasetInfo(
    "small", "Small", "made up", "MIT", {"a": {"kind": "vector", "size": [2]}}, provenance={"release": "one", "k": {}}
)
ORIGIN = SplitOrigin({"data": "abc"}, samples=7, samples_per_shard=3)


def samples(rows: range) -> Table:
    """A sample per row."""
    values = np.array([[row, row] for row in rows], np.float32)
    return Table([f"s{row}" for row in rows], {"a.f32": Column(values)})


def fill(output: Output) -> None:
    """Write every shard that is missing."""
    for number in output.missing():
        output.write(number, samples(output.rows(number)))


def test_shards_hold_fixed_ranges_and_the_index_comes_last(tmp_path: Path) -> None:
    output = Output(tmp_path, "train", INFO, ORIGIN)
    assert [output.rows(number) for number in output.missing()] == [range(3), range(3, 6), range(6, 7)]
    output.write(1, samples(output.rows(1)))
    assert output.missing() == [0, 2] and output.finish(changed=True) is None
    fill(output)
    index = output.finish(changed=True)
    assert index is not None and keys_by_shard(index) == [["s0", "s1", "s2"], ["s3", "s4", "s5"], ["s6"]]
    assert load_info(tmp_path).provenance == INFO.provenance


def test_complete_output_is_left_alone(tmp_path: Path) -> None:
    output = Output(tmp_path, "train", INFO, ORIGIN)
    fill(output)
    output.finish(changed=True)
    before = (tmp_path / "train" / "index.json").stat().st_mtime_ns
    again = Output(tmp_path, "train", INFO, ORIGIN)
    assert again.missing() == [] and again.finish(changed=False) is not None
    assert (tmp_path / "train" / "index.json").stat().st_mtime_ns == before


def test_a_shard_without_samples_counts(tmp_path: Path) -> None:
    """All of its samples may have been unreadable."""
    output = Output(tmp_path, "train", INFO, ORIGIN)
    output.write(0, Table([], {}))
    fill(output)
    index = output.finish(changed=True)
    assert index is not None and len(index) == 4


def test_what_an_earlier_version_began_is_finished(tmp_path: Path) -> None:
    """Its origin.json holds the fingerprint as that version computed it."""
    write_tar(tmp_path / "a.tar", sample_members(2))
    index = build_index(tmp_path)
    earlier, out = earlier_fingerprint(index.shards), tmp_path / "out"
    assert known_as(out, "train", {"data": index}) == {"data": index.fingerprint}
    Output(out, "train", INFO, replace(ORIGIN, sources={"data": earlier, "memory": "abc"}))
    sources = known_as(out, "train", {"data": index, "memory": index})
    assert sources == {"data": earlier, "memory": index.fingerprint}
    Output(out, "train", INFO, replace(ORIGIN, sources=sources | {"memory": "abc"}))
    with pytest.raises(ShardError, match=r"sources\.memory"):
        Output(out, "train", INFO, replace(ORIGIN, sources=sources))


def test_another_command_is_refused(tmp_path: Path) -> None:
    Output(tmp_path, "train", INFO, ORIGIN)
    with pytest.raises(ShardError, match=r'provenance.release is "one".* make it "two".*choose another --out'):
        Output(tmp_path, "train", replace(INFO, provenance={"release": "two", "k": {}}), ORIGIN)
    with pytest.raises(ShardError, match=r'origin.json says sources.data is "abc", .* "def"'):
        Output(tmp_path, "train", INFO, replace(ORIGIN, sources={"data": "def"}))
    with pytest.raises(ShardError, match=r"samples_per_shard is 3, .* 4"):
        Output(tmp_path, "train", INFO, replace(ORIGIN, samples_per_shard=4))
    Output(tmp_path, "test", INFO, replace(ORIGIN, sources={"data": "def"}))
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(ShardError, match="its content is not readable"):
        Output(tmp_path, "train", INFO, ORIGIN)


def test_what_was_begun_as_single_samples_is_finished_so(tmp_path: Path) -> None:
    """A folder of an earlier version, whose origin.json says nothing of a form."""
    assert form_of(tmp_path, "train", None) is ShardForm.columns
    output = Output(tmp_path, "train", INFO, ORIGIN)
    output.write(0, samples(output.rows(0)))
    assert "form" not in json.loads((tmp_path / "train" / "origin.json").read_text())
    assert form_of(tmp_path, "train", None) is ShardForm.samples
    fill(output)
    index = output.finish(changed=True)
    assert index is not None and index.extensions == ["a.npy"]
    with pytest.raises(ShardError, match=r'says form is null, and this command would make it "columns"'):
        Output(tmp_path, "train", INFO, replace(ORIGIN, form=ShardForm.columns))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ShardError, match=r"'thesis.tex' and no dataset.json"):
        Output(tmp_path, "train", INFO, ORIGIN)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
