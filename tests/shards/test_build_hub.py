"""`shards build hf`: what `datasets` opens from disk, undecoded, without code and without its caches."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from mmpretrain.data.info import load_info
from tests.shards.drawn import build, contents, files, picture, refusal, tone

COUNT = 6


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> datasets.Dataset:
    """Pictures, sounds, captions and classes, as `datasets` holds them."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    columns = {
        "photo": [{"bytes": picture(n), "path": f"{n}.png"} for n in range(COUNT)],
        "voice": [{"bytes": tone(n), "path": None} for n in range(COUNT)],
        "text": [f"pet {n}" for n in range(COUNT)],
        "species": [n % 2 if n else -1 for n in range(COUNT)],
    }
    kinds = {"photo": datasets.Image(), "voice": datasets.Audio(), "text": datasets.Value("string")}
    features = datasets.Features(kinds | {"species": datasets.ClassLabel(names=["zebra", "ant"])})
    return datasets.Dataset(pa.Table.from_pydict(columns, schema=features.arrow_schema))


def expected(number: int) -> dict[str, bytes]:
    """The members of a sample."""
    label = {"label.cls": str(number % 2).encode()} if number else {}
    return {"image.png": picture(number), "sound.wav": tone(number), "text.txt": f"pet {number}".encode(), **label}


def check(out: Path) -> None:
    """All bytes as they were; classes keep the numbers that the dataset gave them."""
    assert list(contents(out / "train").values()) == [expected(n) for n in range(COUNT)]
    assert load_info(out).classes == ["zebra", "ant"]


def test_a_saved_dataset(pets: datasets.Dataset, tmp_path: Path) -> None:
    """In several files, and of several splits."""
    pets.save_to_disk(tmp_path / "saved", num_shards=2)
    report = build("hf", tmp_path / "saved", tmp_path / "out")["report"]
    check(tmp_path / "out")
    assert report["dropped"] == {"no label (the sample is kept)": {"count": 1, "examples": ["row 1"]}}
    both = datasets.DatasetDict({"test": pets.select([4, 2]), "train": pets})
    both.save_to_disk(tmp_path / "both")
    assert build("hf", tmp_path / "both", tmp_path / "o2")["samples"] == {"train": COUNT, "test": 2}
    assert list(contents(tmp_path / "o2/test").values()) == [expected(4), expected(2)]


def test_a_folder_of_parquet(pets: datasets.Dataset, tmp_path: Path) -> None:
    """The layout of the Hub, with its names of splits."""
    for part in range(2):
        shard = pets.shard(2, part, contiguous=True)
        shard.to_parquet(tmp_path / f"pets/data/train-0000{part}-of-00002.parquet")
    pets.select([1]).to_parquet(tmp_path / "pets/data/test-00000-of-00001.parquet")
    assert build("hf", tmp_path / "pets", tmp_path / "out")["samples"] == {"train": COUNT, "test": 1}
    check(tmp_path / "out")
    assert not (tmp_path / "cache").exists()


def test_an_arrow_file(pets: datasets.Dataset, tmp_path: Path) -> None:
    """As `datasets` keeps in its cache."""
    pets.save_to_disk(tmp_path / "saved")
    build("hf", next((tmp_path / "saved").glob("*.arrow")), tmp_path / "out")
    check(tmp_path / "out")


def test_no_code_is_run_and_nothing_is_fetched(tmp_path: Path) -> None:
    """Scripts are refused, not executed; other forms are named with what to use instead."""
    script = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    assert "scripts" in refusal("hf", files(tmp_path / "pets", {"pets.py": script}), tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert "nothing is fetched" in refusal("hf", tmp_path / "nobody" / "pets", tmp_path / "out")
    assert "shards build folder" in refusal("hf", files(tmp_path / "i", {"1.png": picture(1)}), tmp_path / "out")
    card = "---\nconfigs:\n- data_files:\n  - split: train\n    path: https://example.org/x.csv\n---\n"
    elsewhere = files(tmp_path / "elsewhere", {"README.md": card})
    assert "https://example.org/x.csv, which is not on this disk" in refusal("hf", elsewhere, tmp_path / "out")
    damaged = files(tmp_path / "damaged", {"state.json": "{}", "dataset_info.json": "{}"})
    assert "cannot be opened as a saved dataset" in refusal("hf", damaged, tmp_path / "out")
