"""The page as HTML."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mmpretrain.report.page import page
from mmpretrain.report.record import read_record
from mmpretrain.run_folder import State
from tests.report.made_up import HOSTILE, write_run


class Links(HTMLParser):
    """What elements of a page ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Of every element."""
        self.found += [value or "" for name, value in attrs if name in ("src", "srcset", "href", "action", "data")]


EVERYTHING = ("scores", "before", "grid", "map", "release", "logs")


def test_strangers_texts_stay_texts_and_nothing_is_asked_for(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a <i>'\"", *EVERYTHING, state=State.failed, cause=HOSTILE)
    text = page([read_record(folder, folder.name)], HOSTILE)
    assert HOSTILE not in text and text.count("<script>") == 1 and "<img src=x" not in text and "<i>'" not in text
    assert text.count("&lt;script&gt;document.title") >= 8
    assert "secret" not in text and "X-Signature" not in text
    asked = Links(text).found
    assert asked and all(link.startswith(("data:image/", "#")) for link in asked)
    assert "url(" not in text and "@import" not in text and "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text and re.search(r"script-src 'sha256-[\w+/]+=*'", text)


def test_a_page_of_three_runs_tells_them_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"run-{n}", *EVERYTHING, config={"seed": n}) for n in range(3)]
    text = page([read_record(folder, folder.name) for folder in folders])
    assert "3 runs compared" in text and text.count('<input type="checkbox" id="run') == 3
    assert "What differs between the configs" in text and "<code>seed</code>" in text
    assert len(text.encode()) < 400_000


@pytest.mark.parametrize(
    ("state", "said"), [(State.running, "50.0 % of the steps are done"), (State.failed, "it ended because of this")]
)
def test_a_run_that_is_not_complete_has_a_page(tmp_path: Path, state: State, said: str) -> None:
    folder = write_run(tmp_path / "a", state=state, total_steps=40, cause="the loss is nan")
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 21, "loss": 1.0}\n{"step": 22, "loss": NaN}\nhalf a li')
    text = page([read_record(folder, "a")])
    assert said in text and "No final evaluation." in text and "No release." in text


def test_a_run_that_logged_nothing_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"state": "queued"}')
    text = page([read_record(tmp_path, "a")])
    assert "queued" in text and "No training step was logged yet." in text and 'class="chart"' not in text


@pytest.mark.processes
def test_no_torch_is_needed() -> None:
    """A page of a run can be made where nothing is trained, at once."""
    code = (
        "import sys, mmpretrain.report.cli, mmpretrain.report.page; print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
