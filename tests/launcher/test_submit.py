"""The launcher's command line, as a script on a bare copy of the project, from another directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launcher.toy import ROOT

pytestmark = pytest.mark.processes

# Only what may be there on a fresh machine: no PYTHONPATH, no Slurm, no GPU.
CLEAN = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "SLURM_CONF")}
CLEAN["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="module")
def bare_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files alone, not installed."""
    folder = tmp_path_factory.mktemp("clone")
    for part in ("launcher", "mmpretrain", "configs", "slurm"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def submit(clone: Path, cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run launcher/submit.py of ``clone`` in ``cwd``."""
    command = [sys.executable, str(clone / "launcher" / "submit.py"), *arguments]
    return subprocess.run(command, cwd=cwd, env=CLEAN | environment, capture_output=True, text=True, timeout=240)


def test_a_dry_run_shows_plan_and_script_and_writes_nothing(bare_clone: Path, tmp_path: Path) -> None:
    done = submit(
        bare_clone,
        tmp_path,
        "--nodes",
        "8",
        "--gpus-per-node",
        "2",
        "--dry-run",
        "method=m3col",
        "engine.micro_batches=2",
    )
    assert done.returncode == 0, done.stderr
    assert "world size 16: 16 ranks (8 nodes x 2 per node)" in done.stdout
    assert "global batch 128, local batch 8 in 2 micro-batches" in done.stdout
    assert "ZeRO stage 1, float32" in done.stdout
    assert "782 steps, 100096 samples" in done.stdout
    assert "note: data/digits is not built: run `mmpretrain shards build digits`" in done.stdout
    assert "parameters" in done.stdout, "the model was checked"
    script = done.stdout.split("sbatch script\n")[1]
    logs = tmp_path / "runs" / "m3col-digits" / "logs"
    for line in (
        "#SBATCH --nodes=8",
        "#SBATCH --ntasks-per-node=2",
        "#SBATCH --signal=USR2@120",
        "#SBATCH --requeue",
        f"#SBATCH --output={logs}/%j_0_log.out",
        f"export PYTHONPATH={logs.parent}/code${{PYTHONPATH:+:$PYTHONPATH}}",
    ):
        assert line in script.splitlines()
    assert "--kill-on-bad-exit=1" in script and "gpus" not in script
    assert list(tmp_path.iterdir()) == []


def test_all_problems_at_once_without_a_traceback(bare_clone: Path, tmp_path: Path) -> None:
    arguments = ("--nodes", "0", "--gpus-per-node", "-1", "--cluster", "defualt")
    done = submit(bare_clone, tmp_path, *arguments, "method=m4col", "optim.learning_rate=1", "train.samples=many")
    assert done.returncode == 1 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.startswith("error: ") for line in lines) and len(lines) == 6
    for text in (
        "method=m4col: no such choice (did you mean m3col?)",
        "optim.learning_rate: unknown key",
        "train.samples=many",
        "--nodes 0",
        "--gpus-per-node -1",
        "--cluster defualt",
    ):
        assert any(text in line for line in lines), text
    assert list(tmp_path.iterdir()) == []


def test_missing_data_and_a_batch_that_does_not_divide(bare_clone: Path, tmp_path: Path) -> None:
    done = submit(bare_clone, tmp_path, "--cluster=local", "--gpus-per-node=3", "method=clip")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "data.path=data/digits: there are no shards; run `mmpretrain shards build digits`" in done.stderr
    assert "batch sizes that can are 126 and 129, the nearest numbers of ranks 2 and 4" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_slurm_asked_for_and_not_there(bare_clone: Path, tmp_path: Path) -> None:
    done = submit(bare_clone, tmp_path, "--cluster=slurm", "method=clip", SLURM_CONF="/nonexistent")
    assert done.returncode == 1 and "--cluster slurm: no Slurm answers here" in done.stderr


def test_another_package_with_our_name(bare_clone: Path, tmp_path: Path) -> None:
    other = tmp_path / "site" / "mmpretrain"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise RuntimeError('imported')\n")
    done = submit(bare_clone, tmp_path, "--dry-run", PYTHONPATH=str(other.parent))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"another package named mmpretrain is found first: {other}" in done.stderr


@pytest.mark.parametrize("package", ["typer", "omegaconf", "submitit"])
def test_a_missing_dependency_is_one_line(bare_clone: Path, tmp_path: Path, package: str) -> None:
    """An interpreter in which the import of one dependency fails as it does when it is not installed."""
    program = (
        "import sys, runpy\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {package!r}: raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.argv = ['submit.py', '--dry-run']\n"
        f"runpy.run_path({str(bare_clone / 'launcher' / 'submit.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=CLEAN, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == f"error: {package} is not installed: run `make install` and use .venv/bin/python\n"


def test_torch_is_only_imported_by_the_process_that_checks_the_model(bare_clone: Path, tmp_path: Path) -> None:
    program = (
        "import sys, runpy\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'transformers', 'deepspeed'): raise AssertionError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "sys.argv = ['submit.py', '--dry-run', '--nodes=2', 'method=m3col']\n"
        f"runpy.run_path({str(bare_clone / 'launcher' / 'submit.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=CLEAN, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "parameters" in done.stdout


def test_help_has_examples(bare_clone: Path, tmp_path: Path) -> None:
    done = submit(bare_clone, tmp_path, "--help")
    assert done.returncode == 0 and "Examples:" in done.stdout
    for option in ("--nodes", "--gpus-per-node", "--cluster", "--dry-run", "--follow", "--config", "--config-dir"):
        assert option in done.stdout


def test_a_run_folder_with_another_config_is_refused(bare_clone: Path, tmp_path: Path) -> None:
    from mmpretrain.config.compose import compose, save_config

    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    save_config(compose(["method=clip", "run.name=mine", "seed=3"]), folder / "config.yaml")
    (folder / "plan.json").write_text(json.dumps({"world_size": 2}))
    (folder / "checkpoints" / "step-00000001").mkdir(parents=True)
    done = submit(bare_clone, tmp_path, "--dry-run", "method=clip", "run.name=mine", "optim.lr=0.1")
    assert done.returncode == 1
    assert "was started with another config (optim.lr: 0.001 -> 0.1; seed: 3 -> 0)" in done.stderr


def test_another_checkout_may_be_installed(bare_clone: Path, tmp_path: Path) -> None:
    """The interpreter finds another checkout first, and this one's code is used."""
    other = tmp_path / "other"
    for part in ("launcher", "mmpretrain"):
        (other / part).mkdir(parents=True)
        (other / part / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (other / "launcher" / "submit.py").write_text("")
    done = submit(bare_clone, other, "--dry-run", "--cluster=local", "method=clip", PYTHONPATH=str(other))
    assert done.returncode == 0, done.stderr


def test_own_choices_and_profiles_are_found_in_the_current_folder(bare_clone: Path, tmp_path: Path) -> None:
    """`./configs` without being asked for, another folder by --config-dir; the data's model comes along."""
    for group in ("data", "model"):
        (tmp_path / "configs" / group).mkdir(parents=True)
        shutil.copy(bare_clone / "configs" / group / "digits.yaml", tmp_path / "configs" / group / "mine.yaml")
    (tmp_path / "configs" / "slurm").mkdir()
    (tmp_path / "configs" / "slurm" / "default.yaml").write_text("partition: a100\ngpus_per_node: 4\n")
    done = submit(bare_clone, tmp_path, "--dry-run", "--nodes=2", "data=mine", "run.name=own")
    assert done.returncode == 0, done.stderr
    assert "world size 8" in done.stdout and "#SBATCH --partition=a100" in done.stdout
    assert "note: data=mine is configs/data/mine.yaml\nnote: model=mine is configs/model/mine.yaml\n" in done.stdout
    assert "note: profile default is configs/slurm/default.yaml, which hides the default of mmpretrain" in done.stdout
    elsewhere = ("--cluster=defualt", "data=mien", "model=digits", f"--config-dir={tmp_path / 'configs'}")
    wrong = submit(bare_clone, bare_clone, "--dry-run", *elsewhere).stderr
    assert (
        f"no such profile (did you mean default?); use auto, local, slurm or a profile: default in {tmp_path}" in wrong
    )
    assert f"(did you mean mine?); there are mine in {tmp_path / 'configs' / 'data'} and brca" in wrong
    nowhere = submit(bare_clone, tmp_path, "--config-dir=nowhere")
    assert nowhere.returncode == 2 and "nowhere" in nowhere.stderr
