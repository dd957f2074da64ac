"""From the config to the model: sizes from the data, pretrained weights, freezing, counts, classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.config.compose import compose
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig, Resize
from mmpretrain.config.default_model import BYTES
from mmpretrain.config.methods.names import ClipConfig, M3colConfig
from mmpretrain.config.model import EncoderConfig, ModelConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.models.heads_mmpretrain import MLPHead
from mmpretrain.problems import UnusableError
from tests.models.small import BERT, VIT, small_config, small_model, small_samples


def preprocessor(**settings: Any) -> str:
    """A preprocessor_config.json of transformers."""
    return json.dumps({"do_resize": True, "image_mean": [0.4], "image_std": [0.2]} | settings)


CROPPING = {"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}}
SQUASHING = {"size": {"height": 8, "width": 4}}


@pytest.mark.parametrize(
    ("settings", "asked", "found"),
    [
        (CROPPING, None, {"resize": "crop", "shortest_edge": 10}),
        ({"size": 10, "do_center_crop": True, "crop_size": 8}, None, {"resize": "crop", "shortest_edge": 10}),
        ({"size": {"shortest_edge": 8}, "crop_pct": 0.8}, None, {"resize": "crop", "shortest_edge": 10}),
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.8}, None, {"resize": "squash"}),
        (SQUASHING, None, {"resize": "squash"}),
        (SQUASHING, Resize.pad, {"resize": "pad"}),
        (CROPPING, Resize.squash, {"resize": "squash"}),
        ({"do_resize": False}, None, {"resize": "crop"}),
    ],
)
def test_images_are_resized_as_the_weights_were_trained_unless_asked_otherwise(
    tmp_path: Path, settings: dict[str, Any], asked: Resize | None, found: dict[str, Any]
) -> None:
    config = pretrained_config(tmp_path)
    (tmp_path / "vit" / "preprocessor_config.json").write_text(preprocessor(**settings))
    config.data.modalities["picture"].resize = asked
    picture = build_processor(config).modalities["picture"]
    assert {key: picture[key] for key in ("resize", "shortest_edge") if key in picture} == found
    assert picture["background"] == "white" and picture["mean"] == [0.4]


@pytest.mark.parametrize(
    ("settings", "mean", "std"),
    [
        ({}, 0.4, 0.2),
        ({"do_normalize": False}, 0.0, 1.0),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0], "image_std": [1.0]}, 0.5, 0.5),
        ({"do_rescale": False, "image_mean": [102.0], "image_std": [51.0]}, 0.4, 0.2),
        ({"image_mean": 0.4, "image_std": 0.2}, 0.4, 0.2),
    ],
)
def test_pixels_become_the_numbers_that_the_weights_were_trained_on(
    tmp_path: Path, settings: dict[str, Any], mean: float, std: float
) -> None:
    config = pretrained_config(tmp_path)
    (tmp_path / "vit" / "preprocessor_config.json").write_text(preprocessor(**settings))
    picture = build_processor(config).modalities["picture"]
    assert (picture["mean"], picture["std"]) == (pytest.approx([mean]), pytest.approx([std]))


def test_the_filter_that_resized_the_weights_images_is_used(tmp_path: Path) -> None:
    config = pretrained_config(tmp_path)
    for resample, found in ((2, "bilinear"), (3, None)):
        (tmp_path / "vit" / "preprocessor_config.json").write_text(preprocessor(**SQUASHING, resample=resample))
        assert build_processor(config).modalities["picture"].get("resample") == found
    (tmp_path / "vit" / "preprocessor_config.json").write_text(preprocessor(do_flip_channel_order=True))
    with pytest.raises(UnusableError, match=r"picture\.pretrained: .*blue, green, red .*take the key out"):
        build_processor(config)


def test_encoders_that_stretch_their_positions_take_images_of_any_size(tmp_path: Path) -> None:
    """DINOv2 was published with the positions of images larger than those that its own processor makes."""
    config = pretrained_config(tmp_path)
    Dinov2Model(Dinov2Config(**VIT, image_size=16, num_channels=1)).save_pretrained(tmp_path / "dino")
    config.model.encoders["picture"] = EncoderConfig(pretrained=str(tmp_path / "dino"))
    model, inputs = build_model(config).eval(), build_processor(config)(**small_samples())
    own = Dinov2Model.from_pretrained(tmp_path / "dino")(**inputs["picture"]).last_hidden_state[:, 0]
    assert torch.allclose(model.projections["picture"](own), model(**inputs).embeds["picture"], atol=1e-6)


@pytest.mark.parametrize(
    ("told", "pool"),
    [
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True, "word_embedding_dimension": 16}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls"),
        (None, "cls"),
    ],
)
def test_texts_are_pooled_as_a_folder_of_sentence_transformers_says(
    tmp_path: Path, told: dict[str, Any] | None, pool: str
) -> None:
    config = pretrained_config(tmp_path)
    if told is not None:
        (tmp_path / "bert" / "1_Pooling").mkdir()
        (tmp_path / "bert" / "1_Pooling" / "config.json").write_text(json.dumps(told))
    assert build_model(config).config.encoders["caption"]["pool"] == pool


def test_seed_decides_the_weights() -> None:
    first, same, other = small_model(seed=1), small_model(seed=1), small_model(seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_sizes_come_from_the_data() -> None:
    specs = small_model().config.encoders
    assert specs["genes"]["config"]["input_size"] == 7
    assert specs["picture"]["config"]["image_size"] == [8, 4] and specs["picture"]["config"]["num_channels"] == 1
    assert specs["caption"]["config"]["vocab_size"] == 10 and specs["caption"]["config"]["pad_token_id"] == 0


def test_start_and_end_of_texts_lie_inside_their_vocabulary() -> None:
    config = small_config()
    config.model.encoders["caption"] = EncoderConfig(
        "clip_text_model",
        {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
        tokenizer=BYTES,
    )
    found = build_model(config).config.encoders["caption"]["config"]
    assert max(found["bos_token_id"], found["eos_token_id"]) < found["vocab_size"] < 1000
    config.model.encoders["caption"].config["eos_token_id"] = 7
    assert build_model(config).config.encoders["caption"]["config"]["eos_token_id"] == 7


def test_classifier_only_for_methods_that_learn_from_labels() -> None:
    assert small_model(small_config(ClipConfig())).classifier is None
    model = small_model(small_config(M3colConfig(), embed_dim=None))
    assert model.embed_sizes == {"picture": 16, "caption": 16, "genes": 5} and not len(model.projections)
    assert model.classifier is not None
    assert model.get_submodule("classifier.hidden").in_features == 37 and model.config.method == "m3col"
    assert model(**build_processor(small_config())(**small_samples())).logits.shape == (2, 3)


def test_rosmap_has_the_published_number_of_parameters() -> None:
    views = ("mrna", "methylation", "mirna")
    mlp = {"hidden_size": 1000, "output_size": 1000}
    config = Config(
        method=M3colConfig(),
        data=DataConfig("rosmap", "nowhere", None, {v: ModalityConfig(Kind.vector, [200]) for v in views}, classes=2),
        model=ModelConfig(None, {v: EncoderConfig("mlp", dict(mlp)) for v in views}, classifier_hidden=1000),
    )
    model = build_model(config)
    heads = [MLPHead(model.embed_sizes[view], 1000, 2) for view in views]
    assert sum(p.numel() for module in (model, *heads) for p in module.parameters()) == 9_618_008


def test_experiments_of_the_project_build() -> None:
    model = build_model(compose(["experiment=rosmap"]))
    assert sum(p.numel() for p in model.parameters()) == 9_618_008 - 3 * (1000 * 1000 + 1000 + 1000 * 2 + 2)


def pretrained_config(tmp_path: Path, **caption: Any) -> Config:
    """The small config, with picture and caption from folders that transformers wrote."""
    torch.manual_seed(5)
    ViTModel(ViTConfig(**VIT, image_size=[8, 4], num_channels=1)).save_pretrained(tmp_path / "vit")
    BertForMaskedLM(BertConfig(**BERT, vocab_size=10)).save_pretrained(tmp_path / "bert")
    config = small_config()
    tokenizer = config.model.encoders["caption"].tokenizer
    config.model.encoders["picture"] = EncoderConfig(pretrained=str(tmp_path / "vit"), freeze=True)
    config.model.encoders["caption"] = EncoderConfig(pretrained=str(tmp_path / "bert"), tokenizer=tokenizer, **caption)
    return config


def test_pretrained_weights_are_loaded_whole_and_frozen(tmp_path: Path) -> None:
    model = build_model(pretrained_config(tmp_path, config={"hidden_dropout_prob": 0.0}))
    vit = ViTModel.from_pretrained(tmp_path / "vit", add_pooling_layer=False)
    bert = BertModel.from_pretrained(tmp_path / "bert", add_pooling_layer=False)
    for name, original in (("picture", vit), ("caption", bert)):
        state = model.get_submodule(f"encoders.{name}.backbone").state_dict()
        assert state.keys() == original.state_dict().keys()
        assert all(torch.equal(state[key], tensor) for key, tensor in original.state_dict().items())
    assert not any(p.requires_grad for p in model.encoders["picture"].parameters())
    assert all(p.requires_grad for p in model.encoders["caption"].parameters())
    assert not model.encoders["picture"].training and model.get_submodule("encoders.caption.backbone").training
    assert model.config.encoders["caption"]["config"]["hidden_dropout_prob"] == 0.0
    assert str(tmp_path) not in model.config.to_json_string()


def test_release_of_a_pretrained_encoder_opens_without_the_original(tmp_path: Path) -> None:
    config = pretrained_config(tmp_path)
    model = build_model(config).eval()
    inputs = build_processor(config)(**small_samples())
    model.save_pretrained(tmp_path / "saved")
    (tmp_path / "vit").rename(tmp_path / "gone")
    again = type(model).from_pretrained(tmp_path / "saved")
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_pretrained_without_the_pooler_that_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match=r"caption.pretrained: .* has no weights for pooler"):
        build_model(pretrained_config(tmp_path, pool=Pool.pooler))


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    config = pretrained_config(tmp_path)
    (tmp_path / "vit" / "model.safetensors").unlink()
    torch.save(ViTModel(ViTConfig(**VIT)).state_dict(), tmp_path / "vit" / "pytorch_model.bin")
    with pytest.raises(UnusableError, match=r"no \.safetensors file"):
        build_model(config)


def test_pixel_statistics_of_pretrained_weights_are_used(tmp_path: Path) -> None:
    config = pretrained_config(tmp_path)
    assert "mean" not in build_processor(config).modalities["picture"]
    (tmp_path / "vit" / "preprocessor_config.json").write_text('{"image_mean": [0.4], "image_std": [0.2]}')
    picture = build_processor(config).modalities["picture"]
    assert (picture["mean"], picture["std"]) == ([0.4], [0.2])
    (tmp_path / "vit" / "preprocessor_config.json").unlink()
    (tmp_path / "vit" / "processor_config.json").write_text('{"image_processor": {"image_mean": [0.3]}}')
    assert build_processor(config).modalities["picture"]["mean"] == [0.3]


def test_dataset_json_gives_class_names_and_statistics(tmp_path: Path) -> None:
    facts = {"name": "small", "title": "Small", "source": "made up", "license": "CC0", "modalities": {}}
    facts |= {"classes": ["ape", "bee", "cat"], "statistics": {"genes": {"minimum": [0.0] * 7, "maximum": [2.0] * 7}}}
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    config = small_config(path=str(tmp_path))
    assert build_model(config).config.id2label == {0: "ape", 1: "bee", 2: "cat"}
    values = build_processor(config)(genes=[[1.0] * 7])["genes"]["values"]
    assert torch.allclose(values, torch.full((1, 7), 0.5))
