"""What cannot be embedded is refused before anything is written, with the names of both sides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import BertModel, GPT2Config, GPT2Model, T5Config, T5Model

from mmpretrain.embedding.encode import embed_share
from mmpretrain.embedding.spaces import open_space, release_name, weights_sha256
from mmpretrain.models.problems import Unusable
from tests.embedding.spaces import job, write_data

CPU = torch.device("cpu")


def refused(release: Path, data: Path, out: Path, **changes: str) -> str:
    """What embedding says when it refuses."""
    with pytest.raises(Unusable) as error:
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


def test_code_of_a_release_is_never_run(spaces: Path, tmp_path: Path) -> None:
    """A model type that this installation does not know is refused, whatever its auto_map offers."""
    strange = Path(shutil.copytree(spaces / "clip", tmp_path / "strange"))
    config = json.loads((strange / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    (strange / "config.json").write_text(json.dumps(config))
    (strange / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "cannot be opened" in refused(strange, spaces / "data", tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_a_name_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unusable, match="neither a folder nor can be fetched"):
        open_space("no/such-model", CPU)


def test_a_model_that_is_no_encoder(tmp_path: Path) -> None:
    sizes = {"d_model": 8, "d_ff": 8, "d_kv": 4, "num_layers": 1, "num_heads": 2, "vocab_size": 10}
    T5Model(T5Config(**sizes)).save_pretrained(tmp_path / "t5")
    with pytest.raises(Unusable, match="T5Model, which is neither an encoder of images or texts"):
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


def test_names_and_digests(spaces: Path, tmp_path: Path) -> None:
    assert release_name(str(spaces / "own" / "release")) == "own"
    assert release_name(str(spaces / "clip")) == "clip"
    assert release_name("openai/clip-vit-base-patch32") == "openai/clip-vit-base-patch32"
    whole = weights_sha256(spaces / "clip")
    parts = Path(shutil.copytree(spaces / "clip", tmp_path / "parts"))
    (parts / "more.safetensors").write_bytes(b"more")
    assert len(whole) == len(weights_sha256(parts)) == 64 and whole != weights_sha256(parts)
