"""Releases in one process: each runs the code of its own folder, whatever the folders are called."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest

from mmpretrain.assembly.build import build_processor
from mmpretrain.hub.export import export_release
from mmpretrain.models import configuration_mmpretrain
from tests.hub.test_card import facts
from tests.models.small import fresh_interpreter, small_config, small_model, small_samples

OPEN_ALL = """
import json, pickle
from transformers import AutoModel, AutoProcessor
samples = pickle.load(open(sys.argv[1], "rb"))
opened = []
for folder in sys.argv[2:]:
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    opened.append((model, AutoProcessor.from_pretrained(folder, trust_remote_code=True)))
# Asked after all of them are open: none may have changed another.
embeds = [model(**processor(**samples)).embeds["genes"] for model, processor in opened]
again = AutoModel.from_pretrained(sys.argv[2], trust_remote_code=True)
assert type(again) is type(opened[0][0]), "the same folder is the same code"
print(json.dumps([round(float((embed / embeds[0]).mean()), 3) for embed in embeds]))
"""


def edited(release: Path, folder: Path, name: str, old: str, new: str) -> Path:
    """A copy of ``release`` in which ``old`` in the file ``name`` is ``new``."""
    shutil.copytree(release, folder)
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    return folder


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first") / "release"
    model = small_model()
    export_release(model, model.state_dict(), build_processor(small_config()), folder, facts())
    return folder


def test_config_names_every_file_of_the_code(release: Path) -> None:
    folder = Path(configuration_mmpretrain.__file__).parent
    named = set(re.findall(r"^    import \.(\w+)$", str(configuration_mmpretrain.__doc__), flags=re.MULTILINE))
    assert named == {path.stem for path in folder.glob("*_mmpretrain.py")} - {"configuration_mmpretrain"}
    assert {path.stem for path in release.glob("*.py")} == named | {"configuration_mmpretrain"}


@pytest.mark.processes
def test_releases_of_one_name_run_their_own_code(tmp_path: Path, release: Path) -> None:
    below = ("heads_mmpretrain.py", "return self.output(x)", "return self.output(2 * x)")
    model = (
        "modeling_mmpretrain.py",
        "output = MMPretrainOutput(",
        "embeds = {n: 3 * e for n, e in embeds.items()}\n        output = MMPretrainOutput(",
    )
    # Releases of 0.1 do not name their files there.
    older = ("configuration_mmpretrain.py", "    import .", "    file: ")
    folders = [
        release,
        *(edited(release, tmp_path / str(i) / "release", *change) for i, change in enumerate([below, model, older])),
    ]
    (tmp_path / "samples.pkl").write_bytes(pickle.dumps({"genes": small_samples()["genes"]}))
    printed = fresh_interpreter(OPEN_ALL, tmp_path, str(tmp_path / "samples.pkl"), *map(str, folders), ours=False)
    assert json.loads(printed) == [1.0, 2.0, 3.0, 1.0]
