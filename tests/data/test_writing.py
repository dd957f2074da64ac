"""A dataset folder appears whole or not at all, and nothing of the user's is overwritten."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmpretrain.data.index import load_index
from mmpretrain.data.info import DatasetInfo, load_info
from mmpretrain.data.writing import Build, BuildError, Outcome, Overwrite, RawSample, build_dataset, write_split


def info(name: str = "toy") -> DatasetInfo:
    """The smallest description of a dataset."""
    return DatasetInfo(name, "Toy", "made up", "CC0", {"caption": {"kind": "text"}})


def samples(count: int, text: str = "text") -> list[RawSample]:
    """Samples with a caption each."""
    return [{"__key__": f"{i:04d}", "caption.txt": f"{text} {i}".encode()} for i in range(count)]


def build(out: Path, text: str = "text", name: str = "toy", overwrite: Overwrite = Overwrite.same_dataset) -> Build:
    """Build a toy dataset of 5 + 2 samples."""
    return build_dataset(out, info(name), {"train": samples(5, text), "test": samples(2)}, overwrite=overwrite)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    """Two builds are byte-equal; nothing but the dataset is left behind."""
    first, second = build(tmp_path / "a"), build(tmp_path / "b")
    assert first.outcome is Outcome.built and first.samples == {"train": 5, "test": 2}
    assert first.fingerprints == second.fingerprints
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert load_info(tmp_path / "a") == info()


def test_again_changes_nothing_and_repairs_damage(tmp_path: Path) -> None:
    """An identical folder stays untouched, also with the user's notes in it; a damaged shard is replaced."""
    build(tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    before = (tmp_path / "a" / "dataset.json").stat().st_mtime_ns
    assert build(tmp_path / "a").outcome is Outcome.unchanged
    assert (tmp_path / "a" / "dataset.json").stat().st_mtime_ns == before
    (tmp_path / "a" / "notes.txt").unlink()
    os.truncate(tmp_path / "a" / "train" / "shard-000000.tar", 100)
    assert build(tmp_path / "a").outcome is Outcome.replaced
    assert len(load_index(tmp_path / "a" / "train")) == 5
    assert os.listdir(tmp_path) == ["a"]


def test_foreign_content_needs_force(tmp_path: Path) -> None:
    """A folder that is no dataset, another dataset, a file, or extra files in a changed dataset are refused."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "thesis.tex").write_text("precious")
    with pytest.raises(BuildError, match=r"plain is not a dataset that mmpretrain built.*--force"):
        build(tmp_path / "plain")
    build(tmp_path / "other", name="other")
    with pytest.raises(BuildError, match="holds the dataset 'other'"):
        build(tmp_path / "other")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BuildError, match="is a file"):
        build(tmp_path / "file")
    build(tmp_path / "mixed")
    (tmp_path / "mixed" / "notes.txt").write_text("mine")
    with pytest.raises(BuildError, match=r"also holds 'notes\.txt'"):
        build(tmp_path / "mixed", text="changed")
    assert (tmp_path / "mixed" / "notes.txt").exists() and (tmp_path / "plain" / "thesis.tex").exists()
    for name in ("plain", "other", "file", "mixed"):
        assert build(tmp_path / name, text="changed", overwrite=Overwrite.anything).outcome is Outcome.replaced
    assert sorted(os.listdir(tmp_path)) == ["file", "mixed", "other", "plain"]


def test_never_replaces_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--out . or / would delete the work place."""
    monkeypatch.chdir(tmp_path)
    for out in (Path(), Path("/"), tmp_path.parent):
        with pytest.raises(BuildError, match="contains the current folder"):
            build(out, overwrite=Overwrite.anything)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_build_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    """Neither a half-made folder nor a temporary one; an older build survives."""

    def interrupted() -> Iterator[RawSample]:
        yield from samples(200)
        raise error

    with pytest.raises(error):
        build_dataset(tmp_path / "a", info(), {"train": interrupted()})
    assert os.listdir(tmp_path) == []
    build(tmp_path / "a")
    before = tree(tmp_path / "a")
    with pytest.raises(error):
        build_dataset(tmp_path / "a", info(), {"train": interrupted()})
    assert tree(tmp_path / "a") == before and os.listdir(tmp_path) == ["a"]


def test_link_to_another_disk_is_kept(tmp_path: Path) -> None:
    """A linked data folder is filled where it points to."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    build(tmp_path / "data" / "toy")
    (tmp_path / "toy").symlink_to(tmp_path / "disk" / "toy")
    assert build(tmp_path / "toy", text="changed").outcome is Outcome.replaced
    assert (tmp_path / "toy").is_symlink() and len(load_index(tmp_path / "disk" / "toy" / "train")) == 5


def test_shards_are_cut_by_sample_count(tmp_path: Path) -> None:
    """The last shard takes the rest; webdataset reads the same keys in the same order."""
    import webdataset

    write_split(tmp_path / "s", samples(7), per_shard=3)
    assert [shard.samples for shard in load_index(tmp_path / "s").shards] == [3, 3, 1]
    urls = [str(p) for p in sorted((tmp_path / "s").glob("*.tar"))]
    read = webdataset.WebDataset(urls, shardshuffle=False)
    assert [s["__key__"] for s in read] == [f"{i:04d}" for i in range(7)]


def test_unwritable_parent(tmp_path: Path) -> None:
    """A parent that is a file is named."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(BuildError, match=r"file cannot be written"):
        build(tmp_path / "file" / "toy")
