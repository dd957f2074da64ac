"""The digits dataset holds the real scans, cut in halves, with captions that are true of the ink."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmpretrain.config.compose import compose
from mmpretrain.data.index import Index, load_index
from mmpretrain.data.index_checks import check_split
from mmpretrain.data.info import load_info
from mmpretrain.data.writing import Outcome
from shards.digits import CLASSES, build_digits, caption


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built digits dataset."""
    out = tmp_path_factory.mktemp("data") / "digits"
    assert build_digits(out).outcome is Outcome.built
    return out


def members(index: Index, ordinal: int) -> dict[str, bytes]:
    """Content of a sample by extension."""
    sample = index.sample(ordinal)
    content = Path(index.path(sample.shard)).read_bytes()
    return {name: content[offset : offset + size] for name, (offset, size) in sample.members.items()}


def test_splits_are_stratified_and_complete(digits: Path) -> None:
    """About 80/20, every scan once, every class in proportion, every sample with all members."""
    train, test = load_index(digits / "train"), load_index(digits / "test")
    assert (len(train), len(test)) == (1437, 360)
    keys = {key for index in (train, test) for key in index.all_keys()}
    assert len(keys) == 1797
    config = compose([f"data.path={digits}", "data=digits"]).data
    assert all(check_split(config, split).problems == () for split in ("train", "test"))
    counts = Counter(int(members(test, i)["label.cls"]) for i in range(len(test)))
    assert set(counts) == set(range(10)) and min(counts.values()) >= 34


def test_halves_and_label_are_those_of_the_scan(digits: Path) -> None:
    """Both halves side by side give scikit-learn's scan back, within 8-bit rounding; the caption is its own."""
    from PIL import Image
    from sklearn.datasets import load_digits

    scans = load_digits()
    index = load_index(digits / "train")
    for ordinal in range(0, len(index), 97):
        row = int(index.sample(ordinal).key.removeprefix("digit-"))
        found = members(index, ordinal)
        halves = [np.asarray(Image.open(io.BytesIO(found[f"{side}.png"]))) for side in ("left", "right")]
        assert [half.shape for half in halves] == [(8, 4), (8, 4)] and halves[0].dtype == np.uint8
        assert np.abs(np.hstack(halves) / 255 * 16 - scans.images[row]).max() < 0.04
        label = int(found["label.cls"])
        assert label == scans.target[row]
        assert found["caption.txt"].decode() == caption(scans.images[row], label)


def test_captions_tell_strokes_apart() -> None:
    """10 to 30 captions per class, and every word matches what it claims."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    captions = [caption(scan, label) for scan, label in zip(scans.images, scans.target, strict=True)]
    per_class = [len({c for c, label in zip(captions, scans.target, strict=True) if label == k}) for k in range(10)]
    assert min(per_class) >= 10 and max(per_class) <= 30
    ink = {
        w: np.mean([s.sum() for s, c in zip(scans.images, captions, strict=True) if w in c]) for w in ("bold", "light")
    }
    assert ink["bold"] > 1.2 * ink["light"]


def test_caption_measures_slant_width_and_ink() -> None:
    """Strokes drawn by hand get the words that fit them."""
    rising = np.fliplr(np.eye(8)) * 16
    assert caption(rising, 1) == "a light narrow one leaning right"
    assert caption(np.fliplr(rising), 1) == "a light narrow one leaning left"
    assert caption(np.full((8, 8), 16.0), 8) == "a bold wide eight"
    ring = np.zeros((8, 8))
    ring[:, 2:6] = 12.0
    ring[1:7, 3:5] = 6.0
    assert caption(ring, 8) == "an eight"


def test_tokenizer_knows_every_word(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoTokenizer opens the folder offline; token 0 is [CLS]; no caption has unknown words or is cut."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(digits / "tokenizer")
    index = load_index(digits / "test")
    captions = [members(index, i)["caption.txt"].decode() for i in range(0, len(index), 5)]
    longest = load_info(digits).modalities["caption"]["max_length"]
    encoded = tokenizer(captions, padding="max_length", truncation=True, max_length=longest)
    assert set(encoded) == {"input_ids", "attention_mask"}
    ids = np.array(encoded["input_ids"])
    assert ids.shape[1] == longest and (ids[:, 0] == tokenizer.cls_token_id).all()
    assert tokenizer.unk_token_id not in ids and ids.max() < len(tokenizer) == tokenizer.vocab_size
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == captions[0]
    assert ((ids == tokenizer.sep_token_id).sum(axis=1) == 1).all()


def test_rebuild_is_identical(digits: Path, tmp_path: Path) -> None:
    """Fixed bytes: the same fingerprint elsewhere, and nothing to do in place."""
    again = build_digits(tmp_path / "again")
    in_place = build_digits(digits)
    assert in_place.outcome is Outcome.unchanged
    assert again.fingerprints == in_place.fingerprints
    assert load_info(digits).classes == list(CLASSES)
