"""Models and data that the tests of this folder only read or copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.embedding.spaces import write_bert, write_clip, write_data, write_release, write_siglip


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``own``, ``clip``, ``siglip``, ``bert`` and ``data``."""
    folder = tmp_path_factory.mktemp("compared")
    write_release(folder / "own")
    write_clip(folder / "clip")
    write_siglip(folder / "siglip")
    write_bert(folder / "bert")
    write_data(folder / "data")
    return folder
