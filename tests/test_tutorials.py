"""Every command of the tutorials runs, in the order of its page, at a small scale in a folder of its own.

A block of a page is ``bash`` or ``python`` and is run, ``yaml`` and is written to the file that its mark names, or
``text`` and is output to look at. A mark is an HTML comment on the line before a block:

    <!-- fails: WORDS -->      the block ends with an error that holds these words
    <!-- file: PATH -->        a yaml block is this file
    <!-- not run: REASON -->   nothing is done; the reason stands there for readers of the source
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
PAGES = sorted(TUTORIALS.glob("*.md"))
FENCE = re.compile(r"^(?:<!-- ([a-z ]+): (.+?) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS, MARKS = ("bash", "python"), ("fails", "file", "not run")
IN_EVERY_SUITE = "own-images"  # the others are slow
# What makes the commands of a page small: every one must be found on its page, so that none goes stale.
SMALL: dict[str, dict[str, str]] = {
    "add-a-method": {"train.samples=5000": "train.samples=256"},
    "audio": {
        "tones 1000": "tones 90",
        "notes 1000": "notes 90",
        "test=0.1": "test=0.3",
        "train.samples=20000": "train.samples=128",
    },
    "cluster": {"photos 2000": "photos 60", "test=0.1": "test=0.3"},
    "connect": {
        "notes 1000": "notes 90",
        "train.samples=20000": "train.samples=128",
        "train.samples=100000": "train.samples=512",
        "global_batch=256": "global_batch=32",
    },
    "fine-tune": {
        "photos 2000": "photos 120",
        "night 400": "night 90",
        "test=0.1": "test=0.3",
        "train.samples=40000": "train.samples=128",
        "--epochs 20": "--epochs 1",
    },
    "information": {"train.samples=40000": "train.samples=256"},
    "third-modality": {"notes 1000": "notes 90", "train.samples=20000": "train.samples=128"},
    "choosing": {"photos 2000": "photos 60", "test=0.1": "test=0.3"},
    "open-clip": {"tars 1000": "tars 60"},
    "own-images": {
        "photos 2000": "photos 120",
        "unseen 500": "unseen 20",
        "test=0.1": "test=0.3",
        "train.samples=40000": "train.samples=128",
    },
    "own-tars": {"a 1000": "a 100", "b 1000": "b 60", "train.samples=2000": "train.samples=128"},
}
# Pages that change the project do so in a copy of what they need of it.
IN_A_COPY = {"add-a-method": ("configs", "launcher", "mmpretrain", "shards", "slurm", "tests", "pyproject.toml")}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its mark (empty: none) with what the mark says."""

    language: str
    text: str
    mark: str = ""
    said: str = ""

    @property
    def runs(self) -> bool:
        """Whether it is a program that is to be started."""
        return self.language in PROGRAMS and self.mark not in ("not run", "file")


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(language, body, mark, said) for mark, said, language, body in FENCE.findall(text)]


def problems_of(text: str) -> list[str]:
    """What of a page would escape: blocks of other languages, marks that mean nothing, blocks that are not fenced."""
    found = [block for block in blocks_of(text)]
    outside = FENCE.sub("", text)
    problems = [f"a line of code outside a fence: {line}" for line in re.findall(r"^(?: {4}|\t).+$", outside, re.M)]
    problems += ["a fence that does not end, or is indented"] if "```" in outside else []
    problems += [f"a mark without a block: {mark}" for mark in re.findall(r"^<!-- .+$", outside, re.M)]
    for block in found:
        if block.language not in (*PROGRAMS, "yaml", "text"):
            problems.append(f"a block is of language {block.language!r}: {block.text[:60]}")
        if block.mark and block.mark not in MARKS:
            problems.append(f"no such mark: {block.mark}")
        if block.language == "yaml" and block.mark not in ("file", "not run"):
            problems.append(f"no file is named for {block.text[:60]}")
    return problems


def small(text: str, changes: dict[str, str]) -> str:
    """The block with the page's changes."""
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def environment(folder: Path, code: Path) -> dict[str, str]:
    """A shell in which ``mmpretrain`` is ``code``'s command and ``python`` this interpreter, without the network."""
    programs = folder / ".programs"
    programs.mkdir()
    command = f'#!/bin/sh\nPYTHONPATH="{code}" exec "{sys.executable}" -m launcher.mmpretrain_command "$@"\n'
    for name, text in (("mmpretrain", command), ("python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    changed = {"PATH": f"{programs}:{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
    return os.environ | changed | {"HF_MODULES_CACHE": str(folder / ".modules"), "OMP_NUM_THREADS": "1"}


def run(block: Block, changes: dict[str, str], folder: Path, variables: dict[str, str]) -> None:
    """Start a block in ``folder`` and compare how it ends with its mark."""
    text = small(block.text, changes)
    program = ["bash", "-euo", "pipefail", "-c", text] if block.language == "bash" else [sys.executable, "-c", text]
    done = subprocess.run(program, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    output = done.stdout + done.stderr
    assert (done.returncode != 0) == (block.mark == "fails"), f"{text}\n{output[-3000:]}"
    if block.mark == "fails":
        assert block.said in " ".join(output.split()), f"{text}\n{output[-3000:]}"


def names(pages: list[Path]) -> list[object]:
    """Each page as a case; all but one are slow."""
    return [
        pytest.param(page, id=page.stem, marks=() if page.stem == IN_EVERY_SUITE else pytest.mark.slow)
        for page in pages
    ]


@pytest.mark.timeout(1200)  # a dozen commands, on a machine that may be busy
@pytest.mark.processes
@pytest.mark.parametrize("page", names([page for page in PAGES if page.stem in SMALL]))
def test_the_commands_of_a_tutorial_run(page: Path, tmp_path: Path) -> None:
    for script in TUTORIALS.glob("*.py"):
        shutil.copy(script, tmp_path)
    for name in IN_A_COPY.get(page.stem, ()):
        whole = ROOT / name
        shutil.copytree(whole, tmp_path / name) if whole.is_dir() else shutil.copy(whole, tmp_path / name)
    variables = environment(tmp_path, tmp_path if page.stem in IN_A_COPY else ROOT)
    if page.stem in IN_A_COPY:
        variables["PYTHONPATH"] = str(tmp_path)
    for block in blocks_of(page.read_text()):
        if block.mark == "file":
            file = tmp_path / block.said
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        elif block.runs:
            run(block, SMALL[page.stem], tmp_path, variables)


def test_every_page_with_commands_is_run() -> None:
    """A new page needs its row in SMALL."""
    with_commands = {page.stem for page in PAGES if any(block.runs for block in blocks_of(page.read_text()))}
    assert with_commands == set(SMALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_block_of_a_tutorial_escapes(page: Path) -> None:
    text = page.read_text()
    assert problems_of(text) == []
    run_text = "".join(block.text for block in blocks_of(text) if block.runs)
    assert [old for old in SMALL.get(page.stem, {}) if old not in run_text] == []


def test_blocks_that_would_escape_are_found() -> None:
    good = "Text.\n\n```bash\na\n```\n\n<!-- fails: no such -->\n```python\nb\n```\n"
    assert problems_of(good) == [] and [block.runs for block in blocks_of(good)] == [True, True]
    assert blocks_of(good)[1] == Block("python", "b\n", "fails", "no such")
    bad = "\n    mmpretrain train\n\n```sh\na\n```\n\n<!-- slow: it -->\n```bash\nb\n```\n\n```yaml\na: 1\n```\n"
    assert [problem.split(":")[0] for problem in problems_of(bad)] == [
        "a line of code outside a fence",
        "a block is of language 'sh'",
        "no such mark",
        "no file is named for a",
    ]
    assert problems_of("<!-- not run: why -->\n\n```bash\na\n```\n") and problems_of("- ```bash\n  a\n  ```\n")
