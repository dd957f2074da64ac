"""The page in a real browser: what it shows, and that strangers' texts stay texts."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmpretrain.preview.page import page
from mmpretrain.preview.preview import make_preview
from tests.preview.dataset import HOSTILE, TITLE, config

SHOWN, HEIGHT = 12, 4000
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a headless Chromium (Debian's package chromium)"),
]


class Dom(HTMLParser):
    """Counts of elements, and the text, of what a browser made of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of every element."""
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        """Of every text."""
        self.words.append(data)


def browse(profile: Path, url: str, *options: str) -> str:
    """What a fresh browser writes to stdout."""
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    command = [str(CHROMIUM), *common, *options, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def written(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as a file."""
    path = tmp_path_factory.mktemp("page") / "preview.html"
    path.write_text(page(make_preview(str(photos), config(photos, "method=comm"), None, SHOWN, None)), encoding="utf-8")
    return path


def test_the_browser_shows_texts_as_texts(written: Path, tmp_path: Path) -> None:
    dom = Dom(browse(tmp_path, written.as_uri(), "--dump-dom"))
    text = " ".join("".join(dom.words).split())
    assert "script" not in dom.tags and "b" in dom.tags  # the page's own
    assert HOSTILE in text and TITLE in text and "1 <b>dusk" in text
    assert dom.tags.count("article") == SHOWN and dom.tags.count("img") == SHOWN * (5 + 4 + 4)
    assert "2 cannot be used (16.7%)" in text and "cut: the text has 14, max_length is 8" in text


@pytest.mark.parametrize("width", [1200, 500])
def test_a_picture_of_the_page_is_not_blank(written: Path, tmp_path: Path, width: int) -> None:
    """Photos, marked tokens and the red of problems are drawn, on a screen and on a narrow one."""
    shot = tmp_path / "shot.png"
    browse(tmp_path / "profile", written.as_uri(), f"--screenshot={shot}", f"--window-size={width},{HEIGHT}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(np.int32)
    assert pixels.shape == (HEIGHT, width, 3)
    least, colors = pixels.min(axis=-1), pixels @ np.array([1 << 16, 1 << 8, 1])
    assert len(np.unique(colors)) > 1000  # the noise of the photos
    red = (pixels[..., 0] > 150) & (pixels[..., 1:].max(axis=-1) < 60)
    assert red.any() and (least > 240).mean() > 0.3
    assert (least[:, -4:] > 240).all()  # nothing is wider than the window
