"""Preflight of the model: what it reports, and that it reports everything at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import RobertaConfig, RobertaModel

from mmpretrain.assembly.build import build_model
from mmpretrain.assembly.check import check_model
from mmpretrain.assembly.tokenizers import position_limit
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.methods.names import ClipConfig
from mmpretrain.config.model import EncoderConfig
from mmpretrain.config.root import Config
from mmpretrain.problems import UnusableError
from tests.models.small import BERT, LAYERS, MLP, VIT, small_config, small_model


def test_good_config_has_no_problems_and_its_parameters_counted() -> None:
    problems, notes, _ = check_model(small_config())
    model = small_model()
    assert problems == []
    assert notes[-1].startswith(f"model: {sum(p.numel() for p in model.parameters()):,} parameters")
    counts = {name: sum(p.numel() for p in encoder.parameters()) for name, encoder in model.encoders.items()}
    for (name, count), note in zip(counts.items(), notes, strict=False):
        assert note.startswith(f"encoder {name}:") and f"{count:,} parameters" in note


def test_freezing_is_counted() -> None:
    config = small_config(ClipConfig(), embed_dim=None)
    config.model.encoders["picture"].freeze = True
    _, notes, _ = check_model(config)
    assert "(frozen)" in notes[0] and "0 of them trained" not in notes[-1]
    for encoder in config.model.encoders.values():
        encoder.freeze = True
    assert check_model(config)[0] == [
        "every encoder is frozen and nothing else is trainable: set freeze=false or model.embed_dim"
    ]


PICTURE = [
    (EncoderConfig("vitt", dict(VIT)), "architecture is vitt: no such transformers model_type (did you mean vit"),
    (EncoderConfig("vit", {"hiden_size": 16}), "config.hiden_size: unknown keyword (did you mean hidden_size?)"),
    (EncoderConfig("vit", {**VIT, "hidden_size": "wide"}), "hidden_size"),
    (EncoderConfig("vit", {**VIT, "hidden_act": "unheard-of"}), "cannot be built"),
    (EncoderConfig("clip_vision_model", {**VIT, "num_attention_heads": 3}), "not a multiple"),
    (EncoderConfig("convnext", {}), "takes no images of shape [1, 8, 4]"),
    (EncoderConfig("vit", {**VIT, "patch_size": 3}), "patches of [3, 3] pixels do not tile images of [8, 4]"),
    (EncoderConfig("vit", {**VIT, "image_size": 8}), "expects images of [8, 8] pixels"),
    (EncoderConfig("vit", {**VIT, "num_channels": 3}), "expects 3 channels: set data.modalities.picture.channels=3"),
    (EncoderConfig("clip", {}), "architecture clip is not a single encoder"),
    (EncoderConfig(pretrained="./no-such-folder"), "pretrained: cannot open './no-such-folder'"),
]


@pytest.mark.parametrize(("encoder", "message"), PICTURE, ids=[message[:40] for _, message in PICTURE])
def test_image_encoder_problems(encoder: EncoderConfig, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = small_config()
    config.model.encoders["picture"] = encoder
    problems, _, _ = check_model(config)
    assert len(problems) == 1 and message in problems[0] and "model.encoders.picture" in problems[0]


def test_vector_encoder_problems() -> None:
    config = small_config()
    config.model.encoders["genes"] = EncoderConfig("mlp", {"hidden_size": 0, "input_size": 9})
    problems, _, _ = check_model(config)
    assert [p.removeprefix("model.encoders.genes.config.") for p in problems] == [
        "output_size is missing: the mlp needs it",
        "hidden_size is 0: a whole number above 0 is needed",
        "input_size is 9, but the data has 7 features: leave it out",
    ]
    config.model.encoders["genes"] = EncoderConfig("mlp", {**MLP, "width": 3})
    assert "config.width: unknown keyword" in check_model(config)[0][0]


def text_config(length: int = 8, **bert: int) -> Config:
    """The small config with another text length or another BERT."""
    config = small_config()
    config.data.modalities["caption"] = ModalityConfig(Kind.text, max_length=length)
    config.model.encoders["caption"].config = {**BERT, **bert}
    return config


def test_text_that_does_not_fit_its_encoder() -> None:
    problems, _, _ = check_model(text_config(length=17, vocab_size=9))
    assert "max_length is 17, but the encoder has 16 positions" in problems[0]
    assert "vocab_size is 9, but the tokenizer needs 10" in problems[1]
    with pytest.raises(UnusableError, match="16 positions"):
        build_model(text_config(length=17))
    assert check_model(text_config(length=16))[0] == []


def test_roberta_counts_positions_from_behind_its_padding() -> None:
    model = RobertaModel(RobertaConfig(**LAYERS, vocab_size=9, max_position_embeddings=18, pad_token_id=1))
    assert position_limit(model) == 16


def test_tokenizer_that_is_not_built_yet_is_a_note(tmp_path: Path) -> None:
    config = small_config(path=str(tmp_path / "digits"))
    config.model.encoders["caption"].tokenizer = str(tmp_path / "digits" / "tokenizer")
    problems, notes, _ = check_model(config)
    assert problems == [] and any("not built yet: run make small" in note for note in notes)


def test_tokenizer_that_nobody_builds_is_a_problem(tmp_path: Path) -> None:
    config = small_config()
    config.model.encoders["caption"].tokenizer = str(tmp_path / "elsewhere")
    problems, _, _ = check_model(config)
    assert len(problems) == 1 and "model.encoders.caption.tokenizer: cannot open" in problems[0]


def test_all_problems_are_reported_together() -> None:
    config = text_config(length=99)
    config.model.encoders["picture"].config["patchsize"] = 2
    config.model.encoders["genes"].config = {}
    assert len(check_model(config)[0]) == 4


def test_name_that_torch_needs_for_itself() -> None:
    config = small_config()
    config.data.modalities["values"] = config.data.modalities.pop("genes")
    config.model.encoders["values"] = config.model.encoders.pop("genes")
    assert check_model(config)[0] == ["data.modalities.values: torch needs this name for itself, choose another one"]


def test_damaged_dataset_json_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text("{")
    assert "dataset.json is damaged" in check_model(small_config(path=str(tmp_path)))[0][0]


def test_a_tokenizer_is_looked_at_also_where_the_weights_cannot_be_opened(tmp_path: Path) -> None:
    config = small_config()
    config.model.encoders["caption"] = EncoderConfig(
        pretrained=str(tmp_path / "weights"), tokenizer=str(tmp_path / "tokenizer")
    )
    tokenizer, weights = check_model(config).problems
    assert "model.encoders.caption.tokenizer: cannot open" in tokenizer
    assert "model.encoders.caption.pretrained: cannot open" in weights
