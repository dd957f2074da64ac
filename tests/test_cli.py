"""The ``mmpretrain`` command as users start it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mmpretrain
from launcher.mmpretrain_command import main

ROOT = Path(mmpretrain.__file__).parent.parent


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter that says at the end whether torch was imported."""
    program = (
        "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr));"
        f"from launcher.cli import main; sys.argv[1:] = {list(arguments)!r}; main()"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=60)


@pytest.mark.processes
def test_help_needs_no_torch() -> None:
    """--help answers at once and names the commands."""
    run = start("--help")
    assert run.returncode == 0 and "shards" in run.stdout and "launcher/submit.py" in run.stdout
    assert run.stderr == "False\n"


@pytest.mark.processes
def test_version_and_unknown_command() -> None:
    """The version, and a usage error with exit code 2."""
    assert start("--version").stdout == f"mmpretrain {mmpretrain.__version__}\n"
    unknown = start("shards", "biuld")
    assert unknown.returncode == 2 and "biuld" in unknown.stderr and "Traceback" not in unknown.stderr


def test_entry_point_is_the_one_of_the_package() -> None:
    """pyproject's script exists."""
    assert f'mmpretrain = "{main.__module__}:{main.__name__}"' in (ROOT / "pyproject.toml").read_text()
