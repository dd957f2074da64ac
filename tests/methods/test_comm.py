"""CoMM as a method: its known values, where its gradients go, and what samples without a modality do."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmpretrain.assembly.check import check_model
from mmpretrain.config.compose import compose
from mmpretrain.config.methods.base import Exchange
from mmpretrain.config.methods.names import CommConfig, Pairing, Terms
from mmpretrain.config.objective import ObjectiveConfig
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.factor_probes import factor_probes
from mmpretrain.losses.tiled.preparation import Preparation
from mmpretrain.methods.base import Features, Losses, Method
from mmpretrain.methods.comm import Comm
from mmpretrain.methods.projection import ProjectionHead
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.fusion_mmpretrain import Fusion
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.pooling_mmpretrain import StateForm
from mmpretrain.models.sequence_mmpretrain import SequenceTransformer
from shards.trifeatures_pairs import PUBLISHED, SMALL, Levels, Pairs, allowed_pairs, obeys, split_images
from tests.methods.toys import NAMES, make_batch, make_config, make_method, make_step
from tests.submodules import linear_layers

HEADS: dict[str, Any] = {"head_hidden": 8, "head_width": 6}
LACKING = ("mrna", "mirna")


def start(modalities: int = 3, **settings: Any) -> tuple[Comm, Batch]:
    """The method, and its prepared batch."""
    config = make_config("comm", modalities, **{**HEADS, **settings})
    method = make_method(config)
    assert isinstance(method, Comm)
    return method, method.prepare(make_batch(config), make_step())


def encoded(method: Method, batch: Batch) -> Features:
    """The features of the batch."""
    return method.encode(method.model, batch)


def lose(method: Method, features: Features) -> Losses:
    """The losses of features on one process."""
    return method.objective(features, make_step(), World.single())


def values(losses: Losses) -> dict[str, float]:
    """Term -> its value."""
    return {name: term.item() for name, term in losses.terms.items()}


@pytest.mark.parametrize("pairing", Pairing)
def test_collapse_is_the_log_of_all_candidates_for_every_term(pairing: Pairing) -> None:
    method, batch = start(pairing=pairing)
    torch.nn.init.zeros_(linear_layers(method.heads["projection"])[-1].weight)
    features = replace(encoded(method, batch), sample_ids=torch.arange(len(batch)))
    losses, n, size = lose(method, features), len(NAMES), len(batch)
    each = math.log(size if pairing is Pairing.paper else 2 * size - 1)
    assert values(losses) == pytest.approx(dict.fromkeys(["fused", *NAMES], each), rel=1e-12)
    whole = (n + 1) * each if pairing is Pairing.paper else each
    assert losses.total.item() == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("pairing", Pairing)
@pytest.mark.parametrize(("size", "ntx"), [(4, 2.72362e-4), (64, 5.70409e-3)])
def test_orthogonal_samples_in_agreement(pairing: Pairing, size: int, ntx: float) -> None:
    """comm.md's values at temperature 0.1; a head that passes on what it is given."""
    config = make_config("comm", 2, pairing=pairing, **HEADS)
    method = make_method(config)
    method.heads["projection"] = torch.nn.Identity()
    rows = 3 * torch.eye(size, dtype=torch.float64)  # their length must not matter
    both = {name: rows for name in NAMES[:2]}
    ids = torch.arange(size)
    features = Features(both, None, ids, ids, views=dict.fromkeys(("first", "second"), both))
    features = replace(features, fused={"first": rows, "second": rows})
    seen = 2 * (size - 1) if pairing is Pairing.code else size - 1
    expected = math.log(1 + seen * math.exp(-10))
    assert values(lose(method, features)) == pytest.approx(dict.fromkeys(["fused", *NAMES[:2]], expected), rel=1e-12)
    if pairing is Pairing.code:
        assert expected == pytest.approx(ntx, rel=1e-5)


@pytest.mark.parametrize("pairing", Pairing)
def test_each_sample_there_twice_costs_at_least_the_log_of_its_copies(pairing: Pairing) -> None:
    """Whoever hides that rows are copies: what two ranks that draw the same samples would see."""
    method, batch = start(pairing=pairing, temperature=0.01)
    features = encoded(method, batch)
    half = [tensor[:8].repeat(2, 1) for tensor in features.tensors]
    features = replace(features.with_tensors(half, batch), sample_ids=torch.arange(16))
    floor = math.log(2 if pairing is Pairing.paper else 3)
    assert all(value >= floor for value in values(lose(method, features)).values())
    aware = replace(features, sample_ids=torch.arange(8).repeat(2))
    assert lose(method, aware).total < lose(method, features).total


@pytest.mark.parametrize("pairing", Pairing)
def test_order_of_samples_does_not_matter(pairing: Pairing) -> None:
    method, batch = start(pairing=pairing, optional=LACKING)
    features = encoded(method, batch)
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(1))
    mixed = features.with_tensors([tensor[order] for tensor in features.tensors], batch)
    present = {name: rows[order] for name, rows in features.present.items()}
    mixed = replace(mixed, sample_ids=features.sample_ids[order], present=present)
    assert values(lose(method, mixed)) == pytest.approx(values(lose(method, features)), rel=1e-12)


@pytest.mark.parametrize(("pairing", "count"), [(Pairing.paper, 1), (Pairing.code, 4)])
def test_sum_of_the_paper_and_mean_of_the_code(pairing: Pairing, count: int) -> None:
    method, batch = start(pairing=pairing)
    losses = lose(method, encoded(method, batch))
    assert losses.total.item() == pytest.approx(sum(values(losses).values()) / count, rel=1e-12)
    assert losses.diagnostics.keys() == {f"accuracy/{name}" for name in ["fused", *NAMES]}


def test_ablations_are_parts_of_the_whole() -> None:
    for pairing in Pairing:
        losses = {}
        for terms in Terms:
            method, batch = start(pairing=pairing, terms=terms)
            losses[terms] = lose(method, encoded(method, batch))
        assert values(losses[Terms.unimodal]) | values(losses[Terms.fused]) == values(losses[Terms.all])
        assert losses[Terms.unimodal].terms.keys() == set(NAMES) and losses[Terms.fused].terms.keys() == {"fused"}
        parts = losses[Terms.unimodal].total + losses[Terms.fused].total
        assert parts.item() == pytest.approx(losses[Terms.all].total.item(), rel=1e-12)


def test_plain_inputs_are_seen_by_the_paper_only() -> None:
    calls: dict[Pairing, list[Any]] = {pairing: [] for pairing in Pairing}
    for pairing, seen in calls.items():
        method, batch = start(pairing=pairing)

        def model(seen: list[Any] = seen, method: Method = method, **inputs: dict[str, Tensor]) -> Any:
            seen.append(inputs)
            return method.model(**inputs)

        method.encode(model, batch)
        views = [batch.views["first"], batch.views["second"]]
        assert seen == views + ([batch.inputs] if pairing is Pairing.paper else [])


@pytest.mark.parametrize("pairing", Pairing)
def test_a_modality_learns_from_the_others_terms_through_the_whole_alone(pairing: Pairing) -> None:
    def gradient(detached: bool) -> float:
        method, batch = start(pairing=pairing)
        features = encoded(method, batch)
        if detached:
            features = replace(features, fused={view: rows.detach() for view, rows in features.fused.items()})
        lose(method, features).terms["mrna"].backward()
        other = method.model.encoders["mirna"].parameters()
        return sum(float(p.grad.abs().sum()) for p in other if p.grad is not None)

    assert gradient(detached=False) > 0 and gradient(detached=True) == 0


def test_alone_means_alone() -> None:
    method, batch = start()
    plain = encoded(method, batch)
    changed = {name: {"values": x["values"] + (name != "mrna")} for name, x in batch.inputs.items()}
    views = {
        view: {n: {"values": x["values"] + (n != "mrna")} for n, x in of.items()} for view, of in batch.views.items()
    }
    other = encoded(method, replace(batch, inputs=changed, views=views))
    assert torch.equal(other.embeds["mrna"], plain.embeds["mrna"])
    assert not torch.equal(other.embeds["mirna"], plain.embeds["mirna"])
    assert not any(torch.equal(other.fused[view], plain.fused[view]) for view in plain.fused)


@pytest.mark.parametrize("pairing", Pairing)
def test_what_a_missing_modality_holds_does_not_matter(pairing: Pairing) -> None:
    def step(garbage: float) -> tuple[dict[str, float], dict[str, Tensor]]:
        method, batch = start(pairing=pairing, optional=LACKING)
        for inputs in (batch.inputs, *batch.views.values()):
            for name in LACKING:
                inputs[name]["values"][~inputs[name]["present"]] = garbage
        losses = lose(method, encoded(method, batch))
        losses.total.backward()
        state = dict(method.heads.state_dict())
        parameters = [*method.model.named_parameters(), *method.heads.named_parameters()]
        return values(losses), state | {f"{name}.grad": p.grad for name, p in parameters if p.grad is not None}

    (losses, tensors), (losses_again, tensors_again) = step(0.0), step(1e3)
    assert losses == losses_again and tensors.keys() == tensors_again.keys()
    assert all(torch.equal(tensor, tensors_again[name]) for name, tensor in tensors.items())


@pytest.mark.parametrize("having", [0, 1, 2])
def test_a_modality_that_hardly_any_sample_has_is_left_out_of_the_step(having: int) -> None:
    method, batch = start(optional=("mrna",))
    there = torch.arange(len(batch)) < having
    features = replace(encoded(method, batch), present={"mrna": there})
    losses = lose(method, features)
    assert ("mrna" in losses.terms) == (having == 2) and losses.total.isfinite()


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("terms", Terms)
@pytest.mark.parametrize("pairing", Pairing)
def test_settings_say_what_travels(pairing: Pairing, terms: Terms, modalities: int) -> None:
    """As the loss itself counts it."""
    method, batch = start(modalities, pairing=pairing, terms=terms)
    world = World.single()
    pairs = [pair for term in method._pairs(encoded(method, batch), world).values() for pair in term]
    preparation = Preparation(pairs, 10.0, world, ObjectiveConfig(), None)
    sides = preparation.setup(metrics=False).traveling()
    assert method.model.embed_sizes.keys() == set(NAMES[:modalities])
    width = sum(preparation.sides[number].shape[1] for number in sides)
    assert method.settings.exchange(method.model.embed_sizes) == Exchange(width, len(pairs))
    if terms is Terms.all:
        assert len(sides) == (2 if pairing is Pairing.paper else 2 + 2 * modalities)


@pytest.mark.parametrize(("width", "published"), [(512, 658_688), (40, 417_024)])
def test_the_head_has_as_many_parameters_as_published(width: int, published: int) -> None:
    settings = CommConfig()
    head = ProjectionHead(width, settings.head_hidden, settings.head_width)
    assert sum(p.numel() for p in head.parameters()) == published


def test_encoders_of_sequences_have_as_many_parameters_as_those_of_the_paper() -> None:
    """MOSI's vision and text: a convolution of width 1 without bias to 40, and five pre-norm layers of 5 heads."""
    layers = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(40, 5, 2048, norm_first=True), 5, enable_nested_tensor=False
    )
    for features, expected in ((20, 864_040), (300, 875_240)):
        assert parameters(nn.Conv1d(features, 40, 1, bias=False)) + parameters(layers) == expected
        assert parameters(SequenceTransformer(features, 40)) == expected


def test_the_encoders_of_trifeatures_are_alexnets() -> None:
    """From the config of the published setting: 2,469,696 parameters of its convolutions each, a 1x1 one of 256 to 512
    behind each, and the fusion."""
    checked = check_model(compose(["method=comm", "experiment=trifeatures_paper"]))
    assert checked.problems == [] and checked.model is not None
    assert [parameters(encoder) for encoder in checked.model.encoders.values()] == [2_469_696] * 2
    assert checked.model.fusion is not None
    assert parameters(checked.model.fusion) == 3_153_920 + 2 * (256 * 512 + 512)


def test_the_largest_encoder_of_the_paper_has_as_many_parameters_as_published() -> None:
    """Vision & Touch, three modalities: a ResNet-18 and the fusion are ours to build by config; the MLP of the robot's
    state and the causal convolutions of forces, of layers that differ in width, are counted from their sizes."""
    resnet = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2] * 4, "layer_type": "basic"}
    with torch.device("meta"):
        images = Encoder("image", {"architecture": "resnet", "config": resnet, "pool": "mean"})
        states = {"image": (images.form, 512), "state": (StateForm.vector, 512), "force": (StateForm.vector, 512)}
        fusion = Fusion(states, 512, 8, vectors="one")
    mlp = sum(a * b + b for a, b in pairwise([8, 32, 64, 128, 512]))
    convolutions = sum(2 * a * b + b for a, b in pairwise([6, 16, 32, 64, 128, 512]))
    assert parameters(images) + parameters(fusion) + mlp + convolutions == 14_823_376


def parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("levels", [PUBLISHED, SMALL], ids=["published", "small"])
def test_who_always_gives_the_likelier_answer_has_half_of_the_synergy(levels: Levels) -> None:
    """Balanced accuracy, as factors are scored; biased pairs alone have one answer and cannot be scored."""
    factors, mapping = {"synergy": 2}, levels.mapping()
    for images in split_images(levels):
        every, biased = (
            obeys(images, allowed_pairs(images, mapping, pairs), mapping) for pairs in (Pairs.unbiased, Pairs.biased)
        )
        assert 0 < every.mean() < 0.5 and biased.all()
        scores = factor_probes(knowing_nothing(every), knowing_nothing(every), factors)
        assert scores["only/synergy/balanced_accuracy"] == 0.5 == scores["only/synergy/balanced_accuracy/chance"]
        with pytest.raises(ValueError, match="have one value of synergy"):
            factor_probes(knowing_nothing(biased), knowing_nothing(every), factors)


def knowing_nothing(synergy: np.ndarray) -> Embeddings:
    """The same embedding for every pair."""
    return Embeddings(np.arange(len(synergy)), {"only": np.ones((len(synergy), 1))}, labels=synergy.astype(np.int64))


def test_the_head_stays_behind() -> None:
    method, _ = start()
    assert isinstance(method.model, MMPretrainModel) and list(method.heads) == ["projection"]
    assert not any("projection" in name for name in method.model.state_dict())


def test_views_differ_from_one_another_and_between_epochs_but_not_between_calls() -> None:
    method, batch = start()
    first, second = (batch.views[name]["mrna"]["values"] for name in ("first", "second"))
    plain = make_batch(make_config("comm", 3))
    assert not torch.equal(first, second) and torch.equal(
        batch.inputs["mrna"]["values"], plain.inputs["mrna"]["values"]
    )
    assert torch.equal(first, method.prepare(plain, make_step()).views["first"]["mrna"]["values"])
    later = replace(plain, positions=plain.positions + 100)
    assert not torch.equal(first, method.prepare(later, make_step()).views["first"]["mrna"]["values"])


@pytest.mark.parametrize("key", ["temperature", "head_hidden", "head_width"])
def test_impossible_settings_are_named(key: str) -> None:
    impossible: dict[str, Any] = {key: 0}
    (found,) = CommConfig(**impossible).problems()
    assert f"method.{key} is 0: it must be above 0" in found and not CommConfig().problems()


def test_samples_may_lack_modalities_and_none_may_be_called_fused() -> None:
    config = make_config("comm", 2, optional=NAMES[:2])
    assert not config.method.data_problems(config.data) and config.method.augments
    assert not config.data.problems()
    config.data.modalities["fused"] = config.data.modalities.pop("mrna")
    assert any("modalities.fused: use a plain identifier, none of" in problem for problem in config.data.problems())
