"""`shards build table`: columns become modalities, by themselves or as the options say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.shards.drawn import build, contents, csv_text, files, json_lines, picture, refusal, tone

ROWS = [{"image": f"{n}.png", "caption": f"NA {n}", "id": f"00{n}", "label": "ba"[n]} for n in range(2)]


def as_csv(delimiter: str = ",") -> str:
    """The rows with their header."""
    return csv_text([list(ROWS[0]), *(list(row.values()) for row in ROWS)], delimiter)


FORMS: dict[str, str | bytes] = {
    "t.csv": as_csv(),
    "semicolons.csv": as_csv(";"),
    "t.tsv": as_csv("\t"),
    "captions.txt": as_csv(),
    "utf16.csv": as_csv().encode("utf-16"),
    "bom.csv": b"\xef\xbb\xbf" + as_csv().encode(),
    "t.jsonl": json_lines(ROWS),
    "t.json": json.dumps(ROWS),
    "field.json": json.dumps({"version": 1, "data": ROWS}),
    "lines.json": json_lines(ROWS),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_samples(name: str, tmp_path: Path) -> None:
    """Texts stay as they are written: 'NA' is no gap and '001' no number."""
    files(tmp_path, {name: FORMS[name]} | {f"{n}.png": picture(n) for n in range(2)})
    build(
        "table",
        tmp_path / name,
        tmp_path / "out",
        "--modality",
        "photo=image",
        "--modality",
        "c=caption",
        "--key",
        "id",
    )
    assert contents(tmp_path / "out/train") == {
        f"00{n}": {"photo.png": picture(n), "c.txt": f"NA {n}".encode(), "label.cls": b"10"[n : n + 1]} for n in (0, 1)
    }


def parquet_bytes(path: Path) -> None:
    """Bytes in a column, in row groups of 3."""
    columns = {"jpg": [picture(n) for n in range(8)], "text": [["a", "b"]] * 8, "score": [0.5] * 8}
    pq.write_table(pa.table(columns), path, row_group_size=3)


def parquet_structs(path: Path) -> None:
    """The form in which `datasets` writes images, with gaps in the labels that make them floats."""
    images = [{"bytes": picture(n), "path": None} for n in range(8)]
    pq.write_table(
        pa.table({"img": images, "text": ["x"] * 8, "label": [float(n % 2) for n in range(7)] + [None]}), path
    )


@pytest.mark.parametrize("write", [parquet_bytes, parquet_structs])
def test_bytes_in_parquet_come_out_unchanged(write: Callable[[Path], Any], tmp_path: Path) -> None:
    """Whatever the row groups and shards are; keys are the numbers of the rows."""
    write(tmp_path / "t.parquet")
    report = build("table", tmp_path / "t.parquet", tmp_path / "out", "--shard-size", "5")["report"]
    found = contents(tmp_path / "out/train")
    assert list(found) == [f"{n:09d}" for n in range(8)] and report["shards"] == {"train": 2}
    assert [members["image.png"] for members in found.values()] == [picture(n) for n in range(8)]
    if write is parquet_structs:
        assert [m.get("label.cls") for m in found.values()] == [b"0", b"1"] * 3 + [b"0", None]
        assert report["dropped"]["no label (the sample is kept)"]["count"] == 1


def test_several_files_are_one_table(tmp_path: Path) -> None:
    """One behind the other; columns that a choice leaves out are named."""
    for name, start in (("a", 0), ("b", 2)):
        rows = [{"sound": f"{n}.wav", "sentence": f"s{n}", "speaker": "x", "n": n} for n in (start, start + 1)]
        files(tmp_path, {f"{name}.jsonl": json_lines(rows)} | {f"{n}.wav": tone(n) for n in (start, start + 1)})
    report = build("table", tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "out")["report"]
    assert list(contents(tmp_path / "out/train")) == ["0", "1", "2", "3"]
    assert report["notes"]["columns that are not used"]["examples"] == ["speaker (texts)", "n (values of type int)"]


def test_paths_may_lead_anywhere_and_missing_ones_are_named(tmp_path: Path) -> None:
    """It is the user's own table; --root moves where relative ones start."""
    files(tmp_path, {"else where/1.png": picture(1), "top.png": picture(2)})
    rows = [{"image": str(tmp_path / "else where/1.png")}, {"image": "../top.png"}, {"image": "gone.png"}]
    files(tmp_path, {"tables/t.jsonl": json_lines(rows)})
    report = build("table", tmp_path / "tables/t.jsonl", tmp_path / "out")["report"]
    found = contents(tmp_path / "out/train")
    assert [m["image.png"] for m in found.values()] == [picture(1), picture(2)]
    assert all(not key.startswith("/") and ".." not in key for key in found)
    assert report["dropped"]["image: file is missing"]["examples"] == ["gone.png: file is missing"]
    files(tmp_path, {"r.jsonl": json_lines([{"image": "1.png"}])})
    build("table", tmp_path / "r.jsonl", tmp_path / "o2", "--root", tmp_path / "else where")
    assert list(contents(tmp_path / "o2/train")) == ["1"]


def test_rows_that_are_no_rows_are_counted(tmp_path: Path) -> None:
    """A line that is no JSON, and one that is no object."""
    files(tmp_path, {"t.jsonl": '{"text": "a"}\n{"text": \n[1]\n\n{"text": "b"}\n'})
    report = build("table", tmp_path / "t.jsonl", tmp_path / "out")["report"]
    assert report["written"] == 2
    assert report["notes"]["rows that are no JSON"]["examples"][0].startswith("t.jsonl line 2: ")
    assert report["notes"]["rows that are no JSON object"]["examples"] == ["t.jsonl line 3"]


CELLS: dict[str, tuple[str, str, dict[str, bytes]]] = {
    "a list as JSON": ("t.csv", csv_text([["i", "c"], ["1.png", '["a", "b"]']]), {"c.json": b'["a", "b"]'}),
    "a list as Python": ("t.csv", csv_text([["i", "c"], ["1.png", """['a', "b's"]"""]]), {"c.json": b'["a", "b\'s"]'}),
    "a list as NumPy": ("t.csv", csv_text([["i", "c"], ["1.png", "['a' 'b']"]]), {"c.txt": b"['a' 'b']"}),
    "gaps in lists": ("t.jsonl", '{"i": "1.png", "c": ["a", null, "", NaN]}\n', {"c.txt": b"a"}),
    "gaps that are no number": ("t.jsonl", '{"i": "1.png", "c": "a"}\n{"i": "1.png", "c": NaN}\n', {"c.txt": b"a"}),
    "paths of Windows": ("t.csv", csv_text([["i", "c"], ["d\\1.png", "a"]]), {"c.txt": b"a"}),
    "several labels": ("t.jsonl", '{"i": "1.png", "c": "a", "label": [1, 2]}\n', {"c.txt": b"a"}),
    "scores as labels": ("t.csv", csv_text([["i", "c", "label"], ["1.png", "a", "0.25"]]), {"c.txt": b"a"}),
}


NESTED = [{"i": "1.png", "s": [{"id": 1, "raw": "a"}, {"raw": "b"}, {"id": 2}], "m": {"c": {"t": "x"}, "y": "p"}}]


def test_objects_in_columns_are_read_by_their_parts(tmp_path: Path) -> None:
    """As COCO and Flickr30k have their captions; what is not named is said with the way to name it."""
    pq.write_table(pa.Table.from_pylist(NESTED), files(tmp_path, {"1.png": picture(1)}) / "t.parquet")
    files(tmp_path, {"t.jsonl": json_lines(NESTED)})
    for table in ("t.jsonl", "t.parquet"):
        options = [*["--modality", "image=i", "--modality", "c=s.raw", "--label", "m.y", "--key", "m.c.t"]]
        build("table", tmp_path / table, tmp_path / f"{table}.out", *options)
        expected = {"image.png": picture(1), "c.json": b'["a", "b"]', "label.cls": b"0"}
        assert contents(tmp_path / f"{table}.out/train") == {"x": expected}
    notes = build("table", tmp_path / "t.jsonl", tmp_path / "o")["report"]["notes"]["columns that are not used"]
    assert notes["examples"][0] == "s (objects: a part of them is named as s.raw)"


@pytest.mark.parametrize("name", CELLS)
def test_cells_mean_what_their_writer_meant(name: str, tmp_path: Path) -> None:
    """Lists are several texts, gaps are none, and what is no class is no label."""
    file, text, expected = CELLS[name]
    files(tmp_path, {file: text, "1.png": picture(1), "d/1.png": picture(1)})
    build("table", tmp_path / file, tmp_path / "out", "--modality", "image=i", "--modality", "c=c")
    assert [*contents(tmp_path / "out/train").values()] == [{"image.png": picture(1), **expected}]


SWALLOWING = "\n".join(['a\t"one', "b\ttwo", 'c\t"three" and', "d\tfour", 'e\t"five"'])


def test_a_quote_swallows_no_rows(tmp_path: Path) -> None:
    """Tables of tabs are seldom quoted: then a quote is a letter. Those that are quoted whole stay what they were."""
    build(
        "table", files(tmp_path, {"t.tsv": f"id\tcaption\n{SWALLOWING}\n"}) / "t.tsv", tmp_path / "out", "--key", "id"
    )
    found = {key: sample["caption.txt"].decode() for key, sample in contents(tmp_path / "out/train").items()}
    assert found == {"a": '"one', "b": "two", "c": '"three" and', "d": "four", "e": '"five"'}
    files(tmp_path, {"q.tsv": 'id\tcaption\na\t"two\nlines"\nb\t"a ""word"""\n'})
    build("table", tmp_path / "q.tsv", tmp_path / "quoted", "--key", "id")
    found = {key: sample["caption.txt"].decode() for key, sample in contents(tmp_path / "quoted/train").items()}
    assert found == {"a": "two\nlines", "b": 'a "word"'}


def test_captions_longer_than_a_name_of_a_file_may_be(tmp_path: Path) -> None:
    long = " ".join(["a long description"] * 30)
    build("table", files(tmp_path, {"t.csv": f"id,caption\n1,{long}\n"}) / "t.csv", tmp_path / "out", "--key", "id")
    assert contents(tmp_path / "out/train") == {"1": {"caption.txt": long.encode()}}


def test_parts_that_number_their_classes_differently_are_refused(tmp_path: Path) -> None:
    """As `class_encode_column` numbers each split by itself."""
    for name, classes in (("train", ["ant", "bee"]), ("test", ["bee"])):
        kinds = {"caption": datasets.Value("string"), "label": datasets.ClassLabel(names=classes)}
        part = datasets.Dataset.from_dict({"caption": ["x"] * 4, "label": [0] * 4}, datasets.Features(kinds))
        part.to_parquet(tmp_path / f"{name}.parquet")
    parts = [f"{name}={tmp_path / name}.parquet" for name in ("train", "test")]
    assert "numbers the classes of 'label' differently in test" in refusal("table", *parts, tmp_path / "out")


REFUSED: dict[str, tuple[str, str | bytes, tuple[str, ...], str]] = {
    "no table": ("t.xlsx", "x", (), "tables of the form .xlsx are not read"),
    "no header": ("t.csv", "", (), "has no header"),
    "no rows": ("t.csv", "image,caption\n", (), "has no rows"),
    "no row of the header's length": ("t.csv", "image,caption,x\n1.png,a\n", (), "no rows that can be used (rows with"),
    "several labels": ("t.jsonl", '{"c": "a", "y": [1]}\n', ("--label", "y"), "holds lists or objects"),
    "a column twice": ("t.csv", "a,a\n1,2\n", (), "names the column 'a' twice"),
    "another encoding": ("t.csv", "image,caption\n1.png,caf\xe9\n".encode("latin-1"), (), "is not UTF-8"),
    "a choice of texts": ("t.csv", "a,b\nx,y\n", (), "--modality a=a"),
    "nothing usable": ("t.csv", "url\nhttps://example.org/1.png\n", (), "remote addresses, which are not fetched"),
    "no such column": ("t.csv", "caption\nx\n", ("--key", "idd"), "has no column 'idd'"),
    "a key twice": ("t.csv", "id,caption\n1,x\n1,y\n", ("--key", "id"), "key '1' of column 'id' is there twice"),
    "a number as modality": ("t.jsonl", '{"n": 1}\n', ("--modality", "image=n"), "holds values of type int"),
    "damaged Parquet": ("t.parquet", b"PAR1junk", (), "cannot be read as Parquet"),
    "two tables in one JSON": ("t.json", '{"a": [{"x": 1}], "b": [{"x": 1}]}', (), "holds 2 tables (a, b)"),
    "an open quote": ("t.csv", 'id,caption\n1,a\n2,"b\n3,c\n', (), "t.csv line 3: a cell is not quoted as CSV has it"),
    "quotes inside": ("t.csv", 'id,caption\n1,"he said \\"hi\\""\n', (), "line 2: a cell is not quoted as CSV has it"),
    "a class in two ways": ("t.csv", "caption,label\nx,0\ny,0.0\n", (), "has the labels '0' and '0.0', one class"),
    "nothing that can be used": (
        "t.csv",
        "image\ngone.png\n",
        (),
        "can be used (image: file is missing: 1, first gone.png",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_tables_are_answered_with_one_line(name: str, tmp_path: Path) -> None:
    """Which file, what is wrong, and nothing is written."""
    file, content, options, message = REFUSED[name]
    files(tmp_path, {file: content})
    assert message in refusal("table", tmp_path / file, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_without_the_extra_parquet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the command."""
    files(tmp_path, {"t.parquet": b"x"})
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    assert "pip install 'mmpretrain-contrastive[data]'" in refusal("table", tmp_path / "t.parquet", tmp_path / "out")
