"""Multi-omics folders become vectors with train statistics; faults are named by file, row and shape."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmpretrain.data.index import load_index
from mmpretrain.data.info import load_info
from mmpretrain.data.writing import BuildError, Outcome
from shards.omics import build_omics

OMICS = os.environ.get("MMPRETRAIN_OMICS")


def write_csv(path: Path, values: np.ndarray, header: str = "") -> None:
    """A matrix as text, compressed if the name says so."""
    text = header + "\n".join(",".join(f"{v:.18e}" for v in row) for row in values) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def make_source(folder: Path, views: int = 3, suffix: str = ".csv") -> dict[str, np.ndarray]:
    """A folder in the benchmark's layout: 12 + 6 samples, 3 classes, 4 + view number features."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    made = {}
    for split, rows in (("tr", 12), ("te", 6)):
        made[f"labels_{split}"] = (np.arange(rows) % 3).astype(float)[:, None]
        made |= {f"{n}_{split}": generator.random((rows, 4 + n)) for n in range(1, views + 1)}
    for name, values in made.items():
        write_csv(folder / f"{name}{suffix}", values)
    return made


def vectors(folder: Path, member: str) -> np.ndarray:
    """[n, features] of one member of every sample."""
    index = load_index(folder)
    rows = []
    for ordinal in range(len(index)):
        sample = index.sample(ordinal)
        offset, size = sample.members[member]
        content = Path(index.path(sample.shard)).read_bytes()[offset : offset + size]
        rows.append(np.load(io.BytesIO(content), allow_pickle=False))
    return np.stack(rows)


@pytest.mark.parametrize(("views", "suffix"), [(3, ".csv"), (2, ".csv.gz")])
def test_vectors_labels_and_statistics(tmp_path: Path, views: int, suffix: str) -> None:
    """Every row arrives as float32 in its order; minimum and maximum come from train alone."""
    made = make_source(tmp_path / "source", views, suffix)
    build = build_omics(tmp_path / "source", tmp_path / "out", name="toy")
    assert build.samples == {"train": 12, "test": 6}
    names = ["mrna", "methylation", "mirna"][:views]
    for number, view in enumerate(names, start=1):
        for split, short in (("train", "tr"), ("test", "te")):
            found = vectors(tmp_path / "out" / split, f"{view}.npy")
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, made[f"{number}_{short}"].astype(np.float32))
    info = load_info(tmp_path / "out")
    assert list(info.modalities) == names and info.modalities["mrna"] == {"kind": "vector", "size": [5]}
    expected = made["1_tr"].astype(np.float32)
    assert info.statistics["mrna"] == {"minimum": expected.min(0).tolist(), "maximum": expected.max(0).tolist()}
    assert info.classes == ["0", "1", "2"] and info.features == {}
    assert {"mrna.npy", "label.cls"} < set(load_index(tmp_path / "out" / "test").extensions)
    assert build_omics(tmp_path / "source", tmp_path / "out", name="toy").outcome is Outcome.unchanged


def test_feature_names_from_header_or_file(tmp_path: Path) -> None:
    """A header line of a matrix, or a name file with or without a header of its own."""
    made = make_source(tmp_path / "source", views=2)
    write_csv(tmp_path / "source" / "1_tr.csv", made["1_tr"], header='"g1",g2,g3,g4,g5\n')
    (tmp_path / "source" / "2_featname.csv").write_text("name\n" + "".join(f"cg{i}\n" for i in range(6)))
    build_omics(tmp_path / "source", tmp_path / "out", name="toy", views=("rna", "dna"))
    assert load_info(tmp_path / "out").features == {
        "rna": ["g1", "g2", "g3", "g4", "g5"],
        "dna": [f"cg{i}" for i in range(6)],
    }
    np.testing.assert_array_equal(vectors(tmp_path / "out" / "train", "rna.npy"), made["1_tr"].astype(np.float32))


def edit(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[Path], None]:
    """A fault: rewrite the lines of one file."""

    def apply(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines()
        (folder / name).write_text("\n".join(change(lines)) + "\n")

    return apply


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "row short": (edit("2_tr.csv", lambda t: [*t[:4], "1,2,3,4,5", *t[5:]]), r"2_tr\.csv row 5 has 5 col.*\(12, 6\)"),
    "rows differ": (edit("3_te.csv", lambda t: t[:-1]), r"3_te\.csv has 5 rows, but labels_te has 6"),
    "no number": (edit("1_te.csv", lambda t: [t[0], "1,2,x,4,5", *t[2:]]), r"1_te\.csv row 2 column 3: 'x' is no"),
    "empty cell": (edit("1_te.csv", lambda t: [t[0], "1,2,,4,5", *t[2:]]), r"row 2 column 3: '' is no number"),
    "nan": (edit("1_tr.csv", lambda t: [t[0], "1,2,nan,4,5", *t[2:]]), r"1_tr\.csv row 2 column 3: nan"),
    "overflow": (edit("1_tr.csv", lambda t: [t[0], "1,2,1e99,4,5", *t[2:]]), r"row 2 column 3: inf"),
    "columns differ": (edit("1_te.csv", lambda t: [line + ",1" for line in t]), "has 5 columns in train and 6 in test"),
    "fraction": (edit("labels_tr.csv", lambda t: ["0.5", *t[1:]]), r"labels_tr\.csv row 1: 0\.5 is no class number"),
    "negative": (edit("labels_te.csv", lambda t: ["-1", *t[1:]]), r"labels_te\.csv row 1: -1\.0 is no class number"),
    "gap": (edit("labels_tr.csv", lambda t: [line.replace("1.0", "5.0") for line in t]), "no sample of class 1"),
    "unseen": (edit("labels_te.csv", lambda t: ["7", *t[1:]]), "no sample of class 7"),
    "row numbers": (edit("1_tr.csv", lambda t: [",a,b,c,d", *t]), r"1_tr\.csv has a column without a name"),
    "column numbers": (edit("1_tr.csv", lambda t: ["0,1,2,3,4", *t]), r"1_tr\.csv begins with 0, 1, 2, \.\.\."),
    "wide labels": (edit("labels_te.csv", lambda t: [f"{line},1" for line in t]), r"expected shape \(6, 1\)"),
    "empty file": (lambda f: (f / "1_tr.csv").write_text("\n"), r"1_tr\.csv is empty"),
    "only header": (lambda f: (f / "1_tr.csv").write_text("a,b\n"), r"1_tr\.csv has only a header"),
    "no labels": (lambda f: (f / "labels_te.csv").unlink(), r"labels_te\.csv\[\.gz\] is missing"),
    "half a view": (lambda f: (f / "3_te.csv").unlink(), r"3_te\.csv\[\.gz\] is missing, but 3_tr is there"),
    "both": (lambda f: (f / "1_tr.csv.gz").write_bytes(b""), "with and without .gz"),
    "names": (lambda f: (f / "1_featname.csv").write_text("a\nb\n"), r"1_featname\.csv has 2 names: expected 5"),
    "not text": (lambda f: (f / "1_tr.csv").write_bytes(b"\xff\xfe1,2"), r"1_tr\.csv cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(tmp_path: Path, fault: str) -> None:
    """One sentence with the file; nothing is written."""
    make_source(tmp_path / "source")
    change, message = FAULTS[fault]
    change(tmp_path / "source")
    with pytest.raises(BuildError, match=message) as caught:
        build_omics(tmp_path / "source", tmp_path / "out", name="toy")
    assert str(tmp_path / "source") in str(caught.value)
    assert os.listdir(tmp_path) == ["source"]


def test_broken_gzip_and_missing_folder(tmp_path: Path) -> None:
    """A cut-off download and a wrong path."""
    make_source(tmp_path / "source", suffix=".csv.gz")
    content = (tmp_path / "source" / "1_tr.csv.gz").read_bytes()
    for damaged in (content[:-20], content[:40] + b"\xff" * 20 + content[60:], b"no gzip"):
        (tmp_path / "source" / "1_tr.csv.gz").write_bytes(damaged)
        with pytest.raises(BuildError, match=r"1_tr\.csv\.gz cannot be read"):
            build_omics(tmp_path / "source", tmp_path / "out", name="toy")
    with pytest.raises(BuildError, match="nowhere is no folder"):
        build_omics(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BuildError, match="0 views have files"):
        build_omics(tmp_path / "empty", tmp_path / "out")
    for views in (("label", "b"), ("a", "a"), ("a.b", "c")):
        with pytest.raises(BuildError, match="use different plain identifiers"):
            build_omics(tmp_path / "source", tmp_path / "out", views=views)


@pytest.mark.skipif(OMICS is None, reason="MMPRETRAIN_OMICS does not name a folder with rosmap/ and brca/")
def test_rosmap(tmp_path: Path) -> None:
    """The real matrices: 245 + 106 samples of 200 + 200 + 200 features, values as in the files."""
    assert OMICS is not None
    source = Path(OMICS) / "rosmap"
    build = build_omics(source, tmp_path / "rosmap")
    assert build.samples == {"train": 245, "test": 106}
    found = vectors(tmp_path / "rosmap" / "test", "mirna.npy")
    with gzip.open(source / "3_te.csv.gz", "rt") as file:
        expected = np.loadtxt(file, delimiter=",")
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    info = load_info(tmp_path / "rosmap")
    assert [info.modalities[v]["size"] for v in ("mrna", "methylation", "mirna")] == [[200], [200], [200]]
    assert len(info.features["mrna"]) == 200 and info.classes == ["normal control", "Alzheimer's disease"]


@pytest.mark.skipif(OMICS is None, reason="MMPRETRAIN_OMICS does not name a folder with rosmap/ and brca/")
def test_incomplete_brca_says_what_is_missing(tmp_path: Path) -> None:
    """BRCA lies there without its large matrices."""
    assert OMICS is not None
    with pytest.raises(BuildError, match=r"3_tr\.csv\[\.gz\] is missing"):
        build_omics(Path(OMICS) / "brca", tmp_path / "brca", name="brca")
