"""transformers' pipelines give the model's own numbers, or say in one sentence why not."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoTokenizer, BertConfig, FNetConfig, ViTConfig, pipeline

from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.places_mmpretrain import places_of
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from tests.models.small import BERT, LAYERS, VIT, fresh_interpreter
from tests.small_tokenizer import small_tokenizer

ZERO_SHOT: Any = "zero-shot-image-classification"
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 9, 3), dtype=np.uint8))
LABELS = ["a seven", "a bold light three", "digit"]
IMAGE = {"kind": "image", "size": [8, 4], "channels": 3, "resize": "crop"}
TEXT = {"kind": "text", "max_length": 12}
# Of both pipelines, where this package is absent.
OPEN = """
import pickle
from transformers import pipeline
folder, (picture, labels, scores, embed) = sys.argv[1], pickle.load(open(sys.argv[2], "rb"))
classify = pipeline("zero-shot-image-classification", model=folder, trust_remote_code=True)
found = classify(picture, candidate_labels=labels, hypothesis_template="{}")
assert all(abs(one["score"] - scores[one["label"]]) < 1e-6 for one in found), found
(features,) = pipeline("feature-extraction", model=folder, trust_remote_code=True)(labels[0])
assert max(abs(a - b) for a, b in zip(features, embed)) < 1e-5
"""


def made(folder: Path, form: str | None = "softmax", text: str = "bert", **more: Any) -> Path:
    """A release's model and processor: ``picture`` and ``caption``. more: further modalities of the processor."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer())
    processor = MMPretrainProcessor({"picture": IMAGE, "caption": TEXT, **more}, {"caption": tokenizer})
    towers: dict[str, Any] = {
        "bert": BertConfig(**BERT, vocab_size=len(tokenizer)),
        "fnet": FNetConfig(**LAYERS, vocab_size=len(tokenizer), max_position_embeddings=12),  # mixes in what is padding
    }
    picture = ViTConfig(**VIT, image_size=[8, 4], num_channels=3).to_dict()
    encoders = {name: {"architecture": "vit", "config": picture, "pool": "cls"} for name in ("picture", *more)}
    encoders["caption"] = {"architecture": text, "config": towers[text].to_dict(), "pool": "mean"}
    config = MMPretrainConfig(encoders, embed_dim=8, method="clip", similarity={"form": form} if form else None)
    config.places = {"caption": places_of(TEXT, tokenizer)}
    MMPretrainModel(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@torch.no_grad()
def expected(folder: Path) -> tuple[dict[str, float], torch.Tensor]:
    """Label -> its probability for the picture, and the embeddings of the labels."""
    model = AutoModel.from_pretrained(folder)
    output = model(**MMPretrainProcessor.from_pretrained(folder)(images=PICTURE, text=LABELS))
    scores = model.pair_probabilities(output, "image", "text")[0]
    return dict(zip(LABELS, scores.tolist(), strict=True)), output.embeds["caption"]


@pytest.mark.parametrize("text", ["bert", "fnet"])
def test_pipelines_give_the_probabilities_and_embeddings_of_the_model(tmp_path: Path, text: str) -> None:
    """Also where padding is seen: the pipelines pad to the longest text of a call."""
    folder = made(tmp_path, text=text)
    scores, embeds = expected(folder)
    found = pipeline(ZERO_SHOT, model=str(folder))(PICTURE, candidate_labels=LABELS, hypothesis_template="{}")
    assert {one["label"]: one["score"] for one in found} == pytest.approx(scores, abs=1e-6)
    features = pipeline("feature-extraction", model=str(folder))
    for label, embed in zip(LABELS, embeds, strict=True):
        assert torch.allclose(features(label, return_tensors=True)[0], embed, atol=1e-5)
    images: Any = pipeline("image-feature-extraction", model=str(folder))(PICTURE, return_tensors=True)
    with torch.no_grad():
        processed = MMPretrainProcessor.from_pretrained(folder)(images=PICTURE)
        assert torch.allclose(images, AutoModel.from_pretrained(folder).get_embeds(**processed)["picture"], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"form": "sigmoid"},
            "it gives every pair a probability of its own (sigmoid), and the pipeline takes a softmax",
        ),
        ({"form": None}, "its method (clip) ships no similarity of an image and a text"),
        ({"other": IMAGE}, "one image and one text are needed, and its modalities are picture, other, caption"),
    ],
)
def test_a_pipeline_whose_numbers_would_mean_nothing_is_refused(tmp_path: Path, options: Any, said: str) -> None:
    with pytest.raises(ValueError) as error:
        pipeline(ZERO_SHOT, model=str(made(tmp_path, **options)))
    assert f"{ZERO_SHOT} does not work with this model: {said}" in str(error.value)


@pytest.mark.processes
def test_pipelines_work_where_this_package_is_absent(tmp_path: Path) -> None:
    folder = made(tmp_path / "release")
    scores, embeds = expected(folder)
    (tmp_path / "expected.pkl").write_bytes(pickle.dumps((PICTURE, LABELS, scores, embeds[0].tolist())))
    fresh_interpreter(OPEN, tmp_path, str(folder), str(tmp_path / "expected.pkl"), ours=False)


@torch.no_grad()
def test_texts_of_any_padding_get_one_embedding(tmp_path: Path) -> None:
    folder = made(tmp_path, text="fnet")
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    whole = tokenizer(LABELS, padding="max_length", return_tensors="pt")
    right = model(**whole).embeds["caption"]
    for padding, side in ((True, "right"), (True, "left"), ("max_length", "left")):
        tokens = tokenizer(LABELS, padding=padding, padding_side=side, return_tensors="pt")
        assert torch.allclose(model(**tokens).embeds["caption"], right, atol=1e-6)
    alone = tokenizer(LABELS[0], return_tensors="pt")
    found = model(input_ids=alone["input_ids"], token_type_ids=None).embeds["caption"]
    assert torch.allclose(found, right[:1], atol=1e-6)
    # What it would be if nothing were added.
    model.config.places = None
    assert (model(**alone).embeds["caption"] - right[:1]).abs().max() > 1e-2


@torch.no_grad()
def test_a_compiled_model_fills_short_texts_too(tmp_path: Path) -> None:
    folder = made(tmp_path, text="fnet")
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    alone = dict(tokenizer(LABELS[0], return_tensors="pt"))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**alone).embeds["caption"], model(**alone).embeds["caption"])


@torch.no_grad()
def test_states_of_filled_texts_come_back_at_the_places_of_the_caller(tmp_path: Path) -> None:
    folder = made(tmp_path)
    model, tokenizer = (
        AutoModel.from_pretrained(folder, attn_implementation="eager"),
        AutoTokenizer.from_pretrained(folder),
    )
    found = {}
    for side in ("left", "right"):
        tokens = tokenizer(LABELS[:2], padding=True, padding_side=side, return_tensors="pt")
        found[side] = (
            model(**tokens, output_hidden_states=True, output_attentions=True),
            tokens["attention_mask"].bool(),
        )
    (left, behind), (right, before) = found["left"], found["right"]
    for one, other in zip(left.hidden_states["caption"], right.hidden_states["caption"], strict=True):
        assert one.shape[1] == behind.shape[1]
        torch.testing.assert_close(one[behind], other[:, : behind.shape[1]][before])
    assert left.attentions["caption"][0].shape[2:] == (behind.shape[1],) * 2


@pytest.mark.parametrize("padded", [False, True], ids=["by the batch", "whole"])
def test_texts_longer_than_those_of_training_are_refused(tmp_path: Path, padded: bool) -> None:
    """The processor cuts them, so that other embeddings would come of them."""
    folder = made(tmp_path)
    model, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    if not padded:
        del model.config.places["caption"]["filler"]
    long = " ".join(LABELS * 3)
    tokens = tokenizer(long, return_tensors="pt")
    count = tokens["input_ids"].shape[1]
    said = f"modality 'caption' has texts of {count} tokens, and this model was trained on at most 12"
    with pytest.raises(ValueError, match=said):
        model(**tokens)
    model(**tokenizer(long, truncation=True, return_tensors="pt"))
