"""Another package named mmpretrain is noticed before anything of it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

import launcher.guard

ROOT = Path(launcher.guard.__file__).parent.parent
PROGRAM = "from launcher.mmpretrain_command import main; import sys; sys.argv[1:] = ['--version']; main()"


def start(*path: Path) -> subprocess.CompletedProcess[str]:
    """The command line with these folders on PYTHONPATH, started from a place without packages."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd="/", env=environment)


@pytest.mark.processes
@pytest.mark.parametrize("layout", ["package", "module"])
def test_another_package_in_the_way(tmp_path: Path, layout: str) -> None:
    """One line with its path and the fix, exit code 2; its code does not run."""
    if layout == "module":
        (tmp_path / "mmpretrain.py").write_text("raise SystemExit('executed')")
    else:
        (tmp_path / "mmpretrain").mkdir()
        (tmp_path / "mmpretrain" / "__init__.py").write_text("raise SystemExit('executed')")
    run = start(tmp_path, ROOT)
    assert run.returncode == 2 and run.stdout == "" and run.stderr.count("\n") == 1
    assert str(tmp_path / "mmpretrain") in run.stderr and "pip uninstall mmpretrain" in run.stderr


@pytest.mark.processes
def test_own_package_passes(tmp_path: Path) -> None:
    """Ours is found through a link too, in front of another one, and beside a plain folder of the name."""
    (tmp_path / "mmpretrain").mkdir()
    link = tmp_path / "link"
    link.symlink_to(ROOT)
    for path in ([ROOT], [ROOT, tmp_path], [tmp_path, ROOT], [link]):
        run = start(*path)
        assert run.returncode == 0 and run.stdout.startswith("mmpretrain "), run.stderr


def test_not_importable_at_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without our folder on the path the message says what to add."""
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "meta_path", [PathFinder])  # an editable install brings a finder of its own
    monkeypatch.delitem(sys.modules, "mmpretrain", raising=False)
    with pytest.raises(SystemExit) as caught:
        launcher.guard.require_own_package()
    assert caught.value.code == 2 and str(ROOT) in capsys.readouterr().err


@pytest.mark.processes
def test_another_package_was_installed_over_ours(tmp_path: Path) -> None:
    """pip lays both into one folder, and the later one's files stay."""
    for part in ("launcher", "mmpretrain", "shards"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    assert start(tmp_path).returncode == 0
    (tmp_path / "mmpretrain" / "__init__.py").write_text("raise SystemExit('executed')")
    run = start(tmp_path)
    assert run.returncode == 2 and run.stdout == "" and run.stderr.count("\n") == 1
    assert f"installed over this project's in {tmp_path / 'mmpretrain'}" in run.stderr


@pytest.mark.processes
def test_strangers_of_the_names_launcher_and_shards(tmp_path: Path) -> None:
    """They may come first on the path: our own are taken, as a wheel installs them."""
    home = tmp_path / "site" / "mmpretrain_contrastive"
    shutil.copytree(ROOT / "mmpretrain", tmp_path / "site" / "mmpretrain")
    for part in ("launcher", "shards", "configs", "slurm"):
        shutil.copytree(ROOT / part, home / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("launcher", "shards"):
        (tmp_path / "strange" / name).mkdir(parents=True)
        (tmp_path / "strange" / name / "__init__.py").write_text("raise SystemExit('executed')")
    program = PROGRAM.replace("from launcher", "from mmpretrain_contrastive.launcher")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "strange"), str(home.parent)])}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/", env=environment)
    assert run.returncode == 0 and run.stdout.startswith("mmpretrain "), run.stderr


def test_a_clone_in_an_environment_with_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """launcher/submit.py, which takes its own code, does not call the installed package a stranger."""
    (tmp_path / "mmpretrain").mkdir()
    (tmp_path / "mmpretrain" / "__init__.py").write_text("raise SystemExit('executed')")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [PathFinder])
    monkeypatch.delitem(sys.modules, "mmpretrain", raising=False)
    with pytest.raises(SystemExit):
        launcher.guard.require_this_project()
    (tmp_path / "mmpretrain_contrastive" / "launcher").mkdir(parents=True)
    (tmp_path / "mmpretrain_contrastive" / "launcher" / "submit.py").write_text("")
    launcher.guard.require_this_project()
