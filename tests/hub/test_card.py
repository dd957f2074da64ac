"""The model card: valid metadata, real numbers, nothing private."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from mmpretrain.config.compose import compose
from mmpretrain.config.root import license_problem
from mmpretrain.data.info import DatasetInfo
from mmpretrain.hub.card import CardFacts, Offered, TrainingFacts, model_card, public
from mmpretrain.hub.card_parameters import used_parameters
from mmpretrain.hub.card_usage import sentence_transformers_usage, usage

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
    metadata = model_card(facts(license="mit"), MODALITIES, Offered(classifier=True)).data.to_dict()
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
    text = str(model_card(facts(), MODALITIES, Offered(classifier=True)))
    for part in (
        "arXiv:2409.17777",
        "Source of the data: scikit-learn",
        "License of the data: CC BY 4.0",
        "12,800 in 100 optimizer steps",
        "0.00576 hours of 2 processes together, 1,234 samples per second",
        "| linear probe (left) | accuracy | 0.9123 | 0.1000 |",
        "| classification | roc_auc | 0.7500 |  |",
        "lr: 0.001",
        "not chosen by who trained them",
    ):
        assert part in text


def test_card_without_evaluation_or_unknown_method() -> None:
    card = model_card(facts(evaluation={}, method="other"), MODALITIES, Offered())
    assert "## Evaluation" not in str(card) and "model-index" not in card.data.to_dict()
    assert "Method: other" in str(card) and "logits" not in str(card)


def test_nothing_private_is_published() -> None:
    secret = {"hub_token": "hf_" + "a" * 30, "note": "hf_" + "b" * 30, "tokenizer": "/home/someone/tokenizer"}
    hyperparameters = {"data": {"path": "/home/someone/digits", "build": "make DATA=/home/someone/x"}, "hub": secret}
    text = str(model_card(facts(hyperparameters=hyperparameters), MODALITIES, Offered(classifier=True)))
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
        ("</details> yes /no +/- ${data.path}/train/x", "</details> yes /no +/- ${data.path}/train/x"),
    ],
)
def test_only_absolute_paths_and_credentials_are_cut(text: str, expected: str) -> None:
    assert public(text) == expected


def test_base_models_are_hub_ids_only() -> None:
    encoders = {"a": {"pretrained": "google/vit-base"}, "b": {"pretrained": "/srv/bert"}, "c": {"pretrained": None}}
    metadata = model_card(
        facts(hyperparameters={"model": {"encoders": encoders}}), MODALITIES, Offered(classifier=True)
    ).data
    assert metadata.to_dict()["base_model"] == ["google/vit-base"]


def test_intervals_and_scores_of_classes_have_their_place() -> None:
    scores = {
        "probe/a/accuracy": 0.9,
        "probe/a/accuracy/low": 0.8,
        "probe/a/accuracy/high": 0.95,
        "probe/a/recall/x": 1.0,
    }
    card = model_card(facts(evaluation=scores), MODALITIES, Offered())
    text, folded = str(card).split("<details><summary>Further scores")
    assert "| probe (a) | accuracy | 0.9000 | 0.8000 to 0.9500 |" in text and "recall/x" in folded
    assert str(card).count("<details>") == str(card).count("</details>") == 2
    (result,) = card.data.to_dict()["model-index"][0]["results"]
    assert [metric["type"] for metric in result["metrics"]] == ["accuracy"]


def test_scores_of_seen_data_are_no_claims() -> None:
    card = model_card(facts(not_held_out="they are the samples that the model learned from"), MODALITIES, Offered())
    assert "model-index" not in card.data.to_dict()
    assert "No claim about new data:** they are the samples" in str(card) and "Evaluation on the test" not in str(card)


def test_scores_of_weights_that_were_rounded_afterwards_are_no_claims() -> None:
    card = model_card(facts(rounded_to="bfloat16"), MODALITIES, Offered())
    assert "model-index" not in card.data.to_dict() and "rounded to bfloat16" in str(card)


def test_spaces_that_are_connected_are_named() -> None:
    pairs = DatasetInfo("p", "Pairs", "x", "mit", {}, provenance={"first": {"release": "clip-b"}, "shared": "text"})
    method = {"first": "openai/clip-vit-base-patch32", "second": "runs/audio/release"}
    card = model_card(facts(method="cmcr", dataset=pairs, hyperparameters={"method": method}), MODALITIES, Offered())
    assert "- Made from: `audio`, `clip-b`, `openai/clip-vit-base-patch32`" in str(card)
    assert "openai/clip-vit-base-patch32" in card.data.to_dict()["base_model"]


def test_paper_and_limits_are_there() -> None:
    text = str(model_card(facts(), MODALITIES, Offered()))
    assert "eprint = {2409.17777}" in text and "at most 8 tokens" in text and "8 x 4 pixels" in text


@pytest.mark.parametrize(
    ("method", "used", "unused"),
    [
        ("clip", {"embed_dim", "encoders"}, {"fusion", "factors", "components", "projectors", "classifier_hidden"}),
        ("comm", {"fusion", "encoders"}, {"embed_dim", "factors", "components"}),
        ("m3col", {"classifier_hidden"}, {"fusion", "factors"}),
    ],
)
def test_parameters_are_those_that_the_method_uses(method: str, used: set[str], unused: set[str]) -> None:
    found = used_parameters(compose([f"method={method}", "data=digits"]))
    assert used <= set(found["model"]) and not unused & set(found["model"])
    assert not {"run", "checkpoint", "evaluation"} & set(found) and "workers" not in found["data"]
    assert None not in found["model"]["encoders"]["left"].values() and found["method"]["name"] == method


@pytest.mark.parametrize(("license", "fine"), [("mit", True), ("cc-by-4.0", True), ("MIT", False), ("my own", False)])
def test_licenses_are_spelled_as_on_the_hub(license: str, fine: bool) -> None:
    assert (license_problem(license) is None) is fine


def test_usage_is_code() -> None:
    every = Offered(True, "softmax", True, True, ("text", "image", "audio"))
    for offered in (every, Offered()):
        compile(usage(MODALITIES | {"genes": {"kind": "vector", "size": [7]}}, offered), "usage", "exec")
    for kind in ("text", "image", "audio"):
        compile(sentence_transformers_usage(Offered(sentence_transformers=(kind,))), "usage", "exec")
