"""What cannot be embedded is refused before anything is written, with the names of both sides."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    FNetConfig,
    FNetModel,
    GPT2Config,
    GPT2Model,
    ResNetConfig,
    ResNetModel,
    SiglipTextConfig,
    SiglipTextModel,
    T5Config,
    T5Model,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mmpretrain.embedding.encode import embed_share
from mmpretrain.embedding.spaces import open_space
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import release_name, verify_release, weights_sha256
from tests.embedding.spaces import job, write_data
from tests.models.small import BERT, LAYERS
from tests.small_tokenizer import small_tokenizer

CPU = torch.device("cpu")


def refused(release: Path, data: Path, out: Path, **changes: str) -> str:
    """What embedding says when it refuses."""
    with pytest.raises(UnusableError) as error:
        embed_share(job(release, data, out, **changes), 0, 1, CPU)
    assert not out.exists()
    return str(error.value)


@pytest.mark.parametrize(
    ("modalities", "message"),
    [
        ("smell", "unknown modality 'smell': the shards hold caption (text), genes (vector or sequence), picture"),
        ("genes=taste", "unknown tower 'taste'"),
        ("genes=picture", "'genes' holds vector or sequence, and the tower 'picture' takes image"),
    ],
)
def test_unknown_modalities_and_towers(spaces: Path, tmp_path: Path, modalities: str, message: str) -> None:
    text = refused(spaces / "own" / "release", spaces / "data", tmp_path / "out", modalities=modalities)
    assert message in text


def test_a_modality_that_no_tower_takes(spaces: Path, tmp_path: Path) -> None:
    text = refused(spaces / "clip", spaces / "data", tmp_path / "out", modalities="genes")
    assert "clip has no tower for 'genes'" in text and "clip embeds image (image), text (text)" in text


def test_vectors_of_another_width(spaces: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", width=9)
    text = refused(spaces / "own" / "release", data, tmp_path / "out", modalities="genes")
    assert "'genes' has arrays of shape [9], and own was trained on vectors of size [7]" in text


def test_missing_and_damaged_files_of_a_release(spaces: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(spaces / "own" / "release", tmp_path / name))

    lacking = copy("lacking")
    (lacking / "processor_config.json").unlink()
    assert "processor_config.json is missing" in refused(lacking, spaces / "data", tmp_path / "out")
    changed = copy("changed")
    weights = bytearray((changed / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (changed / "model.safetensors").write_bytes(weights)
    assert "model.safetensors has changed" in refused(changed, spaces / "data", tmp_path / "out")
    unsigned = copy("unsigned")
    (unsigned / "SHA256SUMS").unlink()
    assert "SHA256SUMS is missing" in refused(unsigned, spaces / "data", tmp_path / "out")
    (tmp_path / "nothing").mkdir()
    assert "no config.json" in refused(tmp_path / "nothing", spaces / "data", tmp_path / "out")


def test_damaged_files_of_a_transformers_model(spaces: Path, tmp_path: Path) -> None:
    cut = Path(shutil.copytree(spaces / "clip", tmp_path / "cut"))
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[:-100])
    assert f"{cut} cannot be opened" in refused(cut, spaces / "data", tmp_path / "out")
    (cut / "model.safetensors").rename(cut / "model.bin")
    assert "has no .safetensors file" in refused(cut, spaces / "data", tmp_path / "out")
    lacking = Path(shutil.copytree(spaces / "clip", tmp_path / "lacking"))
    (lacking / "preprocessor_config.json").unlink()
    assert f"{lacking} cannot be opened" in refused(lacking, spaces / "data", tmp_path / "out")


def change(path: Path, **content: Any) -> None:
    """Add to a JSON file; where the release has checksums, they then say that it belongs there."""
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    for root in (folder for folder in path.parents if (folder / "SHA256SUMS").exists()):
        files = [file for file in sorted(root.rglob("*")) if file.is_file() and file.name != "SHA256SUMS"]
        sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(root)}\n" for file in files]
        (root / "SHA256SUMS").write_text("".join(sums))


@pytest.mark.parametrize("part", ["model", "images", "tokenizer", "own tokenizer"])
def test_code_of_a_release_is_never_run(
    spaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A class that this installation does not know is refused, whatever auto_map offers, and nobody is asked."""
    questions: list[str] = []

    def agree(text: str = "") -> str:
        questions.append(text)
        return "y"

    monkeypatch.setattr("builtins.input", agree)
    strange = tmp_path / "strange"
    shutil.copytree(spaces / ("own/release" if part == "own tokenizer" else "clip"), strange)
    (strange / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    if part == "model":
        auto_map = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
        change(strange / "config.json", model_type="strange", auto_map=auto_map)
    elif part == "images":
        # An encoder for which transformers knows no image processor of its own.
        CLIPVisionModel(CLIPVisionConfig(**LAYERS, image_size=8, patch_size=4)).save_pretrained(strange)
        auto_map = {"AutoImageProcessor": "evil.Images"}
        change(strange / "preprocessor_config.json", image_processor_type="Strange", auto_map=auto_map)
    else:
        evil = {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]}
        change(strange / "tokenizer_config.json", tokenizer_class="Strange", auto_map=evil)
    with contextlib.suppress(UnusableError):  # what needs no code of the folder may open
        open_space(str(strange), CPU)
    assert not (tmp_path / "ran").exists() and not questions


def test_a_release_of_ours_comes_whole_from_the_hub(
    spaces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksums, card and code too, which the checksums speak of; what the Hub adds is no change."""

    def snapshot(name: str, revision: str | None, **patterns: Any) -> str:
        assert revision == "v1"
        whole, fetched = spaces / "own" / "release", tmp_path / "snapshot"
        paths = [str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file()]
        for path in filter_repo_objects(paths, **patterns):
            (fetched / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(whole / path, fetched / path)
        for path in (".gitattributes", ".cache/huggingface/download/config.json.metadata"):
            (fetched / path).parent.mkdir(parents=True, exist_ok=True)
            (fetched / path).write_text("of the Hub")
        return str(fetched)

    monkeypatch.setattr("mmpretrain.assembly.fetched.snapshot_download", snapshot)
    assert list(open_space("someone/own", CPU, revision="v1").towers) == ["picture", "caption", "genes"]
    (tmp_path / "snapshot" / "more.py").write_text("")
    assert "more.py is not listed" in verify_release(tmp_path / "snapshot")[0]


def test_a_name_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnusableError, match="neither a folder nor can be fetched"):
        open_space("no/such-model", CPU)


def test_a_model_that_is_no_encoder(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"d_model": 8, "d_ff": 8, "d_kv": 4, "num_layers": 1, "num_heads": 2, "vocab_size": 10}
    T5Model(T5Config(**sizes)).save_pretrained(tmp_path / "t5")
    with pytest.raises(UnusableError, match="T5Model, which is neither an encoder of images, texts or sounds"):
        open_space(str(tmp_path / "t5"), CPU)


def test_a_pooler_that_is_not_there(spaces: Path, tmp_path: Path) -> None:
    """Weights without one are no obstacle to another pooling; a pooler is never made up."""
    shutil.copytree(spaces / "bert", tmp_path / "bert")
    model = BertModel.from_pretrained(tmp_path / "bert", add_pooling_layer=False)
    model.save_pretrained(tmp_path / "bert")
    embed_share(job(tmp_path / "bert", spaces / "data", tmp_path / "mean"), 0, 1, CPU)
    assert "no weights for pooler" in refused(tmp_path / "bert", spaces / "data", tmp_path / "out", pool="pooler")
    shutil.copytree(spaces / "bert", tmp_path / "gpt2", ignore=shutil.ignore_patterns("*.safetensors"))
    GPT2Model(GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=2, n_positions=16)).save_pretrained(
        tmp_path / "gpt2"
    )
    assert "gpt2 has no pooler" in refused(tmp_path / "gpt2", spaces / "data", tmp_path / "out", pool="pooler")


TEXT_MODELS = {
    "bert": lambda: BertModel(BertConfig(vocab_size=10, **BERT)),
    "fnet": lambda: FNetModel(
        FNetConfig(vocab_size=10, max_position_embeddings=16, hidden_size=16, num_hidden_layers=1, intermediate_size=32)
    ),
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=10, n_embd=8, n_layer=1, n_head=2, n_positions=16)),
    "siglip": lambda: SiglipTextModel(SiglipTextConfig(vocab_size=10, max_position_embeddings=16, **LAYERS)),
}


@pytest.mark.parametrize(
    ("name", "options", "pool"),
    [
        ("bert", {"padding_side": "left"}, "cls"),
        ("bert", {"model_input_names": ["input_ids"]}, "mean"),
        ("gpt2", {"padding_side": "left"}, "last"),
        ("gpt2", {"pad_token": None, "eos_token": "[SEP]"}, "mean"),
        ("siglip", {"model_input_names": ["input_ids"]}, "pooler"),
        ("fnet", {"model_input_names": ["input_ids"]}, "mean"),
    ],
)
def test_a_text_is_embedded_the_same_beside_longer_ones(
    tmp_path: Path, name: str, options: dict[str, Any], pool: str
) -> None:
    """Whatever side its tokenizer pads on, and whether or not its model can be told what is padding."""
    torch.manual_seed(0)
    TEXT_MODELS[name]().save_pretrained(tmp_path / name)
    AutoTokenizer.from_pretrained(small_tokenizer(), model_max_length=16, **options).save_pretrained(tmp_path / name)
    space = open_space(str(tmp_path / name), CPU, pool)
    alone, longer = ["bold seven"], "a bold light seven three digit a"
    expected = space.features("text", space.tensors("text", alone))
    found = space.features("text", space.tensors("text", [*alone, longer]))
    torch.testing.assert_close(found[:1], expected, atol=1e-5, rtol=1e-5)
    assert (found[0] - found[1]).abs().max() > 0.001


def test_a_feature_map_has_no_first_token(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic"}
    ResNetModel(ResNetConfig(**sizes)).save_pretrained(tmp_path / "resnet")
    CLIPImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path / "resnet")
    space = open_space(str(tmp_path / "resnet"), CPU, "cls")
    with pytest.raises(UnusableError, match="resnet gives a feature map, which has no first and no last token"):
        space.features("image", {"pixel_values": torch.zeros(2, 3, 32, 32)})


def test_names_and_digests(spaces: Path, tmp_path: Path) -> None:
    assert release_name(str(spaces / "own" / "release")) == "own"
    assert release_name(str(spaces / "clip")) == "clip"
    assert release_name("openai/clip-vit-base-patch32") == "openai/clip-vit-base-patch32"
    whole = weights_sha256(spaces / "clip")
    parts = Path(shutil.copytree(spaces / "clip", tmp_path / "parts"))
    (parts / "more.safetensors").write_bytes(b"more")
    assert len(whole) == len(weights_sha256(parts)) == 64 and whole != weights_sha256(parts)
