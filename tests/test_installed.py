"""The wheel in an environment of its own, used from a folder that knows nothing of the clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.summary.demo import OPEN_RELEASE
from tests.launcher.toy import ROOT


def _can_build() -> bool:
    """Whether a wheel can be built without a download."""
    try:
        return int(version("setuptools").partition(".")[0]) >= 77
    except PackageNotFoundError:
        return False


pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.skipif(not _can_build(), reason="setuptools 77 or newer builds the wheel"),
    pytest.mark.timeout(900),
]

SHIPPED = ("launcher", "mmpretrain", "shards", "configs", "slurm")
STAYS = ("benchmarks", "experiments", "tests")
CLEAN = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SLURM_CONF")}
CLEAN |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
TRAIN = ("train", "--cluster=local", "method=clip", "data=digits", "train.samples=3000", "checkpoint.every_steps=50")


def run(command: Sequence[str | Path], cwd: Path, seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """A command without this process's search path."""
    return subprocess.run(command, cwd=cwd, env=CLEAN, capture_output=True, text=True, timeout=seconds)


def build_wheel(source: Path, out: Path) -> Path:
    """The wheel of a folder of sources, or of an sdist."""
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-cache-dir",
        "-w",
        out,
    ]
    done = run([*command, source], out.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the clone: building leaves things behind."""
    folder = tmp_path_factory.mktemp("sources")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in (*SHIPPED, *STAYS):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    (folder / "build" / "lib" / "mmpretrain").mkdir(parents=True)
    (folder / "build" / "lib" / "mmpretrain" / "removed_since.py").write_text("")  # of an earlier build
    return folder


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this clone."""
    return build_wheel(sources, tmp_path_factory.mktemp("wheel") / "out")


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, which sees the packages of the present one, but no clone in it."""
    folder = tmp_path_factory.mktemp("environment")
    assert run([sys.executable, "-m", "venv", "--without-pip", folder], folder).returncode == 0
    install: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder / "bin" / "python",
        "install",
        "--no-deps",
        wheel,
    ]
    done = run(install, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    # A folder named in a .pth file is searched, but the .pth files in it, such as an editable install's, are not read.
    here = [path for path in sys.path if path.endswith("site-packages")]
    next(folder.glob("lib/python*/site-packages")).joinpath("packages.pth").write_text("\n".join(here) + "\n")
    return folder


@pytest.fixture(scope="module")
def away(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another folder, with the digits built by the installed command."""
    folder = tmp_path_factory.mktemp("away")
    done = run([environment / "bin" / "mmpretrain", "shards", "build", "digits"], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_wheel_holds_code_and_data_under_two_names(wheel: Path, sources: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = set()
    for part in SHIPPED:
        home = "" if part == "mmpretrain" else "mmpretrain_contrastive/"
        files = [
            path
            for path in (ROOT / part).rglob("*")
            if path.suffix in (".py", ".yaml", ".html", ".css", ".js") or path.name == "py.typed"
        ]
        expected |= {home + str(path.relative_to(ROOT)) for path in files}
    assert held == expected
    assert {name.split("/")[0] for name in held} == {"mmpretrain", "mmpretrain_contrastive"}


def test_the_sdist_builds_the_same_wheel(wheel: Path, sources: Path, tmp_path: Path) -> None:
    program = f"import setuptools.build_meta as b; b.build_sdist({str(tmp_path)!r})"
    done = run([sys.executable, "-c", program], sources)
    assert done.returncode == 0, done.stderr
    again = build_wheel(next(tmp_path.glob("*.tar.gz")), tmp_path / "out")
    contents = [{i.filename: i.CRC for i in zipfile.ZipFile(path).infolist()} for path in (wheel, again)]
    assert contents[0] == contents[1]


def test_nothing_of_the_clone_is_on_the_path(environment: Path, tmp_path: Path) -> None:
    program = "import importlib.util as u, mmpretrain; print(mmpretrain.__file__, *map(u.find_spec, {!r}))"
    done = run([environment / "bin" / "python", "-c", program.format(("launcher", "shards", "tests"))], tmp_path)
    assert done.stdout.split() == [str(next(environment.glob("lib/python*/site-packages/mmpretrain/__init__.py"))),
                                   "None", "None", "None"]  # fmt: skip


def test_help_and_a_dry_run_for_eight_nodes(environment: Path, away: Path) -> None:
    command = environment / "bin" / "mmpretrain"
    helped = run([command, "train", "--help"], away)
    assert helped.returncode == 0 and "  mmpretrain train --nodes 8 --dry-run method=m3col" in helped.stdout
    before = sorted(away.iterdir())
    done = run([command, "train", "--nodes=8", "--gpus-per-node=4", "--dry-run", "method=clip", "data=digits"], away)
    assert done.returncode == 0, done.stderr
    assert "world size 32: 32 ranks (8 nodes x 4 per node)" in done.stdout and "parameters" in done.stdout
    script = done.stdout.split("sbatch script\n")[1].splitlines()
    logs = away / "runs" / "clip-digits" / "logs"
    for line in (
        "#SBATCH --nodes=8",
        f"#SBATCH --output={logs}/%j_0_log.out",
        f"export PYTHONPATH={logs.parent}/code${{PYTHONPATH:+:$PYTHONPATH}}",
    ):
        assert line in script
    assert any(line.startswith(f"MASTER_PORT=$({environment}/bin/python") for line in script)
    assert str(ROOT) not in done.stdout and sorted(away.iterdir()) == before


def test_own_choices_and_profiles(environment: Path, away: Path, tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to(away / "data")
    shipped = next(environment.glob("lib/python*/site-packages/mmpretrain_contrastive/configs"))
    for group in ("data", "model", "slurm"):
        (tmp_path / "configs" / group).mkdir(parents=True)
    for group in ("data", "model"):
        shutil.copy(shipped / group / "digits.yaml", tmp_path / "configs" / group / "mine.yaml")
    (tmp_path / "configs" / "slurm" / "big.yaml").write_text("partition: a100\ngpus_per_node: 8\n")
    train: list[str | Path] = [environment / "bin" / "mmpretrain", "train", "--dry-run", "--nodes=2", "data=mine"]
    for more, folder in (
        (["--cluster=big"], tmp_path),
        (["--cluster=big", "--config-dir", tmp_path / "configs"], away),
    ):
        done = run([*train, *more], folder)
        assert done.returncode == 0, done.stderr
        assert "note: model=mine is " in done.stdout and "note: profile big is " in done.stdout
        assert "#SBATCH --partition=a100" in done.stdout and "#SBATCH --gpus-per-node=8" in done.stdout
    wrong = run([*train[:-1], "data=mien"], tmp_path)
    assert wrong.returncode == 1 and "there are mine in configs/data and brca, connection, digits" in wrong.stderr
    assert f"world in {shipped / 'data'}" in wrong.stderr


def test_a_stranger_of_our_name_comes_first(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "mmpretrain").mkdir()
    (tmp_path / "mmpretrain" / "__init__.py").write_text("raise SystemExit('executed')")
    command: list[str | Path] = [environment / "bin" / "mmpretrain", "--version"]
    done = subprocess.run(
        command, env=CLEAN | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stderr.startswith("error: another package named mmpretrain is found first")
    assert "mmpretrain 0" in run(command, tmp_path).stdout  # the current folder is not searched


def test_a_clone_works_in_the_environment_of_a_wheel(environment: Path, away: Path) -> None:
    """launcher/submit.py takes its own code, and does not call the installed one a stranger."""
    script: list[str | Path] = [environment / "bin" / "python", ROOT / "launcher" / "submit.py"]
    done = run([*script, "--dry-run", "--cluster=local", "method=clip"], away)
    assert done.returncode == 0, done.stderr


def test_a_run_from_the_wheel_stops_resumes_and_releases(environment: Path, away: Path) -> None:
    command = [str(environment / "bin" / "mmpretrain"), *TRAIN, "run.name=whole"]
    folder = RunFolder(away / "runs" / "whole")
    with subprocess.Popen(command, cwd=away, env=CLEAN, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as first:
        deadline = time.monotonic() + 300
        while first.poll() is None and time.monotonic() < deadline and not _steps(folder):
            time.sleep(0.2)
        first.terminate()
        assert first.wait(120) == 75, first.stderr and first.stderr.read()
    seen = _steps(folder)
    assert 0 < len(seen) < 24 and folder.status()["state"] == "preempted"
    assert json.loads(folder.plan.read_text())["command"] == " ".join(["mmpretrain", *command[1:]])
    done = run(command, away)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"resume after step {len(seen)}" in " ".join(done.stdout.split())
    assert _steps(folder) == list(range(1, 25))
    # The job ran from a copy that needs nothing else of the project, with the layout of a clone.
    found = "import launcher.ranks.job, mmpretrain.config.compose as c; print(launcher.ranks.job.__file__, c.CONFIGS)"
    copy = folder.path / "code"
    there = subprocess.run(
        [environment / "bin" / "python", "-c", found],
        env=CLEAN | {"PYTHONPATH": str(copy)},
        cwd="/",
        capture_output=True,
    )
    assert there.stdout.decode().split() == [str(copy / "launcher" / "ranks" / "job.py"), str(copy / "configs")]
    opened = run([environment / "bin" / "python", "-c", OPEN_RELEASE, folder.path / "release"], away)
    assert opened.returncode == 0, opened.stderr


def _steps(folder: RunFolder) -> list[int]:
    """The training steps that a run has logged."""
    return [line["step"] for line in read_lines(folder.metrics) if "loss" in line]
