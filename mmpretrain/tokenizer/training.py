"""A byte-level BPE tokenizer from texts, in a folder that ``AutoTokenizer.from_pretrained`` opens.

It knows every byte, so that no text has unknown tokens. Ids: padding is 0, as in BERT; then bytes and merges; then
mask, start and end. The end has the highest id of all, as in CLIP, whose text encoders find it by its id or as the
highest. Every text is START tokens END: the first token serves encoders like BERT, the last one causal ones.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.console import CommandError
from mmpretrain.data.writing import Outcome, Overwrite
from mmpretrain.tokenizer.texts import length_counts

PAD, MASK, START, END = "<|pad|>", "<|mask|>", "<|start|>", "<|end|>"
SMALLEST = 256 + 4  # every byte, and the special tokens
COVERED = 0.99  # share of the texts that a suggested max_length keeps whole
MULTIPLE = 8  # of the suggestion
_BATCH = 1000  # texts


class NoTextError(CommandError):
    """There is nothing to learn from."""


@dataclass(frozen=True)
class Lengths:
    """Tokens per text, start and end included.

    texts: how many there are. mean, longest: of their lengths. suggested: a max_length that keeps 99 % of them whole.
    limit: the max_length that was asked about. cut: share of the texts that are longer.
    """

    texts: int
    mean: float
    longest: int
    suggested: int
    limit: int
    cut: float


def train_tokenizer(texts: Iterable[str], size: int, lowercase: bool = False) -> Any:
    """A transformers tokenizer of at most ``size`` tokens: fewer, if the texts give no more.

    The same texts give the same tokenizer. In memory are the different words of the texts, not the texts themselves.
    Raises CommandError if ``size`` cannot hold the bytes, NoTextError if there is no text.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if size < SMALLEST:
        raise CommandError([f"--size is {size}: {SMALLEST} tokens are the least, for all bytes and 4 special tokens"])
    counted = _Counted(texts)
    tokenizer = Tokenizer(models.BPE())
    steps = [normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence(steps)
    # With a space in front, a word is the same token at the start of a text as inside of it.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - 3,
        min_frequency=2,
        special_tokens=[PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(counted, trainer)
    if not counted.count:
        raise NoTextError(["there is no text to learn from"])
    tokenizer.add_special_tokens([MASK, START, END])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        pair=f"{START} $A {END} $B:1 {END}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (START, END)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        mask_token=MASK,
        bos_token=START,
        cls_token=START,
        eos_token=END,
        sep_token=END,
        split_special_tokens=True,  # a text that holds "<|end|>" holds these letters, and no end
        model_input_names=["input_ids", "attention_mask"],
    )


def measure_lengths(tokenizer: Any, texts: Iterable[str], limit: int) -> Lengths:
    """Tokens per text; limit: the max_length to compare them with. There must be a text."""
    counts = length_counts(_lengths(tokenizer, iter(texts)))
    total, places = int(counts.sum()), np.arange(len(counts))
    covering = int(np.searchsorted(counts.cumsum(), COVERED * total))
    suggested = -(-covering // MULTIPLE) * MULTIPLE
    cut = float(counts[limit + 1 :].sum() / total)
    return Lengths(total, float(counts @ places / total), int(places[counts > 0].max()), suggested, limit, cut)


def write_tokenizer(tokenizer: Any, out: Path, overwrite: Overwrite) -> Outcome:
    """Write the folder ``out`` whole or not at all. Raises CommandError if it holds something else."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        fresh = Path(folder) / out.name
        tokenizer.save_pretrained(fresh)
        if not out.exists() or not any(out.iterdir()):
            os.replace(fresh, out)
            return Outcome.built
        if _same(fresh, out):
            return Outcome.unchanged
        if overwrite is not Overwrite.anything:
            raise CommandError([f"{out} holds something else: choose another --out, or --force to replace it"])
        shutil.move(out, Path(folder) / "old")
        os.replace(fresh, out)
    return Outcome.replaced


def refuse_folder(out: Path, overwrite: Overwrite) -> None:
    """Raise CommandError early if ``out`` is no place for a tokenizer: a file, or a folder of other things."""
    if out.exists() and not out.is_dir():
        raise CommandError([f"{out} is a file: choose another --out"])
    if out.exists() and Path.cwd().is_relative_to(out.resolve()):
        raise CommandError([f"{out} contains the current folder: choose another --out"])
    foreign = [path.name for path in out.iterdir() if "tokenizer" not in path.name] if out.exists() else []
    if foreign and overwrite is not Overwrite.anything:
        raise CommandError([f"{out} holds {min(foreign)!r}: choose another --out, or --force to replace the folder"])


class _Counted:
    """Texts, and how many have been taken."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts, self.count = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.count += 1
            yield text


def _lengths(tokenizer: Any, texts: Iterator[str]) -> Iterator[int]:
    while batch := list(islice(texts, _BATCH)):
        yield from map(len, tokenizer(batch, truncation=False, verbose=False)["input_ids"])


def _same(fresh: Path, out: Path) -> bool:
    names = sorted(path.name for path in fresh.iterdir())
    return names == sorted(path.name for path in out.iterdir()) and all(
        filecmp.cmp(fresh / name, out / name, shallow=False) for name in names
    )
