"""scikit-learn's scanned digits as three modalities: left half, right half, and a caption measured from the ink."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import Build, Overwrite, RawSample, build_dataset, refuse_overwrite

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = ("a", "an", "light", "bold", "narrow", "wide", *CLASSES, "leaning", "left", "right")
LONGEST_CAPTION = 8  # [CLS] a bold narrow seven leaning right [SEP]
TEST_FRACTION = 0.2
SPLIT_SEED = 0
FULL_INK = 16.0

# Near the terciles over all scans, so that each word tells about a third of them apart.
INK_SHARE = (0.29, 0.32)
LEAN = (-0.09, 0.015)
WIDTH = (0.50, 0.585)

INFO = DatasetInfo(
    name="digits",
    title="Scanned handwritten digits: left half, right half, caption",
    source="scikit-learn load_digits: Optical Recognition of Handwritten Digits (UCI), 1797 scans of 8 x 8 pixels",
    license="CC BY 4.0",
    modalities={
        "left": {"kind": "image", "size": [8, 4], "channels": 1},
        "right": {"kind": "image", "size": [8, 4], "channels": 1},
        "caption": {"kind": "text", "max_length": LONGEST_CAPTION},
    },
    classes=list(CLASSES),
)


def build_digits(out: str | Path = "data/digits", overwrite: Overwrite = Overwrite.same_dataset) -> Build:
    """Build train and test shards and a tokenizer folder from the scans that ship with scikit-learn.

    Raises:
        BuildError: ``out`` holds something that may not be replaced.
    """
    refuse_overwrite(Path(out).resolve(), INFO.name, overwrite)
    splits = {name: raw_samples(rows) for name, rows in split_rows().items()}
    return build_dataset(out, INFO, splits, extras=write_tokenizer, overwrite=overwrite)


def split_rows() -> dict[str, np.ndarray]:
    """Split -> numbers of its scans, in order: the same for every dataset that is made of them."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    labels = load_digits().target
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_FRACTION, random_state=SPLIT_SEED, stratify=labels
    )
    return {"train": np.sort(train), "test": np.sort(test)}


def caption(scan: np.ndarray, label: int) -> str:
    """Class word plus what stands out in the stroke: ink, width, slant. scan: [8, 8], ink from 0 to 16."""
    ink, width, lean = _stroke(scan)
    words = [
        _word(ink, INK_SHARE, ("light", "", "bold")),
        _word(width, WIDTH, ("narrow", "", "wide")),
        CLASSES[label],
        _word(lean, LEAN, ("leaning left", "", "leaning right")),
    ]
    phrase = " ".join(word for word in words if word)
    return f"an {phrase}" if phrase.startswith("e") else f"a {phrase}"


def _stroke(scan: np.ndarray) -> tuple[float, float, float]:
    """(share of the area that is ink, width over height without slant, shift to the right per pixel upwards)."""
    rows, columns = np.mgrid[: scan.shape[0], : scan.shape[1]]
    weight = scan / scan.sum()
    down = rows - (weight * rows).sum()
    right = columns - (weight * columns).sum()
    tall, shear, broad = ((weight * m).sum() for m in (down * down, right * down, right * right))
    return scan.mean() / FULL_INK, np.sqrt((broad - shear**2 / tall) / tall), -shear / tall


def _word(value: float, limits: tuple[float, float], words: tuple[str, str, str]) -> str:
    return words[int(value > limits[0]) + int(value > limits[1])]


def raw_samples(rows: Sequence[int] | np.ndarray) -> Iterator[RawSample]:
    """The scans with these numbers: halves, caption and label."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    for row in rows:
        scan, label = scans.images[row], int(scans.target[row])
        half = scan.shape[1] // 2
        yield {
            "__key__": f"digit-{row:04d}",
            "left.png": _png(scan[:, :half]),
            "right.png": _png(scan[:, half:]),
            "caption.txt": caption(scan, label).encode(),
            "label.cls": str(label).encode(),
        }


def _png(ink: np.ndarray) -> bytes:
    """8-bit grey PNG of ink from 0 to 16."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.round(ink * (255 / FULL_INK)).astype(np.uint8)).save(file, format="PNG")
    return file.getvalue()


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words, framed like BERT's, so that token 0 is [CLS]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pad, unknown, start, end = SPECIAL_TOKENS
    vocabulary = {word: number for number, word in enumerate((*SPECIAL_TOKENS, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=start,
        sep_token=end,
        model_max_length=LONGEST_CAPTION,
        model_input_names=["input_ids", "attention_mask"],
    )
    fast.save_pretrained(folder / "tokenizer")
