"""A CLIP of transformers as a release: the same embeddings, wherever releases are taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from typer.testing import CliRunner

from mmpretrain.assembly.build import build_model, build_processor, build_unaugmented_processor
from mmpretrain.cli import app
from mmpretrain.config.methods.names import ClipConfig
from mmpretrain.config.model import ConnectedSpace, EncoderConfig
from mmpretrain.embedding.spaces import open_space
from mmpretrain.hub.conversion import convert
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import verify_release
from tests.embedding.spaces import write_bert, write_clap, write_clip
from tests.methods.test_cmcr_release import WIDTHS, connection, ship, space
from tests.models.small import fresh_interpreter, small_config

CPU = torch.device("cpu")
NAMES = ("picture", "caption")
SAMPLES: dict[str, list[Any]] = {
    "image": [
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (31, 20 + 9 * n, 3), np.uint8)) for n in (0, 3)
    ],
    "text": ["a seven", "a bold light digit digit digit digit digit digit digit three"],
}


@pytest.fixture(params=["cropped", "squeezed"])
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A CLIP whose image processor crops the center, as OpenAI's does, or resizes to a square."""
    write_clip(tmp_path / "clip")
    if request.param == "cropped":
        CLIPImageProcessorPil(size={"shortest_edge": 10}, crop_size={"height": 8, "width": 8}).save_pretrained(
            tmp_path / "clip"
        )
    return tmp_path / "clip"


def assert_same_picture(found: torch.Tensor, right: torch.Tensor) -> None:
    """Embeddings of pictures that two libraries have resized: of 255 levels, pixels are off by 1 or 2."""
    assert ((found - right).norm(dim=1) <= 0.02 * right.norm(dim=1)).all()


def fitting(clip: Path) -> dict[str, list[Any]]:
    """The samples, with pictures that need no resizing."""
    side = 10 if "shortest_edge" in CLIPImageProcessorPil.from_pretrained(clip).size else 8
    draws = [np.random.default_rng(n).integers(0, 256, (side, side, 3), np.uint8) for n in (0, 3)]
    return SAMPLES | {"image": [Image.fromarray(pixels) for pixels in draws]}


def embeddings(release: Path, samples: dict[str, list[Any]] = SAMPLES) -> dict[str, torch.Tensor]:
    """Of the samples, by tower, in the order image, text."""
    opened = open_space(str(release), CPU)
    towers = zip(opened.towers, samples.values(), strict=True)
    return {tower: opened.features(tower, opened.tensors(tower, items)) for tower, items in towers}


def test_embeddings_stay_what_they_were(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "release"
    arguments = ["convert", str(clip), "--out", str(out), "--names", ",".join(NAMES), "--license", "mit", "--json"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout) == {"path": str(out), "modalities": list(NAMES), "embed_dim": 12}
    assert verify_release(out) == []
    before, after = embeddings(clip), embeddings(out)
    assert list(after) == list(NAMES)
    assert_same_picture(after["picture"], before["image"])
    exact = embeddings(clip, fitting(clip)), embeddings(out, fitting(clip))
    for right, found in zip(*(both.values() for both in exact), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)
    card = (out / "README.md").read_text()
    assert "license: mit" in card and "The encoders of clip in the form of mmpretrain" in card
    assert str(tmp_path) not in card and "base_model" not in card  # a folder of ours means nothing to others
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 1 and "exists: remove it" in again.stdout


@pytest.mark.processes
def test_it_opens_where_this_project_is_unknown(clip: Path, tmp_path: Path) -> None:
    convert(str(clip), tmp_path / "release", ("image", "text"))
    code = """
import json
from PIL import Image
from transformers import AutoModel, AutoProcessor
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
embeds = model(**processor(image=[Image.new("RGB", (9, 30), (200, 10, 90))], text=["a seven"])).embeds
print(json.dumps({name: rows[0].tolist() for name, rows in embeds.items()}))
"""
    found = json.loads(fresh_interpreter(code, tmp_path, str(tmp_path / "release"), ours=False).splitlines()[-1])
    original = open_space(str(clip), CPU)
    image = original.tensors("image", [Image.new("RGB", (9, 30), (200, 10, 90))])
    assert found["image"] == pytest.approx(original.features("image", image)[0].tolist(), abs=1e-5)
    assert found["text"] == pytest.approx(
        original.features("text", original.tensors("text", ["a seven"]))[0].tolist(), abs=1e-5
    )


def test_it_can_be_a_space_of_a_connection(clip: Path, tmp_path: Path) -> None:
    """What C-MCR needs of CLIP: the connection's release takes images."""
    convert(str(clip), tmp_path / "first", NAMES)
    second = space(tmp_path / "second", ("caption", "genes"), WIDTHS[ConnectedSpace.second], 1)
    config = connection(first=str(tmp_path / "first"), second=str(second))
    for role in ("shared", "partner"):
        config.data.modalities[f"first_{role}"].size = [12]
    ship(config, tmp_path / "release")
    model = MMPretrainModel.from_pretrained(tmp_path / "release").eval()
    assert model.config.modalities == ["picture", "caption", "genes"]
    opened = open_space(str(tmp_path / "release"), CPU)
    samples = fitting(clip)
    found = opened.features("picture", opened.tensors("picture", samples["image"]))
    assert model.connection is not None
    inner = torch.nn.functional.normalize(embeddings(clip, samples)["image"], dim=1)
    with torch.no_grad():
        torch.testing.assert_close(found, model.connection.projectors["first"](inner), rtol=1e-5, atol=1e-6)


def test_encoders_can_start_from_it(clip: Path, tmp_path: Path) -> None:
    """A run takes its towers, projections and preprocessing; images of augmentations show the same, only larger."""
    release = tmp_path / "release"
    convert(str(clip), release, ("image", "text"))
    config = small_config(ClipConfig(), embed_dim=12)
    del config.data.modalities["genes"], config.model.encoders["genes"]
    picture = config.data.modalities["picture"]
    picture.size, picture.channels, picture.load_size = [8, 8], 3, [16, 16]
    config.data.modalities["caption"].max_length = 10
    for name, part in zip(NAMES, ("image", "text"), strict=True):
        config.model.encoders[name] = EncoderConfig(pretrained=str(release), part=part, freeze=True)
    processor = build_processor(config)
    inputs = processor(picture=SAMPLES["image"], caption=SAMPLES["text"])
    with torch.no_grad():
        found = build_model(config).eval()(**inputs).embeds
    for right, rows in zip(embeddings(release).values(), found.values(), strict=True):
        torch.testing.assert_close(rows, right, rtol=1e-5, atol=1e-6)
    picture.train = picture.view
    sources = build_unaugmented_processor(config, processor)
    assert sources is not None
    entry = sources.modalities["picture"]
    assert entry["size"] == [16, 16] and entry.get("shortest_edge") == (
        20 if "shortest_edge" in processor.modalities["picture"] else None
    )


def test_what_has_no_such_form_is_named(tmp_path: Path) -> None:
    write_bert(tmp_path / "bert")
    write_clap(tmp_path / "clap")
    write_clip(tmp_path / "clip")
    for name in ("bert", "clap"):  # of which the latter has no feature extractor
        with pytest.raises(UnusableError, match="is no text encoder beside one of images"):
            convert(str(tmp_path / name), tmp_path / "out", NAMES)
    CLIPImageProcessorPil(do_normalize=False).save_pretrained(tmp_path / "clip")
    with pytest.raises(UnusableError, match="does not resize"):
        convert(str(tmp_path / "clip"), tmp_path / "out", NAMES)
    assert not (tmp_path / "out").exists()


def test_names_must_be_two(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="'type' is a name that torch needs"):
        convert("anything", tmp_path / "o", ("image", "type"))
    with pytest.raises(UnusableError, match="'type' is a name that torch needs"):
        convert("anything", tmp_path / "o", ("image", "type"))
    for names in ("picture", "picture,picture", "label,text", "a b,c"):
        outcome = CliRunner().invoke(app, ["convert", "x", "--out", str(tmp_path / "o"), "--names", names, "--json"])
        assert outcome.exit_code == 1 and "two plain identifiers are needed" in outcome.stdout
