"""Texts that would be cut are counted before a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.compose import compose
from mmpretrain.data.discovery import Discovery
from mmpretrain.data.index import build_index
from mmpretrain.training.looking_into import cut_texts, opened
from tests.data.own_data import plain, write


@pytest.mark.parametrize(("kept", "note"), [(32, None), (24, "caption: 50% of 20 texts have more tokens than")])
def test_texts_that_would_be_cut_are_counted(tmp_path: Path, kept: int, note: str | None) -> None:
    """Of one kind there are captions of 12 bytes, of the other of 30; start and end are tokens too."""

    def sample(number: int) -> dict[str, bytes]:
        return plain(number) | {"caption.txt": b"a" * (12 if number % 2 else 30)}

    write(tmp_path / "train", sample, 20)
    build_index(tmp_path / "train")
    tokens = ["method=clip", f"data.path={tmp_path}", f"data.modalities.caption.max_length={kept}"]
    config = compose(tokens, look=Discovery())
    with opened(config) as stream:
        found = cut_texts(config, EncoderSources(config), stream)
    assert found == [] if note is None else note in found[0] and "32 would keep 99 %" in found[0]
