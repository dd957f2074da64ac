"""A real two-node Slurm for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launcher.toy import ROOT

SCRIPT = ROOT / "slurm" / "dev_cluster.sh"


@pytest.hookimpl(tryfirst=True)  # before tests/conftest.py looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs Slurm."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)


def dev_cluster(command: str, *arguments: str, folder: str, **settings: str) -> str:
    """Run slurm/dev_cluster.sh and return what it prints."""
    environment = {**os.environ, "CLUSTER_DIR": folder, **settings}
    done = subprocess.run(
        [SCRIPT, command, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def namespaces_refused() -> str:
    """What the system says against the namespaces that are our nodes (root in a container may lack them), or ""."""
    probe = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=30, check=False)
    return (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else ""


def started(**settings: str) -> Iterator[dict[str, str]]:
    """A cluster of our own from start to stop: the environment of its clients, with CLUSTER_DIR."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    if shutil.which("slurmctld", path=path) is None:
        pytest.skip("Slurm's daemons are not installed: run `slurm/dev_cluster.sh install` as root")
    if os.geteuid() != 0:
        pytest.skip("a Slurm of our own needs root (its nodes are namespaces); or set SLURM_CONF to one that runs")
    if problem := namespaces_refused():
        pytest.skip(f"a Slurm of our own needs namespaces (CAP_SYS_ADMIN): {problem}")
    folder = tempfile.mkdtemp(prefix="slurm-", dir="/tmp")  # pytest's folders are too long for unix sockets
    dev_cluster("start", folder=folder, **settings)
    try:
        yield {
            "SLURM_CONF": f"{folder}/etc/slurm.conf",
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "CLUSTER_DIR": folder,
        }
    finally:
        dev_cluster("stop", folder=folder)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[dict[str, str]]:
    """The environment of a running Slurm: the one that SLURM_CONF names, else two pretended nodes of 4 CPUs."""
    if "SLURM_CONF" in os.environ:
        yield {}
    else:
        yield from started(NODES="2", CPUS="4")


@pytest.fixture
def cluster(slurm_cluster: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """As ``slurm_cluster``, set for this process while one test runs; the test's jobs are cancelled after it."""
    for name, value in slurm_cluster.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # ranks import the toy job from tests/
    before = set(queued())
    yield slurm_cluster
    if left := set(queued()) - before:
        subprocess.run(["scancel", *left], check=False, timeout=30)
    if slurm_cluster:
        bring_back()


def bring_back() -> None:
    """Slurm takes a node out where a killed job is slow to end, as on a busy machine; later tests need both."""
    asked = ["sinfo", "--noheader", "--Node", "--states=drain", "--format=%N"]
    for node in set(subprocess.run(asked, capture_output=True, text=True, timeout=30).stdout.split()):
        subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=True, timeout=30)


def queued() -> list[str]:
    """Ids of the jobs in the queue."""
    listing = subprocess.run(
        ["squeue", "--noheader", "--me", "--format=%i"], capture_output=True, text=True, timeout=30
    )
    return listing.stdout.split()
