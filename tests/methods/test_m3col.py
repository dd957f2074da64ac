"""M3CoL as a method: schedule, mixing levels, what runs when, what it refuses."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from transformers import BertConfig

from mmpretrain.assembly.build import build_model
from mmpretrain.config.compose import compose
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.methods.names import MixLevel, MixScope
from mmpretrain.config.objective import Negatives
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Losses, Method
from mmpretrain.methods.m3col import M3col, Phase, _mixed_at_input
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.methods.toys import CLASSES, make_batch, make_config, make_method, make_step

BEFORE, AFTER = 2.9, 3.0  # epochs around the switch of a run of 10


def objective(method: Method, batch: Batch, epoch: float = BEFORE) -> Losses:
    """The losses of a batch on one process, from its preparation on."""
    step = make_step(epoch)
    return method.objective(method.encode(method.model, method.prepare(batch, step)), step, World.single())


def m3col(config: Config) -> M3col:
    """The method."""
    method = make_method(config)
    assert isinstance(method, M3col)
    return method


@pytest.mark.parametrize(("epochs", "switch"), [(500, 165), (25, 8), (50, 16), (10, 3), (2, 0.66)])
def test_the_soft_loss_begins_at_the_stated_epoch(epochs: int, switch: float) -> None:
    method = m3col(make_config("m3col"))
    for epoch in (0, switch - 1, switch - 0.01, switch, switch + 1, epochs - 0.01):
        if epoch >= 0:
            expected = Phase.m3co if epoch < switch else Phase.soft
            assert method.phase(Step(0, epoch, epochs, 0)) is expected


def test_a_share_that_is_not_exact_in_binary_loses_no_epoch() -> None:
    method = m3col(make_config("m3col", switch=0.29))
    assert int(0.29 * 100) == 28
    assert method.phase(Step(0, 28.9, 100, 0)) is Phase.m3co and method.phase(Step(0, 29, 100, 0)) is Phase.soft


def test_cross_entropies_do_not_change_at_the_switch() -> None:
    config = make_config("m3col", 3)
    method, batch = m3col(config), make_batch(config)
    before, after = objective(method, batch), objective(method, batch, AFTER)
    cross_entropies = ["fusion", "unimodal_mrna", "unimodal_methylation", "unimodal_mirna"]
    assert list(before.terms) == [*cross_entropies, "m3co"] and list(after.terms) == [*cross_entropies, "soft"]
    assert all(before.terms[name] == after.terms[name] for name in cross_entropies)
    assert before.weights == {"m3co": 0.1} and after.weights == {"soft": 0.1}
    plain = sum(before.terms[name].item() for name in cross_entropies)
    assert before.total.item() == pytest.approx(plain + 0.1 * before.terms["m3co"].item())
    assert before.diagnostics.keys() == {f"accuracy/{name}" for name in before.terms}


@pytest.mark.parametrize(
    ("settings", "epoch", "calls"),
    [
        ({"mix_level": MixLevel.input}, BEFORE, 2),
        ({"mix_level": MixLevel.embedding}, BEFORE, 1),
        ({"mix_level": MixLevel.input}, AFTER, 1),
        ({"mix_level": MixLevel.input, "weight": 0.0}, BEFORE, 1),
    ],
)
def test_encoders_run_twice_only_where_inputs_are_mixed(settings: dict, epoch: float, calls: int) -> None:
    config = make_config("m3col", **settings)
    method, batch = m3col(config), make_batch(config)
    with patch.object(method.model.encoders["mrna"], "forward", wraps=method.model.encoders["mrna"].forward) as run:
        objective(method, batch, epoch)
    assert run.call_count == calls


def test_without_weight_only_cross_entropies_are_computed() -> None:
    config = make_config("m3col", weight=0.0)
    method, batch = m3col(config), make_batch(config)
    assert method.prepare(batch, make_step()) is batch
    assert list(objective(method, batch).terms) == ["fusion", "unimodal_mrna", "unimodal_methylation"]


@pytest.mark.parametrize("level", list(MixLevel))
@pytest.mark.parametrize("official", [False, True])
def test_nothing_is_mixed_in_place(level: MixLevel, official: bool) -> None:
    config = make_config("m3col", 3, mix_level=level, official_aliasing=official, official_self_pairs=official)
    method, batch = m3col(config), make_batch(config)
    inputs = {name: tensors["values"].clone() for name, tensors in batch.inputs.items()}
    features = method.encode(method.model, method.prepare(batch, make_step()))
    embeds = {name: rows.detach().clone() for name, rows in features.embeds.items()}
    method.objective(features, make_step(), World.single())
    assert all(torch.equal(inputs[name], batch.inputs[name]["values"]) for name in inputs)
    assert all(torch.equal(embeds[name], features.embeds[name]) for name in embeds)


def test_default_mixing_is_on_inputs_in_one_group() -> None:
    config = make_config("m3col")
    method, batch = m3col(config), make_batch(config)
    prepared = method.prepare(batch, make_step())
    assert prepared.views["mixed"].keys() == batch.inputs.keys() == prepared.mixing.keys()
    assert prepared.mixing["mrna"].partner.max() == len(batch) - 1


@pytest.mark.parametrize("scale", [0.3, 20.0])
@pytest.mark.parametrize("epoch", [BEFORE, AFTER])
def test_the_contrastive_term_ignores_the_length_of_embeddings(scale: float, epoch: float) -> None:
    config = make_config("m3col", 3, mix_level=MixLevel.embedding)
    method, batch = m3col(config), make_batch(config)
    features = method.encode(method.model, method.prepare(batch, make_step(epoch)))

    def contrast() -> Tensor:
        return list(method.objective(features, make_step(epoch), World.single()).terms.values())[-1]

    before = contrast().item()
    features.embeds["methylation"] = scale * features.embeds["methylation"]
    assert contrast().item() == pytest.approx(before, rel=1e-12)


def with_text(**settings: Any) -> tuple[Config, MMPretrainModel]:
    """A config with a vector and a text, and a model for it."""
    config = make_config("m3col", 1, **settings)
    config.data.modalities["caption"] = ModalityConfig(Kind.text, max_length=6)
    bert = BertConfig(
        vocab_size=20, hidden_size=4, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    mlp = {"input_size": 5, "hidden_size": 16, "output_size": 4}
    encoders = {
        "mrna": {"architecture": "mlp", "config": mlp, "pool": "cls"},
        "caption": {"architecture": "bert", "config": bert.to_dict(), "pool": "cls"},
    }
    torch.manual_seed(0)
    return config, MMPretrainModel(MMPretrainConfig(encoders=encoders, classifier_hidden=6, num_labels=CLASSES))


def test_texts_are_mixed_as_embeddings_beside_raw_inputs_of_others() -> None:
    config, model = with_text()
    method, batch = M3col(config, model), make_batch(make_config("m3col"), dtype=torch.float32)
    tokens = {"input_ids": torch.arange(96).view(16, 6) % 20, "attention_mask": torch.ones(16, 6, dtype=torch.long)}
    batch.inputs["caption"] = tokens
    del batch.inputs["methylation"]
    prepared = method.prepare(batch, make_step())
    assert prepared.views["mixed"].keys() == {"mrna"} and prepared.mixing.keys() == {"mrna", "caption"}
    objective(method, batch).total.backward()
    for name, parameter in model.encoders.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_sequences_are_mixed_as_embeddings() -> None:
    config = make_config("m3col", 2)
    config.data.modalities["mrna"] = ModalityConfig(Kind.sequence, [4, 5])
    assert _mixed_at_input(config, MixLevel.auto) == ["methylation"]
    with pytest.raises(ValueError, match="mix_level=input cannot mix the tokens of mrna"):
        _mixed_at_input(config, MixLevel.input)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="mix_level=input cannot mix the tokens of caption"):
        M3col(*with_text(mix_level=MixLevel.input))
    alone = make_config("m3col", 2, Negatives.local, mix_level=MixLevel.embedding, mix_scope=MixScope.global_batch)
    with pytest.raises(ValueError, match=r"global_batch excludes objective\.negatives=local"):
        make_method(alone)


def test_the_rosmap_model_has_as_many_parameters_as_the_released_code() -> None:
    config = make_config("m3col", 3)
    config.data.classes, config.model.classifier_hidden = 2, 1000
    mlp = {"input_size": 200, "hidden_size": 1000, "output_size": 1000}
    spec = {"architecture": "mlp", "config": mlp, "pool": "cls"}
    encoders = dict.fromkeys(config.data.modalities, spec)
    with torch.device("meta"):
        model = MMPretrainModel(MMPretrainConfig(encoders=encoders, classifier_hidden=1000, num_labels=2))
        method = M3col(config, model)
    heads = sum(p.numel() for p in method.heads.parameters())
    assert sum(p.numel() for p in model.parameters()) + heads == 9_618_008


def test_without_unimodal_heads_the_fusion_and_the_contrast_are_left() -> None:
    whole, without = (make_config("m3col", 3, unimodal_weight=weight) for weight in (1.0, 0.0))
    method = m3col(without)
    assert len(method.heads) == 0 and len(m3col(whole).heads) == 3
    found, expected = objective(method, make_batch(without)), objective(m3col(whole), make_batch(whole))
    assert list(found.terms) == ["fusion", "m3co"]
    assert all(torch.equal(term, expected.terms[name]) for name, term in found.terms.items())


def test_the_weight_of_unimodal_heads_scales_their_cross_entropies_alone() -> None:
    configs = [make_config("m3col", unimodal_weight=weight) for weight in (0.5, 1.0)]
    half, whole = (objective(m3col(config), make_batch(config)) for config in configs)
    unimodal = torch.stack([term for name, term in whole.terms.items() if name.startswith("unimodal_")]).sum()
    torch.testing.assert_close(whole.total - half.total, 0.5 * unimodal)


def test_dropout_acts_in_all_heads_while_training_and_nowhere_else() -> None:
    config = make_config("m3col")
    plain = m3col(config)
    config.model.classifier_dropout = 0.5
    method = m3col(config)
    assert [head.dropout for head in method.heads.values()] == [0.5] * len(method.heads)
    head, rows = method.heads["unimodal_mrna"], torch.randn(64, 4, dtype=torch.float64)
    once, again = head(rows), head(rows)
    assert not torch.equal(once, again)
    mean, expected = torch.stack([head(rows) for _ in range(400)]).mean(0), plain.heads["unimodal_mrna"](rows)
    torch.testing.assert_close(mean, expected, atol=0.2, rtol=0)
    assert torch.equal(head.eval()(rows), expected)


def test_the_dropout_of_the_classifier_stands_in_the_models_config() -> None:
    model = build_model(compose(["experiment=rosmap", "model.classifier_dropout=0.5"]))
    assert model.config.classifier_dropout == model.get_submodule("classifier").dropout == 0.5
