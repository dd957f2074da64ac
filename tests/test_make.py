"""What developers start: pre-commit runs the commands of `make lint`, and tests that share a cluster share a worker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.dealing import scope_of

ROOT = Path(__file__).resolve().parent.parent


def test_pre_commit_runs_what_make_lint_runs() -> None:
    recipe = re.search(r"^lint:.*\n\t(.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    commands = [line.replace("$(BIN)", ".venv/bin") for line in re.findall(r"'([^']*)'", recipe[1])]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert commands == [hook["entry"] for hook in repository["hooks"]] and len(commands) >= 4


@pytest.mark.parametrize(
    ("test", "scope"),
    [
        ("tests/slurm/test_run.py::test_auto_finds_the_cluster", "tests/slurm"),
        ("tests/slurm/test_training.py::test_two_nodes[1]", "tests/slurm"),
        ("tests/data/test_plan.py::test_x[a::b]", "tests/data/test_plan.py"),
    ],
)
def test_what_goes_to_one_worker(test: str, scope: str) -> None:
    assert scope_of(test) == scope
