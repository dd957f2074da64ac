"""A run goes on with the tokenizer that it was trained with, wherever that lies, and with no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mmpretrain.assembly.tokenizers import byte_tokenizer, tokenizer_fingerprint
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.training.known_data import same_tokenizers


def test_another_tokenizer_is_refused_and_a_copy_is_not(tmp_path: Path) -> None:
    own, other = byte_tokenizer(), byte_tokenizer()
    own.save_pretrained(tmp_path / "copy")
    other.add_tokens(["dog"])
    manifest = {"tokenizers": {"caption": tokenizer_fingerprint(own)}}
    copied = tokenizer_fingerprint(AutoTokenizer.from_pretrained(tmp_path / "copy"))
    same_tokenizers(manifest, {"caption": copied})
    same_tokenizers({}, {"caption": copied})  # of an earlier version
    with pytest.raises(CheckpointError, match="the tokenizer of caption is not the one that the checkpoint was"):
        same_tokenizers(manifest, {"caption": tokenizer_fingerprint(other)})
