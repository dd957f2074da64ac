"""The lines of a profile's ``setup`` in the job's script: the first one that fails ends the job and is the run's cause.

Written for bash alone, since a line that fails may be the one that would have found Python.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mmpretrain.endings import Ending

FAILED = "the setup of the job failed at"  # how the cause begins, in status.json and in the job's log
STOPPED = "stopped during the setup of the job, at"
TERMINATED = 128 + 15
# Lines that are whole for certain, so that bash need not be asked.
PLAIN = re.compile(r"[\w./=:,@%+~$-]+(?: +[\w./=:,@%+~$-]+)*")
OPENS = {"if", "for", "while", "until", "case", "select", "function", "coproc", "time", "then", "do", "else", "elif"}

# A trap on ERR sees every command that fails at the script's own level: neither inside of functions and of files that
# are sourced, which may try things, nor in front of && (which _checked sees). The command is kept by the trap on DEBUG;
# it runs once more for the trap on ERR itself, so that _before is the one to be named.
_GUARD = """\
# A command that fails before the ranks start ends the job and becomes the cause in status.json ("|| true" permits it).
_run={run} _mark=0
_log() {{ readlink "/proc/$$/fd/2"; }}
_plain() {{ LC_ALL=C tr -s '[:space:]' ' ' | LC_ALL=C tr -cd '[:print:]' | head -c 500; }}
_end() {{ # CODE COMMAND
  trap - DEBUG ERR EXIT TERM
  set +eu
  local state=failed ending={ending} code={code} said old cause
  said=$(tail -c "+$((_mark + 1))" "$(_log)" 2>/dev/null | _plain)
  said=${{said#*/slurm_script: }}
  cause="{failed} \\"$(printf %s "$2" | _plain)\\": exit code $1${{said:+: ${{said% }}}}"
  [ "$1" -ne {terminated} ] || {{ state=preempted ending=preempted code=$1 cause="{stopped} \\"$2\\""; }}
  cause=$(printf %s "$cause" | _plain)
  echo "error: $cause" >&2
  cause=${{cause//\\\\/\\\\\\\\}}
  (
    flock -w 10 9
    old=$(cat "$_run/status.json" 2>/dev/null || echo '{{"job_id": null}}')
    printf '%s, "state": "%s", "ending": "%s", "cause": "%s"}}' \\
      "${{old%\\}}*}}" $state $ending "${{cause//\\"/\\\\\\"}}" >"$_run/.status.script" &&
      mv "$_run/.status.script" "$_run/status.json"
  ) 9>>"$_run/.status.lock"
  exit $code
}}
_checked() {{ [ "$1" -eq 0 ] || _end "$1" "$_at"; _mark=$(stat -Lc %s "$(_log)" 2>/dev/null || echo 0); }}
_failed() {{ [ ${{#BASH_SOURCE[@]}} -gt 2 ] || _end "$1" "$_before"; }}
trap 'case $BASH_COMMAND in _checked\\ *) ;; *) _before=$_at _at=$BASH_COMMAND ;; esac' DEBUG
trap '_failed $?' ERR
trap '_end $? "$_at"' EXIT
trap 'exit {terminated}' TERM
_checked 0"""
END = "trap - DEBUG ERR EXIT TERM"


def guarded(lines: Sequence[str], run: str) -> list[str]:
    """Lines of the job's script: ``lines`` as they are, watched over. The traps stay until END takes them off.

    run: the run's folder, as a word of the shell.
    """
    guard = _GUARD.format(
        run=run,
        ending=Ending.setup.name,
        code=Ending.setup.code,
        failed=FAILED,
        stopped=STOPPED,
        terminated=TERMINATED,
    )
    script = [guard]
    for group in groups(lines):
        script.append(group)
        if group.strip() and not group.lstrip().startswith("#"):
            script.append("_checked $?")
    return script


def setup_failure(log: Path) -> str | None:
    """What the job's script wrote into its log about a failed line, if that was the last that it did."""
    if not log.exists():
        return None
    lines = log.read_text(errors="replace").splitlines() or [""]
    said = lines[-1].removeprefix("error: ")
    return said if said.startswith(FAILED) else None


def groups(lines: Sequence[str]) -> list[str]:
    """Lines put together where only several are a whole command, such as ``if``, ``fi`` and what is between."""
    found, pending = [], list[str]()
    for line in "\n".join(lines).splitlines():
        pending.append(line)
        if whole("\n".join(pending)):
            found.append("\n".join(pending))
            pending = []
    return [*found, *(["\n".join(pending)] if pending else [])]


def setup_problems(lines: Sequence[str]) -> list[str]:
    """What bash cannot read, as one sentence; none where there is no bash."""
    text = groups(lines)[-1] if lines and "".join(lines).strip() else ""
    if whole(text):
        return []
    said = _complaint(text).splitlines() or [f"it ends in the middle of a line ({text.splitlines()[-1]})"]
    why = re.sub(r"^bash: (?:-c: )?(?:line \d+: )?", "", said[0])
    return [f"setup of the profile is no shell script: {why}, from its line {text.splitlines()[0].strip()!r} on"]


@cache
def whole(text: str) -> bool:
    """Whether bash takes ``text`` for complete commands."""
    last = text.rstrip("\n")
    if len(last) - len(last.rstrip("\\")) & 1:
        return False  # goes on with the next line
    if PLAIN.fullmatch(text.strip()) and text.split()[0] not in OPENS:
        return True
    return not text.strip() or not _complaint(text)


@cache
def _complaint(text: str) -> str:
    """What bash says against ``text`` without running it; also that a here-document does not end."""
    try:
        done = subprocess.run(
            ["bash", "-O", "extglob", "-n", "-c", text],
            capture_output=True,
            text=True,
            timeout=10,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr.strip()
