"""transformers' own tests of its models, of the version installed here, fetched from its published sdist."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import transformers

from tests.models.small import ROOT
from tests.models.tools import fused_model, tool_model

pytestmark = [pytest.mark.slow, pytest.mark.processes, pytest.mark.timeout(1200)]

# Beginning of a test's name -> why it cannot be asked of a model whose parts have names.
SKIPS = {
    "test_determinism": "compares the first output as a tensor: here embeddings stand by modality",
    "test_can_capture_specific_layers_hidden_states": "counts the layers of one backbone, as below",
    "test_hidden_states_output": "counts the layers of one backbone: hidden states stand by modality",
    "test_retain_grad_hidden_states_attentions": "wants hidden states of one backbone: they stand by modality",
    "test_resize_tokens_embeddings": "looks for config.vocab_size: it stands in the text encoder's entry",
}
# What the mixin imports beside its own file, and its sdist lacks: nothing of it is used for models like these.
LACKING = {
    "exporters/test_export.py": "class ExportTesterMixin: pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin: pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
}
# Measured with transformers 5.23.0: 2 models, and the config.
LEAST_PASSED = 130


def pip(folder: Path, *arguments: str) -> None:
    """``pip`` with its files in ``folder``; what cannot be fetched skips the test."""
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.skip(f"cannot fetch transformers' tests: {done.stderr.strip().splitlines()[-1:]}")


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder above transformers' ``tests``."""
    folder = tmp_path_factory.mktemp("sdist")
    version = f"transformers=={transformers.__version__}"
    pip(folder, "download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", "transformers", version)
    pip(folder, "install", "-q", "--no-deps", "--target", str(folder), "parameterized")
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        wanted = [member for member in archive.getmembers() if re.match(r"[^/]+/tests/[^/]+\.py$", member.name)]
        archive.extractall(folder, members=wanted, filter="data")
    shutil.move(next(folder.glob("transformers-*/tests")), folder / "tests")
    (folder / "tests" / "__init__.py").touch()
    for name, text in LACKING.items():
        file = folder / "tests" / name
        file.parent.mkdir(exist_ok=True)
        (file.parent / "__init__.py").touch()
        if not file.exists():
            file.write_text(text)
    return folder


def test_models_pass_what_transformers_asks_of_its_own(sdist: Path) -> None:
    tool_model().config.save_pretrained(sdist / "dual")
    fused_model().config.save_pretrained(sdist / "fusion")
    (sdist / "skips.json").write_text(json.dumps(SKIPS))
    shutil.copy(Path(__file__).with_name("mixin_cases.py"), sdist / "test_mixin.py")
    # tests is transformers' here, so that theirs comes before this project's.
    paths = os.pathsep.join([str(sdist), str(ROOT)])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "test_mixin.py",
            "-p",
            "no:cacheprovider",
            "--disable-warnings",
            "--junitxml=result.xml",
        ],
        cwd=sdist,
        env=os.environ | {"PYTHONPATH": paths, "MIXIN_FOLDER": str(sdist), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=1000,
    )
    cases = list(ElementTree.parse(sdist / "result.xml").getroot().iter("testcase"))
    skipped = [case for case in cases if case.find("skipped") is not None]
    failed = [case.get("name") for case in cases for kind in ("failure", "error") if case.find(kind) is not None]
    passed = len(cases) - len(skipped) - len(failed)
    print(f"transformers' tests of models: {passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    assert not failed, done.stdout[-5000:]
    assert passed >= LEAST_PASSED
