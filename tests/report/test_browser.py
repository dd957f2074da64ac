"""The page in a real browser: on a phone, under the pointer, and with hostile names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmpretrain.report.page import page
from mmpretrain.report.record import read_record
from mmpretrain.run_folder import State
from tests.report.made_up import HOSTILE, write_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PHONE, HEIGHT = 390, 3000
# A browser's own window is never as narrow as a phone, so the page is looked at in a frame.
LOOK = """<!DOCTYPE html><body style="margin:0"><iframe src="page.html" width="WIDTH" height="3000" frameborder="0">
</iframe>
<pre id="found"></pre><script>
addEventListener("load", () => {
  const page = document.querySelector("iframe").contentDocument, width = page.documentElement.clientWidth;
  const plot = page.querySelector(".plot"), box = plot.getBoundingClientRect();
  plot.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width / 2, clientY: box.top + 9}));
  const lines = page.querySelectorAll(".plot g.r1");
  const before = lines.length ? getComputedStyle(lines[0]).display : "";
  page.getElementById("run1")?.click();
  found.textContent = JSON.stringify({
    width, wide: page.documentElement.scrollWidth, title: page.title, scripts: page.scripts.length,
    tip: plot.querySelector(".tip").textContent, pictures: page.images.length,
    shown: before, hidden: lines.length ? getComputedStyle(lines[0]).display : "",
  });
});
</script>"""
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a headless Chromium (Debian's package chromium)"),
]


def browse(profile: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """A fresh browser that writes what pages log to stderr."""
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
    command = [str(CHROMIUM), *common, "--enable-logging=stderr", *options, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def written(folder: Path) -> Path:
    """The page of two runs with everything, one failed with a hostile message."""
    parts = ("scores", "before", "grid", "map", "release", "logs")
    one = write_run(folder / f"{'a-very-long-name-' * 6}<b>", *parts)
    other = write_run(folder / "other", *parts, state=State.failed, cause=HOSTILE, config={"seed": 1})
    text = page([read_record(run, run.name) for run in (one, other)], HOSTILE)
    (folder / "page.html").write_text(text, encoding="utf-8")
    return folder / "page.html"


def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_script_works(tmp_path: Path) -> None:
    look = written(tmp_path).with_name("look.html")
    look.write_text(LOOK.replace("WIDTH", str(PHONE)))
    shot = tmp_path / "shot.png"
    allowed = ("--allow-file-access-from-files", f"--window-size=500,{HEIGHT}")
    ended = browse(tmp_path / "profile", look.as_uri(), "--dump-dom", f"--screenshot={shot}", *allowed)
    dumped = re.search(r'<pre id="found">(.*?)</pre>', ended.stdout, re.DOTALL)
    assert dumped is not None, ended.stderr
    found: dict[str, Any] = json.loads(unescape(dumped[1]))
    assert found["width"] == found["wide"] == PHONE and found["title"] == HOSTILE
    assert found["scripts"] == 1 and found["pictures"] == 2 * 2  # of two runs, the queries of their grids
    assert "step" in found["tip"] and "other" in found["tip"]
    assert (found["shown"], found["hidden"]) == ("inline", "none")
    assert "CONSOLE" not in ended.stderr
    if shot.exists():  # browsers differ in whether they do both at once
        colors = np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3)
        assert len(np.unique(colors, axis=0)) > 50
