"""Releases and data that the tests of this folder only read or copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.embedding.spaces import write_bert, write_clip, write_data, write_release


@pytest.fixture(scope="session")
def spaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``own/release``, ``clip``, ``bert`` and ``data``."""
    folder = tmp_path_factory.mktemp("spaces")
    write_release(folder / "own" / "release")
    write_clip(folder / "clip")
    write_bert(folder / "bert")
    write_data(folder / "data")
    return folder
