"""A release in CLIP's or SigLIP's own format as well: the same embeddings and probabilities, without code of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline

from benchmarks.others import FOLDER, OPEN_CLIP_TRAINING
from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.config.methods.names import SiglipConfig
from mmpretrain.hub import native
from mmpretrain.hub.conversion import convert
from mmpretrain.hub.export import export_release
from mmpretrain.hub.native import native_note
from mmpretrain.methods.base import Shipped
from mmpretrain.methods.shipped_similarity import with_sigmoid
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.release_folder import NATIVE, verify_release
from tests.embedding.spaces import write_siglip
from tests.hub.native_releases import native_config, write_native_release
from tests.hub.test_card import facts
from tests.models.small import fresh_interpreter, small_config

DRAWS = np.random.default_rng(3)
PICTURES = [Image.fromarray(DRAWS.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(2)]
TEXTS = ["a seven", "a bold light digit", "three"]
OPEN_CLIP = """
import json
sys.path[:0] = sys.argv[2:]
import torch
# torchvision's build for another torch lacks its compiled operators, and only asks for their names.
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
import open_clip
from PIL import Image
model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{sys.argv[1]}")
tokenizer = open_clip.get_tokenizer(f"local-dir:{sys.argv[1]}")
model.eval()
picture = Image.new("RGB", (30, 20), (200, 10, 90))
with torch.no_grad():
    images, texts = model.encode_image(prepare(picture)[None]), model.encode_text(tokenizer(["a seven", "three"]))
print(json.dumps([images.tolist(), texts.tolist(), model.logit_scale.item()]))
"""


@pytest.fixture(scope="module", params=["clip", "siglip"])
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A small release of each form, and the form."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    write_native_release(folder, request.param)
    return request.param, folder


def test_embeddings_and_probabilities_are_those_of_the_release(release: tuple[str, Path]) -> None:
    form, folder = release
    assert verify_release(folder) == [] and verify_release(folder / NATIVE) == []
    model = MMPretrainModel.from_pretrained(folder).eval()
    inputs = MMPretrainProcessor.from_pretrained(folder)(picture=PICTURES, caption=TEXTS)
    theirs: Any = AutoModel.from_pretrained(folder / NATIVE, trust_remote_code=False).eval()
    reader: Any = AutoProcessor.from_pretrained(folder / NATIVE, trust_remote_code=False)
    with torch.no_grad():
        ours = model(**inputs)
        found = theirs(**reader(images=PICTURES, text=TEXTS, padding="max_length", return_tensors="pt"))
    for name, rows in (("picture", found.image_embeds), ("caption", found.text_embeds)):
        right = torch.nn.functional.normalize(ours.embeds[name], dim=1)
        torch.testing.assert_close(rows, right, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.logits_per_image, ours.logits_per["picture"]["caption"], rtol=1e-4, atol=1e-5)
    classifier: Any = pipeline("zero-shot-image-classification", model=str(folder / NATIVE))
    if form == "clip":  # SigLIP's texts are padded to 64 tokens there, whatever the model says
        scores = classifier(PICTURES[0], candidate_labels=TEXTS, hypothesis_template="{}")
        right = ours.logits_per["picture"]["caption"][0].softmax(dim=0)
        assert [scores[i]["label"] for i in range(3)] == [TEXTS[i] for i in right.argsort(descending=True)]
        assert [score["score"] for score in scores] == pytest.approx(right.sort(descending=True).values.tolist(), 1e-4)


def test_it_is_converted_although_sentence_transformers_would_open_it(
    release: tuple[str, Path], tmp_path: Path
) -> None:
    again = convert(str(release[1] / "native"), tmp_path / "again", ("image", "text"))
    first = MMPretrainModel.from_pretrained(release[1])
    scales = [model.logit_scale for model in (again, first)]
    assert scales[0] is not None and scales[1] is not None
    assert torch.equal(scales[0].detach().reshape(1), scales[1].detach().reshape(1))


@pytest.mark.processes
def test_open_clip_reads_it(tmp_path: Path) -> None:
    packages = [FOLDER / package for package in OPEN_CLIP_TRAINING]
    if not all(package.exists() for package in packages):
        pytest.skip("open_clip is not in .bench-packages: python -m benchmarks.step_loops installs it there")
    model, _ = write_native_release(tmp_path / "release")
    printed = fresh_interpreter(
        OPEN_CLIP, tmp_path, str(tmp_path / "release" / NATIVE), *map(str, packages), ours=False
    )
    images, texts, scale = json.loads(printed.splitlines()[-1])
    inputs = MMPretrainProcessor.from_pretrained(tmp_path / "release")(
        picture=[Image.new("RGB", (30, 20), (200, 10, 90))], caption=["a seven", "three"]
    )
    with torch.no_grad():
        right = model(**inputs).embeds
    np.testing.assert_allclose(images, right["picture"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(texts, right["caption"], rtol=1e-4, atol=1e-5)
    assert model.logit_scale is not None and scale == pytest.approx(model.logit_scale.item())


@pytest.mark.parametrize(
    ("form", "change", "words"),
    [
        ("clip", lambda c: c.encoders["picture"].update(pool="cls"), "model.encoders.picture.pool is cls: set pooler"),
        ("clip", lambda c: setattr(c, "embed_dim", None), "projects both encoders linearly: set model.embed_dim"),
        ("siglip", lambda c: setattr(c, "embed_dim", 12), "has no projections: set model.embed_dim=null"),
        ("siglip", lambda c: c.encoders["caption"].update(masked=True), "not told which tokens are padding"),
        ("clip", lambda c: c.encoders.pop("caption"), "the encoders are picture (clip_vision_model)"),
    ],
    ids=["pool", "unprojected", "projected", "masked", "alone"],
)
def test_a_plan_says_what_stands_against_it(form: str, change: Callable[[Any], object], words: str) -> None:
    config = build_model(native_config(form)).config
    change(config)
    note = native_note(config)
    assert note is not None and words in note and "cannot be written in" in note


def test_a_release_of_other_encoders_has_no_such_note() -> None:
    assert native_note(build_model(small_config()).config) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": 1}, "set data.modalities.picture.channels=3"),
        ({"resize": "pad"}, "set data.modalities.picture.resize=crop"),
    ],
    ids=["grey", "padded"],
)
def test_an_export_says_what_stands_against_it(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    config = native_config()
    for key, value in change.items():
        setattr(config.data.modalities["picture"], key, value)
    _, notes = write_native_release(tmp_path / "release", config=config)
    assert len(notes) == 1 and words in notes[0]
    assert not (tmp_path / "release" / NATIVE).exists() and verify_release(tmp_path / "release") == []


def test_a_method_without_a_scale_of_this_form_is_named(tmp_path: Path) -> None:
    """SigLIP's bias has no place in CLIP's format, and probabilities would be others."""
    config = native_config()
    config.method = SiglipConfig()
    model = build_model(config).eval()
    shipped = Shipped(model, model.state_dict(), build_processor(config))
    shipped = with_sigmoid(shipped, torch.tensor([2.0]), torch.tensor([-3.0]))
    notes = export_release(shipped.model, shipped.state, shipped.processor, tmp_path / "release", facts())
    assert notes == ["CLIP gives softmax logits, and method=siglip learns no scale of these (CLIP's own format)"]


def test_embeddings_that_come_out_differently_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing half right stays."""
    monkeypatch.setattr(native, "CLOSE", -1.0)
    _, notes = write_native_release(tmp_path / "release")
    assert notes == ["its texts come out differently in CLIP's own format"]
    assert not (tmp_path / "release" / NATIVE).exists()


def test_a_converted_model_keeps_its_scale_and_bias(tmp_path: Path) -> None:
    """Out of transformers, and back into it: the same numbers."""
    original = write_siglip(tmp_path / "siglip").eval()
    model = convert(str(tmp_path / "siglip"), tmp_path / "release", None)
    assert not (tmp_path / "release" / NATIVE).exists()
    processor = MMPretrainProcessor.from_pretrained(tmp_path / "release")
    export_release(model, model.state_dict(), processor, tmp_path / "release", facts())
    back: Any = AutoModel.from_pretrained(tmp_path / "release" / NATIVE, trust_remote_code=False)
    assert type(back) is type(original)
    for name, tensor in original.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


def test_a_plan_says_that_it_is_written() -> None:
    note = native_note(build_model(native_config()).config)
    assert note is not None and "is written in CLIP's own format too" in note


def test_a_release_that_misses_the_whole_folder_is_whole(tmp_path: Path) -> None:
    """Readers leave it out: nothing of the release is opened from there."""
    write_native_release(tmp_path / "release")
    (tmp_path / "release" / NATIVE / "config.json").unlink()
    assert len(verify_release(tmp_path / "release")) == 1
    for path in (tmp_path / "release" / NATIVE).iterdir():
        path.unlink()
    (tmp_path / "release" / NATIVE).rmdir()
    assert verify_release(tmp_path / "release") == []
