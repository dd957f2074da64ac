"""The ``mmpretrain`` command as users start it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mmpretrain
from launcher.cli import typed
from launcher.mmpretrain_command import main

ROOT = Path(mmpretrain.__file__).parent.parent


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter that says at the end whether torch was imported."""
    program = (
        "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr));"
        f"from launcher.mmpretrain_command import main; sys.argv[1:] = {list(arguments)!r}; main()"
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
    """pyproject's script exists, where setup.py installs it."""
    written = f'mmpretrain = "mmpretrain_contrastive.{main.__module__}:{main.__name__}"'
    assert written in (ROOT / "pyproject.toml").read_text()


@pytest.mark.processes
@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "--help"),
        ("embed", "--help"),
        ("explain", "--help"),
        ("export", "--help"),
        ("push", "--help"),
        ("push", "nowhere", "name-without-owner"),
        ("evaluate", "--help"),
        ("evaluate", "nowhere", "--data", "nowhere"),
        ("shards", "preview", "--help"),
        ("report", "--help"),
        ("report", "nowhere"),
        ("tokenizer", "train", "--help"),
        ("train", "--cluster=local", "method=m4col", "optim.lrr=1"),
        ("train", "--cluster=local", "data.path=nowhere"),
        ("train", "--nodes=0", "--config-dir=nowhere"),
    ],
)
def test_help_and_errors_of_a_config_need_no_torch(arguments: tuple[str, ...]) -> None:
    """What the contract of imports leaves to run time: the imports that it ignores are not made."""
    run = start(*arguments)
    assert run.returncode == (0 if "--help" in arguments else 2 if "--nodes=0" in arguments else 1)
    assert run.stderr.endswith("\nFalse\n") or run.stderr == "False\n"


@pytest.mark.processes
def test_train_is_the_launchers_command() -> None:
    """The same options and help; only the name of the program differs."""
    script = subprocess.run(
        [sys.executable, "launcher/submit.py", "--help"], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert "python launcher/submit.py --nodes 8" in script.stdout

    def from_options_on(text: str) -> str:
        return text[text.index("Arguments:") :]

    installed = start("train", "--help").stdout
    assert "  mmpretrain train --nodes 8 --dry-run method=m3col\n" in installed and "submit.py" not in installed
    assert from_options_on(installed) == from_options_on(script.stdout)


def test_the_command_that_continues_a_run_is_the_one_that_was_typed() -> None:
    """Scripts are shown with their interpreter, an installed command by its name."""
    assert typed(["launcher/submit.py", "a=b"]) == ["python", "launcher/submit.py", "a=b"]
    assert typed(["/venv/bin/mmpretrain", "train", "a=b"]) == ["mmpretrain", "train", "a=b"]
