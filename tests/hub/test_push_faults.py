"""A push that is disturbed at every call, and a client that is killed there; readers see one release, whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mmpretrain.hub.hub_errors import PushError
from mmpretrain.release_folder import verify_release
from tests.hub.server import Fault, HubServer, Wrong
from tests.hub.test_push import REPO, TOKEN, hub, local, pushed, releases, seen
from tests.small_runs import ROOT

__all__ = ["hub", "releases"]  # fixtures
COMMIT = 12  # the call that makes it
CALLS = 17  # of a push onto another release with a tag, as the first test here counts them


def start(hub: HubServer, release: Path, home: Path, *options: str) -> subprocess.Popen[str]:
    """``mmpretrain push`` as a user starts it, who has a token in the environment."""
    known = {"HF_TOKEN": TOKEN, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home)}
    arguments = [sys.executable, "-m", "launcher.mmpretrain_command", "push", str(release), REPO, *options]
    return subprocess.Popen(
        arguments, cwd=ROOT, env=os.environ | known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def check_whole(hub: HubServer, releases: tuple[Path, Path], cache: Path) -> None:
    """What readers get of main is one of both releases; what they get of the new tag is the new one."""
    old, new = releases
    found = seen(hub, cache)
    assert found in (local(old), local(new))
    if "v2" in hub.repos[REPO].tags:
        assert found == local(new) == seen(hub, cache, "v2")
    assert seen(hub, cache, "v1") == local(old)


def check_completed(hub: HubServer, releases: tuple[Path, Path], cache: Path) -> None:
    """A rerun brought the new release, in one commit of all there were, and its tag."""
    check_whole(hub, releases, cache)
    assert seen(hub, cache) == local(releases[1]) and hub.commits(REPO) == 2 and "v2" in hub.repos[REPO].tags


def begin(hub: HubServer, old: Path) -> None:
    """The old release lies there, and requests are counted from now on."""
    pushed(hub, old, tag="v1")
    hub.requests.clear()


def test_a_push_has_so_many_calls(hub: HubServer, releases: tuple[Path, Path]) -> None:
    begin(hub, releases[0])
    pushed(hub, releases[1], tag="v2")
    assert len(hub.requests) == CALLS, hub.requests


@pytest.mark.slow
@pytest.mark.parametrize("number", range(1, CALLS + 1))
@pytest.mark.parametrize("wrong", list(Wrong))
def test_one_thing_goes_wrong_anywhere(
    hub: HubServer, releases: tuple[Path, Path], tmp_path: Path, wrong: Wrong, number: int
) -> None:
    begin(hub, releases[0])
    hub.faults = [Fault(number, wrong)]
    try:
        pushed(hub, releases[1], tag="v2")
    except PushError as error:
        assert len(error.problems) == 1 and len(error.problems[0]) < 300
    hub.faults = []
    check_whole(hub, releases, tmp_path / "cache")
    pushed(hub, releases[1], tag="v2")
    check_completed(hub, releases, tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize("number", range(1, CALLS + 1))
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_client_is_killed_anywhere(
    hub: HubServer, releases: tuple[Path, Path], tmp_path: Path, when: str, number: int
) -> None:
    begin(hub, releases[0])
    push_and_kill(hub, releases[1], tmp_path, when, number)
    check_whole(hub, releases, tmp_path / "cache")
    pushed(hub, releases[1], tag="v2")
    check_completed(hub, releases, tmp_path / "cache")


def push_and_kill(hub: HubServer, release: Path, home: Path, when: str, number: int) -> None:
    """SIGKILL the client at a request, before it has an effect or before it is answered."""
    started = threading.Event()

    def kill(reached: int) -> None:
        if reached == number:
            started.wait()
            os.kill(client.pid, signal.SIGKILL)

    setattr(hub, when, kill)
    client = start(hub, release, home, "--tag=v2")
    started.set()
    client.communicate(timeout=120)
    nothing: Callable[[int], None] = lambda number: None  # noqa: E731
    setattr(hub, when, nothing)
    assert client.returncode == -signal.SIGKILL and len(hub.requests) >= number


@pytest.mark.processes
def test_a_client_killed_at_its_commit_and_the_token_that_nobody_sees(
    hub: HubServer, releases: tuple[Path, Path], tmp_path: Path
) -> None:
    """The one quick case: killed as its commit is made, run again; the token is in no argument, answer or file."""
    begin(hub, releases[0])
    push_and_kill(hub, releases[1], tmp_path / "home", "after", COMMIT)
    assert "/commit/" in hub.requests[COMMIT - 1]
    check_whole(hub, releases, tmp_path / "cache")
    lines: list[bytes] = []
    hub.before = lambda number: lines.append(Path(f"/proc/{client.pid}/cmdline").read_bytes())
    client = start(hub, releases[1], tmp_path / "home", "--tag=v2", "--json")
    output = client.communicate(timeout=120)
    hub.before = lambda number: None
    assert client.returncode == 0, output
    check_completed(hub, releases, tmp_path / "cache")
    assert lines and TOKEN.encode() not in b"".join(lines) and TOKEN not in "".join(output)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert verify_release(releases[1]) == []
