"""Models of sentence-transformers embed what ``encode`` embeds, and bring no code and no pickles."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmpretrain.embedding.spaces import open_space
from mmpretrain.problems import UnusableError
from tests.embedding.spaces import write_clip

sentence_transformers = pytest.importorskip("sentence_transformers")
SETTINGS = "config_sentence_transformers.json"
CPU = torch.device("cpu")
TEXTS = ["a bold seven", "light", "three digit three digit"]


@pytest.fixture(scope="module")
def folder(spaces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``text``: BERT, its last states' mean, and a default prompt. ``both``: CLIP."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    root = tmp_path_factory.mktemp("houses")
    encoder = Transformer(str(spaces / "bert"))
    modules = [encoder, Pooling(encoder.get_word_embedding_dimension())]
    text = SentenceTransformer(modules=modules, device="cpu", prompts={"bold": "bold "}, default_prompt_name="bold")
    text.save(str(root / "text"))
    write_clip(root / "clip")
    SentenceTransformer(modules=[Transformer(str(root / "clip"))], device="cpu").save(str(root / "both"))
    return root


def encoded(folder: Path, items: list[Any]) -> torch.Tensor:
    """What sentence-transformers' own users get."""
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(items, convert_to_tensor=True)


def test_texts_with_the_default_prompt(folder: Path) -> None:
    space = open_space(str(folder / "text"), CPU)
    assert list(space.towers) == ["text"] and space.choices == {"prompt": "bold "}
    torch.testing.assert_close(space.features("text", space.tensors("text", TEXTS)), encoded(folder / "text", TEXTS))


@pytest.mark.parametrize(("pooled", "width"), [(False, None), (True, 6), (False, 6)])
def test_a_prompt_that_is_not_pooled_and_a_width_that_is_cut_to(
    folder: Path, tmp_path: Path, pooled: bool, width: int | None
) -> None:
    copied = Path(shutil.copytree(folder / "text", tmp_path / "text"))
    for file, key, value in (("1_Pooling/config.json", "include_prompt", pooled), (SETTINGS, "truncate_dim", width)):
        content = json.loads((copied / file).read_text())
        (copied / file).write_text(json.dumps(content | {key: value}))
    expected = encoded(copied, TEXTS)
    assert expected.shape[1] == (width or 16)
    space = open_space(str(copied), CPU)
    torch.testing.assert_close(space.features("text", space.tensors("text", TEXTS)), expected)


def test_images_of_a_model_that_reads_them(folder: Path) -> None:
    space = open_space(str(folder / "both"), CPU)
    assert list(space.towers) == ["text", "image"]
    torch.testing.assert_close(space.features("text", space.tensors("text", TEXTS)), encoded(folder / "both", TEXTS))
    pictures = [Image.new("RGB", (8, 8), color) for color in ("red", "navy")]
    found = space.features("image", space.tensors("image", pictures))
    torch.testing.assert_close(found, encoded(folder / "both", pictures))


def test_a_way_to_pool_takes_the_encoder_alone(folder: Path) -> None:
    assert open_space(str(folder / "text"), CPU, pool="cls").choices == {"pool": "cls"}


def test_without_the_package_the_fix_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UnusableError, match=r"pip install sentence-transformers, or .* --pool mean"):
        open_space(str(folder / "text"), CPU)


@pytest.mark.parametrize("place", ["modules.json", "router_config.json"])
def test_code_of_the_folder_is_never_run(folder: Path, tmp_path: Path, place: str) -> None:
    strange = Path(shutil.copytree(folder / "text", tmp_path / "strange"))
    (strange / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    modules = json.loads((strange / "modules.json").read_text())
    if place == "modules.json":
        modules[1]["type"] = "evil.Module"
        (strange / place).write_text(json.dumps(modules))
    else:
        (strange / "1_Pooling" / place).write_text(json.dumps({"types": {"first": "evil.Module"}}))
    with pytest.raises(UnusableError, match=r"needs the class evil\.Module"):
        open_space(str(strange), CPU)
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_of_a_module_are_refused(folder: Path, tmp_path: Path) -> None:
    strange = Path(shutil.copytree(folder / "text", tmp_path / "strange"))
    (strange / "1_Pooling" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnusableError, match=r"pytorch_model.bin is no safetensors file"):
        open_space(str(strange), CPU)
    damaged = Path(shutil.copytree(folder / "text", tmp_path / "damaged"))
    (damaged / "modules.json").write_text("[{}]")
    with pytest.raises(UnusableError, match="damaged module files"):
        open_space(str(damaged), CPU)
