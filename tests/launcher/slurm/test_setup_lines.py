"""A line of setup that fails ends the job's script, and status.json names it. Run by bash, as on a node."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from launcher.slurm.setup_lines import END, groups, guarded, setup_failure, setup_problems
from mmpretrain.endings import Ending
from mmpretrain.run_folder import RunFolder, State

pytestmark = pytest.mark.processes
MODULE = "module() { [ -n '' ]; grep -q x /dev/null; [ \"$2\" != nothing ] || { echo no such module >&2; return 1; }; }"


def run(folder: Path, *lines: str) -> tuple[int, dict[str, object], Path]:
    """Exit code and status after a script with these lines, and the script's log."""
    folder.mkdir(exist_ok=True)
    RunFolder(folder).update_status(state=State.queued, job_id="7", cause=None)
    script, log = folder / "script", folder / "7_0_log.err"
    script.write_text("\n".join([*guarded([MODULE, *lines], shlex.quote(str(folder))), END, "echo ranks", ""]))
    with log.open("a") as stream:
        done = subprocess.run(["bash", script], stderr=stream, stdout=subprocess.PIPE, text=True, timeout=20)
    assert (done.stdout.splitlines()[-1:] == ["ranks"]) is (done.returncode == 0)
    return done.returncode, RunFolder(folder).status(), log


@pytest.mark.parametrize(
    ("line", "command", "rest"),
    [
        ("module load nothing", "module load nothing", "exit code 1: no such module"),
        ("module load nothing # of comments", "module load nothing", "exit code 1: no such module"),
        ("cd /nope && module load cuda", "cd /nope", "exit code 1"),
        ("module load nothing; module load cuda", "module load nothing", "exit code 1: no such module"),
        ("for m in cuda nothing nccl; do module load $m; done", "module load $m", "no such module"),
        ("source sourced", "source sourced", "exit code 1"),
        ("source leaves", "source leaves", "exit code 4"),
        ("set -u; echo $NOPE", "echo $NOPE", "NOPE: unbound variable"),
        ("set -e; ls /nope", "ls /nope", "No such file or directory"),
        ("export X=1; Y=$(cat /nope)", "Y=$(cat /nope)", "No such file or directory"),
        ("exit 0", "exit 0", "exit code 0"),
        ("nosuchcommand", "nosuchcommand", "exit code 127"),
        ('cat "/no \\"such\\\\ thing"', 'cat "/no \\"such\\\\ thing"', "No such file"),
    ],
)
def test_the_command_that_fails_is_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, command: str, rest: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sourced").write_text("grep -q x /dev/null\nfalse\n")
    (tmp_path / "leaves").write_text("grep -q x /dev/null\nexit 4\n")
    code, status, log = run(tmp_path / "it's 50% ü", "module load cuda", line)
    assert code == Ending.setup.code
    assert (status["state"], status["ending"], status["job_id"]) == ("failed", "setup", "7")
    cause = str(status["cause"])
    assert cause.startswith(f'the setup of the job failed at "{command}": ') and rest in cause
    assert setup_failure(log) == cause


def test_what_may_fail_and_says_so_goes_on(tmp_path: Path) -> None:
    lines = [
        "module load nothing || true",
        "[ -f /nope ] || [ -d / ]",
        "if grep -q x /dev/null; then",
        "  module load nothing",
        "fi",
        "cat <<END >/dev/null",
        "  exit 5",
        "END",
        "export A=1 \\",
        "  B=2",
        "works() { grep -q x /dev/null; true; }; works",
        "",
        "# done",
        '[ "$A$B" = 12 ] && [ "${#BASH_SOURCE[@]}" = 1 ]',
    ]
    code, status, log = run(tmp_path / "run", *lines)
    assert (code, status["state"], setup_failure(log)) == (0, "queued", None)


def test_a_status_that_others_wrote_stays_readable(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    RunFolder(folder).update_status(state=State.failed, note={"a": {"b": "}"}})
    run(folder, "false")
    text = (folder / "status.json").read_text()
    assert json.loads(text)["note"] == {"a": {"b": "}"}}


def test_only_whole_commands_stand_between_checks() -> None:
    lines = ["a", "if b; then", "c", "fi", "d \\", "e", "cat <<X", "f", "X", "g\nh"]
    assert groups(lines) == ["a", "if b; then\nc\nfi", "d \\\ne", "cat <<X\nf\nX", "g", "h"]


@pytest.mark.parametrize(
    ("lines", "word"), [(["a", "if b"], "'if b'"), (['echo "a'], "unexpected EOF"), (["a; ;"], "syntax error"),
                        (["a \\"], "in the middle")],
)  # fmt: skip
def test_what_bash_cannot_read_is_said_before_the_job(lines: list[str], word: str) -> None:
    (problem,) = setup_problems(lines)
    assert "setup of the profile is no shell script" in problem and word in problem
    assert setup_problems(["module load cuda", "shopt -s extglob", "ls !(a)"]) == setup_problems([]) == []
