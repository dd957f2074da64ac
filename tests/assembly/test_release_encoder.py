"""Encoders that start from a release."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.assembly.check import check_model
from mmpretrain.config.data import Kind, ModalityConfig, Resize
from mmpretrain.config.methods.names import ClipConfig, CommConfig
from mmpretrain.config.model import AttentionKernel, EncoderConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.hub.export import export_release
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import renew_checksum
from tests.engine import runs
from tests.hub.test_card import facts
from tests.models.fused import four_config, four_inputs
from tests.models.small import small_config, small_model, small_samples
from tests.rank_pool import Ranks
from tests.submodules import submodule

PIXELS = {"mean": [0.3], "std": [0.2]}
STATISTICS = {"minimum": [-1.0] * 7, "maximum": [3.0] * 7}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A CLIP model of all three modalities, and a processor that knows the range of its genes."""
    config, folder = small_config(ClipConfig()), tmp_path / "release"
    model, processor = small_model(config, seed=3), build_processor(config)
    processor.modalities["genes"] |= STATISTICS
    processor.modalities["picture"] |= PIXELS
    export_release(model, model.state_dict(), processor, folder, facts(method="clip"))
    return folder


def started(release: Path, embed_dim: int | None = 8, **encoder: Any) -> Config:
    """The small config, every encoder from ``release``."""
    encoders = {n: EncoderConfig(pretrained=str(release), **encoder) for n in small_config().data.modalities}
    return small_config(ClipConfig(), embed_dim=embed_dim, encoders=encoders)


def test_a_model_that_starts_from_a_release_embeds_as_it_does(release: Path) -> None:
    config = started(release)
    model, processor = small_model(config, seed=4), build_processor(config)
    original = MMPretrainModel.from_pretrained(release).eval()
    inputs = processor(**small_samples())
    assert processor.modalities["genes"] == build_processor(small_config()).modalities["genes"] | STATISTICS
    assert processor.modalities["picture"] == build_processor(small_config()).modalities["picture"] | PIXELS
    for name, embeds in original(**inputs).embeds.items():
        assert torch.equal(model(**inputs).embeds[name], embeds), name
    assert model.config.encoders == original.config.encoders
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert str(release) not in model.config.to_json_string()


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({}, {"resize": "squash", "background": "white"}),
        ({"shortest_edge": 9}, {"resize": "crop", "shortest_edge": 9, "background": "white"}),
        ({"resize": "pad", "background": "#102030"}, {"resize": "pad", "background": "#102030"}),
    ],
)
def test_images_are_seen_as_the_release_was_trained_to(release: Path, entry: dict, found: dict) -> None:
    """Releases from before there was a choice squash, or crop to their edge."""
    path = release / "processor_config.json"
    content = json.loads(path.read_text())
    kept = {k: v for k, v in content["modalities"]["picture"].items() if k not in ("resize", "background")}
    content["modalities"]["picture"] = kept | entry
    path.write_text(json.dumps(content))
    config = started(release)
    assert build_processor(config).modalities["picture"] == kept | found
    config.data.modalities["picture"].resize = Resize.crop
    assert build_processor(config).modalities["picture"]["resize"] == "crop"


def test_freezing_holds_for_the_projection_that_came_along(release: Path) -> None:
    frozen = build_model(started(release, freeze=True))
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert not any(encoder.training for encoder in frozen.encoders.values())
    assert any(
        "nothing else is trainable" in problem for problem in check_model(started(release, freeze=True)).problems
    )
    wider = build_model(started(release, embed_dim=9, freeze=True))
    trained = {name for name, parameter in wider.named_parameters() if parameter.requires_grad}
    assert trained == {f"projections.{name}.weight" for name in wider.encoders}
    otherwise_pooled = started(release, freeze=True)
    otherwise_pooled.model.encoders["caption"].pool = Pool.cls
    model = build_model(otherwise_pooled)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["projections.caption.weight"]


def test_the_preflight_counts_what_will_train(release: Path) -> None:
    config = started(release, freeze=True)
    config.model.encoders["genes"].freeze = False
    checked = check_model(config)
    assert not checked.problems and checked.model is not None
    assert f"encoder picture: vit from {release}" in " ".join(checked.notes)
    expected = [name for name, p in build_model(config).named_parameters() if p.requires_grad]
    assert [name for name, p in checked.model.named_parameters() if p.requires_grad] == expected


def test_one_encoder_may_serve_two_modalities(release: Path) -> None:
    config = started(release)
    config.data.modalities = {name: config.data.modalities["picture"] for name in ("left", "right")}
    config.model.encoders = {name: EncoderConfig(pretrained=str(release), part="picture") for name in ("left", "right")}
    model, image = small_model(config), small_samples()["picture"]
    embeds = model(**build_processor(config)(left=image, right=image)).embeds
    assert torch.equal(embeds["left"], embeds["right"])


def test_a_fusion_starts_from_the_encoders_alone(release: Path) -> None:
    config = started(release)
    config.method = CommConfig()
    config.model.fusion = replace(config.model.fusion, width=8, heads=2)
    original = MMPretrainModel.from_pretrained(release)
    for name, tensor in build_model(config).encoders.state_dict().items():
        assert torch.equal(tensor, original.encoders.state_dict()[name])


def test_an_option_of_a_transformers_encoder_can_still_be_set(release: Path) -> None:
    config = started(release)
    config.model.encoders["caption"].config = {"hidden_dropout_prob": 0.5}
    config.model.encoders["caption"].attention = AttentionKernel.eager
    caption = submodule(build_model(config), "encoders.caption.backbone", PreTrainedModel)
    assert caption.config.hidden_dropout_prob == 0.5 and caption.config._attn_implementation == "eager"


def spoil(run: Config, name: str, **fields: Any) -> None:
    """Change fields of one encoder."""
    run.model.encoders[name] = replace(run.model.encoders[name], **fields)


CASES = [
    (
        "picture",
        {"part": "pictures"},
        "part: .* has no encoder 'pictures' .did you mean picture.*; its encoders: caption, genes, picture",
    ),
    ("picture", {"part": "genes"}, "pretrained: .* takes a vector as 'genes': take other data"),
    ("genes", {"config": {"hidden_size": 7}}, "genes.config.hidden_size is not that of .*: leave it out"),
    ("genes", {"pool": Pool.mean}, "genes.pool is mean: mlp knows cls"),
    ("picture", {"pool": Pool.flatten}, "picture.pool is flatten: vit knows cls, mean, last, pooler"),
    ("genes", {"checkpointing": True}, "genes.checkpointing=true has no effect on the encoder of .*: leave it out"),
    ("picture", {"pool": Pool.pooler}, "picture: .* has no pooler.dense.* as this config and pool want it"),
    ("caption", {"config": {"intermediate_size": 8}}, "caption: .* has no encoder.layer.0.* as this config"),
]


@pytest.mark.parametrize(("name", "fields", "message"), CASES)
def test_what_does_not_fit_is_named(release: Path, name: str, fields: dict[str, Any], message: str) -> None:
    config = started(release)
    spoil(config, name, **fields)
    problems = check_model(config).problems
    assert len(problems) == 1 and re.search(message, problems[0])
    with pytest.raises(UnusableError):
        build_model(config)


@pytest.mark.parametrize("size", [[8, 8], [8, 4, 3]])
def test_other_images_are_refused(release: Path, size: list[int]) -> None:
    config = started(release)
    channels = size[2] if len(size) > 2 else 1
    config.data.modalities["picture"] = ModalityConfig(Kind.image, size[:2], channels)
    problems = check_model(config).problems
    assert len(problems) == 1 and "takes images of 1x8x4 as 'picture'" in problems[0]


def test_part_is_refused_where_it_has_no_effect(release: Path, tmp_path: Path) -> None:
    assert EncoderConfig("vit", part="picture").problems("picture") == [
        "model.encoders.picture.part has no effect without model.encoders.picture.pretrained"
    ]
    plain = submodule(MMPretrainModel.from_pretrained(release), "encoders.picture.backbone", PreTrainedModel)
    plain.save_pretrained(tmp_path / "vit")
    config = started(release)
    spoil(config, "picture", pretrained=str(tmp_path / "vit"), part="picture")
    with pytest.raises(UnusableError, match=r"picture\.part has no effect: .* is not an mmpretrain release"):
        build_model(config)
    spoil(config, "picture", part=None)
    spoil(config, "genes", pretrained=str(tmp_path / "vit"))
    with pytest.raises(UnusableError, match="is not an mmpretrain release, and no other model encodes a vector"):
        build_model(config)


def test_missing_weights_are_never_made_up(release: Path) -> None:
    weights = load_file(release / "model.safetensors")
    lacking = next(key for key in weights if key.startswith("encoders.genes"))
    save_file({k: v for k, v in weights.items() if k != lacking}, release / "model.safetensors", {"format": "pt"})
    renew_checksum(release, "model.safetensors")
    with pytest.raises(UnusableError, match=f"has no weights for {lacking}"):
        build_model(started(release))


def test_a_damaged_release_shows_before_the_start(release: Path) -> None:
    assert not check_model(started(release)).problems
    weights = bytearray((release / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (release / "model.safetensors").write_bytes(weights)
    problems = check_model(started(release)).problems
    assert len(problems) == 3 and "model.safetensors has changed" in problems[0]
    (release / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(UnusableError, match=r"picture\.pretrained: .* cannot be loaded"):
        build_model(started(release))


def test_weights_of_a_pooler_may_stay_behind(release: Path, tmp_path: Path) -> None:
    config = small_config(ClipConfig())
    config.model.encoders["caption"].pool = Pool.pooler
    small_model(config).save_pretrained(tmp_path / "pooled")
    build_processor(config).save_pretrained(tmp_path / "pooled")
    again = started(tmp_path / "pooled")
    assert build_model(again).config.encoders["caption"]["pool"] == "pooler"
    again.model.encoders["caption"].pool = Pool.mean
    assert not check_model(again).problems
    assert not any("pooler" in name for name in build_model(again).state_dict())


def test_a_release_that_connects_others_names_them(release: Path) -> None:
    content = json.loads((release / "config.json").read_text())
    content |= {"encoders": {}, "connection": {"inputs": dict.fromkeys(content["modalities"], "first")}}
    (release / "config.json").write_text(json.dumps(content))
    with pytest.raises(UnusableError, match="connects two other releases: name one of these"):
        build_model(started(release))


def test_our_own_encoders_bring_all_that_they_learned(tmp_path: Path) -> None:
    """A CNN with the statistics of its batch norms, and a transformer over time steps; sequences may be shorter."""
    config, release = four_config(ClipConfig(), embed_dim=8), tmp_path / "release"
    torch.manual_seed(3)
    original = build_model(config)
    original(**four_inputs())  # moves the statistics
    export_release(original, original.state_dict(), build_processor(config), release, facts(method="clip"))
    for name in ("motion", "picture"):
        config.model.encoders[name] = EncoderConfig(pretrained=str(release), freeze=name == "picture")
    config.data.modalities["motion"].size = [4, 3]
    torch.manual_seed(4)
    model = build_model(config).eval()
    original.eval()
    inputs = {name: four_inputs(seed=1)[name] for name in ("motion", "picture")}
    for name, embeds in original(**inputs).embeds.items():
        assert torch.equal(model(**inputs).embeds[name], embeds), name
    statistics = {n: b for n, b in original.encoders["picture"].named_buffers() if "running" in n}
    assert statistics and all(torch.equal(model.encoders["picture"].get_buffer(n), b) for n, b in statistics.items())
    weight = "encoders.genes.backbone.hidden.weight"
    assert not torch.equal(model.get_parameter(weight), original.get_parameter(weight))


@pytest.mark.parametrize("stage", [1, 3])
def test_runs_start_from_a_release_and_resume(ranks: Ranks, tmp_path: Path, stage: int) -> None:
    """Two ranks start from its weights, and go on from a checkpoint, not from the release."""
    config, release = runs.tiny_config("method=clip"), tmp_path / "release"
    torch.manual_seed(3)
    model = build_model(config)
    export_release(model, model.state_dict(), build_processor(config), release, facts(method="clip"))
    at = "model.encoders.left"
    layers = f"{at}.config.num_hidden_layers=1"
    tokens = ["method=clip", f"engine=zero{stage}", f"{at}.architecture=null", f"{at}.pretrained={release}"]
    straight, resumed, losses, again = ranks(2, runs.train_and_resume, [*tokens, layers], 4, str(tmp_path / "kept"))[0]
    assert straight == resumed and losses == again
    started, scratch = (ranks(2, runs.train, [*t, f"engine=zero{stage}"], 1)[0] for t in (tokens, ["method=clip"]))
    assert started != scratch
