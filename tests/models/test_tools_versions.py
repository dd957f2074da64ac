"""A release opens in clean environments with the oldest transformers that it is said to need, and with the newest."""

from __future__ import annotations

import importlib.metadata
import os
import pickle
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

from mmpretrain.assembly.build import build_processor
from mmpretrain.hub.export import export_release
from mmpretrain.models.configuration_mmpretrain import OLDEST_TRANSFORMERS
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.hub.test_card import facts
from tests.models.small import ROOT, small_config, small_model, small_samples

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(900)]

# What these environments share with this one: what is large, and does not depend on transformers.
SHARED = ("torch", "numpy", "pillow")
OPEN = """
import pickle, sys
import transformers
from transformers import AutoModel, AutoProcessor
folder, samples = sys.argv[1], pickle.load(open(sys.argv[2], "rb"))
model, info = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
assert not any(info.values()), info
output = model.eval()(**AutoProcessor.from_pretrained(folder, trust_remote_code=True)(**samples))
embeds = {name: embed.detach().numpy().tolist() for name, embed in output.embeds.items()}
pickle.dump(embeds, open(sys.argv[3], "wb"))
print("transformers", transformers.__version__)
"""


def linked(folder: Path) -> Path:
    """``folder`` with links to SHARED and what these need, as packages lie there."""
    folder.mkdir()
    waiting, done = list(SHARED), set()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in done:
            continue
        done.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:  # of another system
            continue
        needs = [need for need in distribution.requires or [] if "extra ==" not in need]
        waiting += [re.match(r"[\w.-]+", need).group() for need in needs]  # type: ignore[union-attr]
        for top in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(distribution.locate_file(top))).resolve())
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return linked(tmp_path_factory.mktemp("shared") / "packages")


def environment(folder: Path, shared: Path, wanted: str) -> Path:
    """The interpreter of a new environment with ``wanted``; skips where that cannot be fetched."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    packages = next((folder / "lib").iterdir()) / "site-packages"
    (packages / "shared.pth").write_text(f"{shared}\n")
    done = subprocess.run([python, "-m", "pip", "install", "-q", wanted], capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"cannot fetch {wanted}: {done.stderr.strip().splitlines()[-1:]}")
    return python


def opened(python: Path, folder: Path, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """OPEN in an interpreter that knows nothing of this project."""
    return subprocess.run(
        [python, "-I", "-c", OPEN, *arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules")},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MMPretrainModel]:
    folder = tmp_path_factory.mktemp("run") / "release"
    model = small_model()
    export_release(model, model.state_dict(), build_processor(small_config()), folder, facts())
    (folder.parent / "samples.pkl").write_bytes(pickle.dumps(small_samples()))
    return folder, model


@pytest.mark.parametrize("wanted", [f"transformers=={OLDEST_TRANSFORMERS}", "transformers"], ids=["oldest", "newest"])
def test_it_opens_in_a_clean_environment(
    tmp_path: Path, shared: Path, release: tuple[Path, MMPretrainModel], wanted: str
) -> None:
    folder, model = release
    python = environment(tmp_path / "environment", shared, wanted)
    done = opened(python, tmp_path, folder, folder.parent / "samples.pkl", tmp_path / "embeds.pkl")
    assert done.returncode == 0, done.stderr[-3000:]
    found = pickle.loads((tmp_path / "embeds.pkl").read_bytes())
    for name, embed in model.get_embeds(**build_processor(small_config())(**small_samples())).items():
        torch.testing.assert_close(torch.tensor(found[name]), embed.detach(), rtol=1e-4, atol=1e-5)


def test_an_older_one_is_told_what_is_needed(
    tmp_path: Path, shared: Path, release: tuple[Path, MMPretrainModel]
) -> None:
    python = environment(tmp_path / "environment", shared, "transformers==5.9.0")
    done = opened(python, tmp_path, release[0], release[0].parent / "samples.pkl", tmp_path / "embeds.pkl")
    assert f"this model needs transformers {OLDEST_TRANSFORMERS} or newer, and 5.9.0 is installed" in done.stderr


def test_the_package_asks_for_the_same() -> None:
    assert f'"transformers>={OLDEST_TRANSFORMERS}"' in (ROOT / "pyproject.toml").read_text()
    assert sys.version_info >= (3, 11)
