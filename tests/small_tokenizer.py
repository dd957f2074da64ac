"""A word-level tokenizer folder, so that tests need no downloads and no built shards."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@cache
def small_tokenizer(words: str = "a bold light seven three digit") -> str:
    """The folder of a tokenizer that knows ``words``; it lives as long as the process."""
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *words.split()])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    folder = Path(tempfile.mkdtemp(prefix="tokenizer-"))
    atexit.register(_remove, folder, os.getpid())
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    return str(folder)


def _remove(folder: Path, owner: int) -> None:
    """Leave the folder to the process that made it: those forked from it end earlier."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
