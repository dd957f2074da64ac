"""A release folder: opens anywhere with the same outputs, is checked by its checksums, and replaces an older one."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpretrain.assembly.build import build_processor
from mmpretrain.hub.export import export_release
from mmpretrain.models import modeling_mmpretrain
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.release_folder import verify_release
from tests.hub.test_card import facts
from tests.models.small import fresh_interpreter, small_config, small_model, small_samples

COMPARE = """
import pickle
import torch
from transformers import AutoModel, AutoProcessor
samples, logits, embeds = pickle.load(open(sys.argv[2], "rb"))
model, info = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True, output_loading_info=True)
assert not any(info.values()), info
output = model(**AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)(**samples))
assert torch.equal(output.logits, logits)
assert all(torch.equal(output.embeds[name], embed) for name, embed in embeds.items())
assert type(model).__module__.startswith("transformers_modules.")
"""


def make_release(folder: Path, seed: int = 0, **options: Any) -> MMPretrainModel:
    """Export the small model with the weights of ``seed``."""
    model = small_model(seed=seed)
    export_release(model, model.state_dict(), build_processor(small_config()), folder, facts(), **options)
    return model


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One release that the tests below only read or copy."""
    folder = tmp_path_factory.mktemp("runs") / "release"
    make_release(folder)
    return folder


@pytest.mark.processes
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "8KB"}], ids=["one file", "sharded"])
def test_release_opens_where_this_package_is_absent(tmp_path: Path, options: dict[str, Any]) -> None:
    model = make_release(tmp_path / "release", **options)
    assert (tmp_path / "release" / "model.safetensors.index.json").exists() == bool(options)
    with torch.no_grad():
        output = model(**build_processor(small_config())(**small_samples()))
    expected = tmp_path / "expected.pkl"
    expected.write_bytes(pickle.dumps((small_samples(), output.logits, output.embeds)))
    fresh_interpreter(COMPARE, tmp_path, str(tmp_path / "release"), str(expected), ours=False)


@pytest.mark.processes
def test_code_of_the_card_works_inside_the_release(tmp_path: Path, release: Path) -> None:
    code = (release / "README.md").read_text().split("```python\n")[1].split("```")[0]
    code = f"import os\nos.chdir({str(release)!r})\n{code}\nprint(sorted(output.embeds), tuple(output.logits.shape))"
    assert fresh_interpreter(code, tmp_path, ours=False).strip() == "['caption', 'genes', 'picture'] (1, 3)"


def test_everything_is_there_and_nothing_of_this_machine(release: Path) -> None:
    names = {path.relative_to(release).as_posix() for path in release.rglob("*") if path.is_file()}
    code = {path.name for path in Path(modeling_mmpretrain.__file__).parent.glob("*_mmpretrain.py")}
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    others = {"config.json", "model.safetensors", "processor_config.json", "README.md", "SHA256SUMS"}
    others |= {"modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"}
    assert names == code | tokenizer | others
    assert set(json.loads((release / "config.json").read_text())["auto_map"]) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForZeroShotImageClassification",
    }
    for name in names - {"model.safetensors"}:
        text = (release / name).read_text()
        assert "/tmp" not in text and str(Path.home()) + "/" not in text and "from mmpretrain" not in text, name


def test_saved_again_it_still_holds_its_code(tmp_path: Path, release: Path) -> None:
    MMPretrainModel.from_pretrained(release).save_pretrained(tmp_path)
    assert (tmp_path / "encoders_mmpretrain.py").exists()


@pytest.mark.processes
def test_checksums_are_those_of_sha256sum(release: Path) -> None:
    assert verify_release(release) == []
    result = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=release, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.count(": OK") == len(list(release.rglob("*.*")))


def test_tampering_is_found(tmp_path: Path, release: Path) -> None:
    folder = tmp_path / "release"
    shutil.copytree(release, folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    (folder / "README.md").unlink()
    (folder / "extra.py").write_text("")
    problems = verify_release(folder)
    assert len(problems) == 3
    assert any("model.safetensors has changed" in problem for problem in problems)
    assert any("README.md is missing" in problem for problem in problems)
    assert any("extra.py is not listed" in problem for problem in problems)
    (folder / "SHA256SUMS").unlink()
    assert "SHA256SUMS is missing" in verify_release(folder)[0]


def test_newer_release_replaces_the_older_one(tmp_path: Path) -> None:
    folder = tmp_path / "release"
    make_release(folder, seed=0, max_shard_size="8KB")
    (tmp_path / "release.tmp").mkdir()
    newer = make_release(folder, seed=1)
    assert verify_release(folder) == [] and [path.name for path in tmp_path.iterdir()] == ["release"]
    again = MMPretrainModel.from_pretrained(folder)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), newer.parameters(), strict=True))


def test_failed_export_leaves_the_older_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "release"
    make_release(folder)
    before = (folder / "SHA256SUMS").read_text()
    processor = build_processor(small_config())
    processor.modalities["genes"]["size"] = [object()]
    model = small_model(seed=1)
    with pytest.raises(TypeError):
        export_release(model, model.state_dict(), processor, folder, facts())
    assert verify_release(folder) == [] and (folder / "SHA256SUMS").read_text() == before


def test_release_interrupted_between_its_two_renames_is_put_back(tmp_path: Path) -> None:
    folder = tmp_path / "release"
    make_release(folder)
    folder.rename(tmp_path / "release.old")
    with pytest.raises(ValueError, match="do not belong"):
        export_release(small_model(), {}, build_processor(small_config()), folder, facts())
    make_release(folder, seed=1)
    assert verify_release(folder) == [] and not (tmp_path / "release.old").exists()


def test_incomplete_weights_are_refused(tmp_path: Path) -> None:
    model = small_model()
    state = model.state_dict()
    state["stranger"] = state.pop("classifier.output.bias")
    with pytest.raises(ValueError, match=r"1 tensors are missing \['classifier.output.bias'\]"):
        export_release(model, state, build_processor(small_config()), tmp_path / "release", facts())
    assert not (tmp_path / "release").exists()
