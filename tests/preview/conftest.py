"""The data set that the tests of the page look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.preview.dataset import write


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    return write(tmp_path_factory.mktemp("preview"))
