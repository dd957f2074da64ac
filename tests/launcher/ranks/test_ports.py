"""A free port for the ranks to meet at."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from launcher.ranks import ports
from tests.launcher.toy import ROOT


def test_a_port_that_is_taken_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ports.free_port()
    monkeypatch.setattr(ports, "FIRST", first)
    monkeypatch.setattr(ports, "LAST", first + 1)
    with socket.socket() as holder:
        holder.bind(("", first))
        holder.listen()
        with pytest.raises(OSError, match="is free on"):
            ports.free_port()
    assert ports.free_port() == first


@pytest.mark.processes
def test_the_module_prints_one() -> None:
    command = [sys.executable, "-m", "launcher.ranks.ports"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30).stdout
    assert ports.FIRST <= int(printed) < ports.LAST
