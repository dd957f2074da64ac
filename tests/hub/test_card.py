"""The model card: valid metadata, real numbers, nothing private."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from mmpretrain.data.info import DatasetInfo
from mmpretrain.hub.card import CardFacts, TrainingFacts, model_card, public, usage

INFO = DatasetInfo("digits", "Scanned digits", "scikit-learn", "CC BY 4.0", {}, classes=["zero", "one"])
MODALITIES = {"left": {"kind": "image", "size": [8, 4], "channels": 1}, "caption": {"kind": "text", "max_length": 8}}
EVALUATION = {
    "linear_probe/left/accuracy": 0.91234567,
    "linear_probe/left/accuracy/chance": 0.1,
    "retrieval/left->caption/recall@1": 0.5,
    "classification/roc_auc": 0.75,
}


def facts(**changes: Any) -> CardFacts:
    """Facts of a made-up run."""
    known: dict[str, Any] = {
        "name": "demo",
        "method": "m3col",
        "dataset": INFO,
        "hyperparameters": {"optim": {"lr": 0.001}, "data": {"path": "/home/someone/data/digits"}},
        "training": TrainingFacts(12800, 100, 2, 1234.5, "2 x CPU"),
        "evaluation": EVALUATION,
    }
    return CardFacts(**known | changes)


def test_metadata_is_what_the_hub_reads() -> None:
    metadata = model_card(facts(license="mit"), MODALITIES, True).data.to_dict()
    assert (metadata["library_name"], metadata["pipeline_tag"]) == ("transformers", "feature-extraction")
    assert metadata["license"] == "mit" and metadata["datasets"] == ["digits"] and "m3col" in metadata["tags"]
    (result,) = metadata["model-index"][0]["results"]
    assert {metric["name"]: metric["value"] for metric in result["metrics"]} == {
        "linear probe (left): accuracy": 0.912346,
        "retrieval (left->caption): recall@1": 0.5,
        "classification: roc_auc": 0.75,
    }
    assert [metric["type"] for metric in result["metrics"]] == ["accuracy", "recall@1", "roc_auc"]
    assert result["dataset"] == {"name": "Scanned digits", "type": "digits", "split": "test"}


def test_body_tells_data_method_training_and_evaluation() -> None:
    text = str(model_card(facts(), MODALITIES, True))
    for part in (
        "arXiv:2409.17777",
        "Source: scikit-learn",
        "License: CC BY 4.0",
        "12,800 in 100 optimizer steps",
        "Processes: 2",
        "1,234 samples per second",
        "| linear probe (left) | accuracy | 0.9123 | 0.1000 |",
        "| classification | roc_auc | 0.7500 |  |",
        "lr: 0.001",
        "not chosen by who trained them",
    ):
        assert part in text


def test_card_without_evaluation_or_unknown_method() -> None:
    card = model_card(facts(evaluation={}, method="other"), MODALITIES, False)
    assert "## Evaluation" not in str(card) and "model-index" not in card.data.to_dict()
    assert "Method: other" in str(card) and "logits" not in str(card)


def test_nothing_private_is_published() -> None:
    secret = {"hub_token": "hf_" + "a" * 30, "note": "hf_" + "b" * 30, "tokenizer": "/home/someone/tokenizer"}
    hyperparameters = {"data": {"path": "/home/someone/digits", "build": "make DATA=/home/someone/x"}, "hub": secret}
    text = str(model_card(facts(hyperparameters=hyperparameters), MODALITIES, True))
    assert "someone" not in text and "hf_" not in text and "hub_token" not in text
    config = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert config == {
        "data": {"path": "digits", "build": "make DATA=x"},
        "hub": {"note": None, "tokenizer": "tokenizer"},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://arxiv.org/abs/1 and 1 / 2", "https://arxiv.org/abs/1 and 1 / 2"),
        ("file:///srv/a/b ~/c/d host:/e/f", "b d host:f"),
        ("a/b ./c ../d", "a/b ./c ../d"),
        ("s3://user:word@bucket/x", "s3://bucket/x"),
    ],
)
def test_only_absolute_paths_and_credentials_are_cut(text: str, expected: str) -> None:
    assert public(text) == expected


def test_base_models_are_hub_ids_only() -> None:
    encoders = {"a": {"pretrained": "google/vit-base"}, "b": {"pretrained": "/srv/bert"}, "c": {"pretrained": None}}
    metadata = model_card(facts(hyperparameters={"model": {"encoders": encoders}}), MODALITIES, True).data
    assert metadata.to_dict()["base_model"] == ["google/vit-base"]


def test_usage_is_code() -> None:
    for has_classifier in (True, False):
        compile(usage(MODALITIES | {"genes": {"kind": "vector", "size": [7]}}, has_classifier), "usage", "exec")
