"""What docs/other-libraries.md shows works, and sentence-transformers gives what a release gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.hub.export import export_release
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.release_folder import NATIVE, verify_release
from tests.data.tones import RATE, tone, tones_config, write_tones
from tests.hub.native_releases import write_native_release
from tests.hub.test_card import facts
from tests.models.fused import Fusing
from tests.models.small import fresh_interpreter, small_config, small_samples
from tests.test_tutorials import blocks_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "other-libraries.md"
DRAWS = np.random.default_rng(5)
ENCODE = """
import json
from PIL import Image
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], trust_remote_code=True, device="cpu")
assert type(model[0].auto_model).__module__.startswith("transformers_modules.")
picture = Image.new("L", (9, 30), 200)
print(json.dumps([model.encode(["a seven", "a"]).tolist(), model.encode([picture]).tolist()]))
"""


def sentences(folder: Path) -> Any:
    """The release as sentence-transformers opens it."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")


def release_of(config: Any, folder: Path) -> MMPretrainModel:
    """A release with random weights; returns its model."""
    torch.manual_seed(0)
    model = build_model(config).eval()
    export_release(model, model.state_dict(), build_processor(config), folder, facts(method=config.method.name))
    return model


def embeds(folder: Path, **samples: Any) -> dict[str, np.ndarray]:
    """What the release gives."""
    model = MMPretrainModel.from_pretrained(folder).eval()
    with torch.no_grad():
        found = model(**MMPretrainProcessor.from_pretrained(folder)(**samples)).embeds
    return {name: rows.numpy() for name, rows in found.items()}


def test_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_native_release(tmp_path / "runs" / "pairs" / "release")
    Image.fromarray(DRAWS.integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "seven.png")
    monkeypatch.chdir(tmp_path)
    ran = [block for block in blocks_of(PAGE.read_text()) if block.language == "python" and block.mark != "not run"]
    for block in ran:
        exec(compile(block.text, str(PAGE), "exec"), {})
    assert len(ran) == 3


@pytest.mark.parametrize("fused", [False, True], ids=["projected", "fused"])
def test_texts_and_images_are_encoded_alike(fused: bool, tmp_path: Path) -> None:
    release_of(small_config(Fusing(), embed_dim=None) if fused else small_config(), tmp_path / "release")
    assert verify_release(tmp_path / "release") == []
    model, samples = sentences(tmp_path / "release"), small_samples()
    right = embeds(tmp_path / "release", picture=samples["picture"], caption=samples["caption"])
    np.testing.assert_allclose(model.encode(samples["caption"]), right["caption"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.encode(samples["picture"]), right["picture"], rtol=1e-5, atol=1e-6)
    similarity = model.similarity(model.encode(samples["picture"]), model.encode(samples["caption"]))
    units = {name: rows / np.linalg.norm(rows, axis=1, keepdims=True) for name, rows in right.items()}
    np.testing.assert_allclose(similarity, units["picture"] @ units["caption"].T, atol=1e-5)
    assert model.get_embedding_dimension() == right["caption"].shape[1]
    with pytest.raises(ValueError, match=r"(?i)audio"):
        model.encode([np.zeros(16_000, np.float32)])


@pytest.mark.parametrize("form", ["clip", "siglip"])
def test_the_copy_in_another_format_encodes_alike(form: str, tmp_path: Path) -> None:
    """Without code of ours; a SigLIP's texts are padded fully, which sentence-transformers does not do by itself."""
    from sentence_transformers import SentenceTransformer

    write_native_release(tmp_path / "release", form)
    model: Any = SentenceTransformer(str(tmp_path / "release" / NATIVE), device="cpu")
    picture = Image.fromarray(DRAWS.integers(0, 256, (8, 8, 3), np.uint8))
    right = embeds(tmp_path / "release", caption=["a seven"], picture=[picture])
    np.testing.assert_allclose(model.encode(["a seven"]), right["caption"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.encode([picture]), right["picture"], rtol=1e-5, atol=1e-6)
    assert model.get_embedding_dimension() == right["caption"].shape[1]


def test_sounds_are_encoded_alike(tmp_path: Path) -> None:
    write_tones(tmp_path / "data", 8)
    release_of(tones_config(tmp_path / "data", "sound", "caption"), tmp_path / "release")
    sounds = [{"array": tone(n), "sampling_rate": RATE} for n in (0, 1)]
    found = sentences(tmp_path / "release").encode(sounds)
    np.testing.assert_allclose(found, embeds(tmp_path / "release", sound=sounds)["sound"], rtol=1e-5, atol=1e-6)


def test_of_two_modalities_of_one_kind_neither_is_encoded(tmp_path: Path) -> None:
    config = small_config()
    config.data.modalities["other"] = config.data.modalities["picture"]
    config.model.encoders["other"] = config.model.encoders["picture"]
    release_of(config, tmp_path / "release")
    model = sentences(tmp_path / "release")
    assert model.encode(["a seven"]).shape == (1, 8)
    with pytest.raises(ValueError, match=r"(?i)image"):
        model.encode([Image.new("L", (4, 8))])


def test_without_a_kind_that_it_knows_there_is_nothing_for_it(tmp_path: Path) -> None:
    config = small_config()
    for name in ("picture", "caption"):
        del config.data.modalities[name], config.model.encoders[name]
    release_of(config, tmp_path / "release")
    assert not (tmp_path / "release" / "modules.json").exists()


@pytest.mark.processes
def test_it_opens_where_this_project_is_unknown(tmp_path: Path) -> None:
    import json

    release_of(small_config(), tmp_path / "release")
    printed = fresh_interpreter(ENCODE, tmp_path, str(tmp_path / "release"), ours=False)
    texts, pictures = json.loads(printed.splitlines()[-1])
    right = embeds(tmp_path / "release", caption=["a seven", "a"], picture=[Image.new("L", (9, 30), 200)])
    np.testing.assert_allclose(texts, right["caption"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(pictures, right["picture"], rtol=1e-4, atol=1e-6)
