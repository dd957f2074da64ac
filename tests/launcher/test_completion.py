"""What Tab adds to a token of the config, in shells that break words at `=` and in others."""

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.completion import complete

ROOT = Path(__file__).resolve().parents[2]


def words(incomplete: str) -> list[str]:
    return [word for word, _ in complete(incomplete)]


def test_groups_and_sections_come_one_level_at_a_time() -> None:
    assert {"method=", "method.", "data=", "data.", "optim.", "seed="} <= set(words(""))
    assert not [word for word in words("") if word.count(".") > 1]
    assert {"optim.lr=", "optim.schedule=", "optim.betas="} <= set(words("optim."))
    assert {"method.temperature=", "method.partner_weight="} <= set(words("method."))
    assert words("nothing") == []


def test_a_single_key_brings_its_values() -> None:
    assert words("optim.sched") == [
        "optim.schedule=constant",
        "optim.schedule=cosine",
        "optim.schedule=step",
        "optim.schedule=plateau",
    ]
    assert words("data.record_k") == ["data.record_keys=true", "data.record_keys=false"]
    assert words("optim.step_f") == ["optim.step_factor="]
    assert dict(complete("optim.schedule="))["optim.schedule=constant"] == "It stays as it is."


def test_choices_are_files_of_the_user_and_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "data=digits" in words("data=") and words("method=cl") == ["method=clip"]


@pytest.mark.parametrize(
    ("pieces", "incomplete", "answer"),
    [
        (["method", "="], "=", ["clip", "cmcr"]),
        (["method", "=", "cl"], "cl", ["clip"]),
        (["meth"], "meth", ["method="]),
    ],
)
def test_bash_is_given_what_stands_behind_its_own_break(
    pieces: list[str], incomplete: str, answer: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["mmpretrain", "train", *pieces]
    monkeypatch.setenv("COMP_WORDS", "\n".join(line))
    monkeypatch.setenv("COMP_CWORD", str(len(line) - 1))
    assert words(incomplete)[: len(answer)] == answer


@pytest.mark.slow
@pytest.mark.processes
def test_a_real_bash_completes(tmp_path: Path) -> None:
    """As a user has it: the script that the command prints, and Tab pressed behind ``method=c``."""
    command = tmp_path / "mmpretrain"
    command.write_text(f'#!/bin/bash\nexec {sys.executable} -m launcher.mmpretrain_command "$@"\n')
    command.chmod(0o755)
    script = (
        "source <(_MMPRETRAIN_COMPLETE=source_bash mmpretrain);"
        " COMP_WORDS=(mmpretrain train method = cl); COMP_CWORD=4;"
        ' _mmpretrain_completion mmpretrain; echo "${COMPREPLY[*]}"'
    )
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.strip() == "clip", done.stderr
