"""MUCMM (reconstruction) as a method: its terms, what it sets before and after training, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.config.engine import Precision
from mmpretrain.config.methods.names import Among, Corr, MucmmConfig, Start
from mmpretrain.config.model import ComponentsConfig, ModelConfig
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.world import World
from mmpretrain.losses.canonical import Blocks, Canonical, canonical_of_rows, shared_directions
from mmpretrain.methods import mucmm, mucmm_closed_form
from mmpretrain.methods.base import Losses, Method, Once
from mmpretrain.methods.mucmm import Mucmm
from tests.methods.toys import GLOBAL_BATCH, NAMES, make_batch, make_config, make_method, make_step
from tests.models.test_components import weight_of
from tests.rank_pool import Ranks

ALL = {"common", "individual", "own", "other", "reconstruction"}
# Widths that leave room in embeddings of 4 dimensions: the heads can fail.
NARROW = ModelConfig(components=ComponentsConfig(1, 2, {"methylation": 1}))


def started(modalities: int = 2, model: ModelConfig | None = None, **settings: Any) -> Mucmm:
    """The method before its first step."""
    config = make_config("mucmm", modalities, **{"variance": 1.0, **settings})
    method = make_method(replace(config, model=model or config.model))
    assert isinstance(method, Mucmm)
    return method


def batches_of(method: Method, count: int = 8) -> list[Batch]:
    """Batches whose modalities share what they vary in, up to noise."""
    config = make_config("mucmm", len(method.modalities))
    found = []
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        shared = torch.randn(GLOBAL_BATCH, 5, generator=generator, dtype=torch.float64)
        own = {m: torch.randn(GLOBAL_BATCH, 5, generator=generator, dtype=torch.float64) for m in method.modalities}
        inputs = {m: {"values": shared + 0.7 * noise} for m, noise in own.items()}
        found.append(replace(make_batch(config, step=index), inputs=inputs))
    return found


def lose(method: Method, batch: Batch) -> Losses:
    """The losses of a batch on one process."""
    return method.objective(method.encode(method.model, batch), make_step(), World.single())


def outputs(method: Method, batches: list[Batch]) -> Any:
    """Of all batches together, without graph."""
    whole = {m: {"values": torch.cat([b.inputs[m]["values"] for b in batches])} for m in method.modalities}
    with torch.no_grad():
        return method.model(**whole)


def test_only_terms_with_a_weight_are_there() -> None:
    assert lose(method := started(), batch := batches_of(method)[0]).terms.keys() == ALL
    assert lose(started(gamma=0.0), batch).terms.keys() == ALL - {"reconstruction"}
    assert lose(started(alpha=0.0), batch).terms.keys() == {"common", "reconstruction"}
    assert lose(started(w_own=0.0, w_other=0.0), batch).terms.keys() == ALL - {"own", "other"}


def test_weights_are_those_of_the_equation() -> None:
    method = started(alpha=2.0, w_individual=3.0, w_own=0.5, w_other=0.1, gamma=0.7)
    losses = lose(method, batches_of(method)[0])
    t = losses.terms
    expected = t["common"] + 2 * (3 * t["individual"] + 0.5 * t["own"] + 0.1 * t["other"]) + 0.7 * t["reconstruction"]
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("settings", [{}, {"corr": Corr.soft}, {"among": Among.maxvar}, {"max_power": 2}])
def test_heads_and_encoders_learn_whatever_the_form(settings: dict[str, Any]) -> None:
    method = started(3, NARROW, **settings)
    losses = lose(method, batches_of(method)[0])
    losses.total.backward()
    names = {name for name, p in method.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert {
        f"components.{m}.{code}.head.weight" for m in method.modalities for code in ("common", "individual")
    } < names
    assert any(name.startswith("encoders.mirna") for name in names)
    pairs = {f"correlation/{m}-{n}" for m, n in combinations(method.modalities, 2)}
    assert losses.diagnostics.keys() == pairs | {f"unexplained/{m}" for m in method.modalities}


def test_the_scale_and_rotation_of_codes_do_not_matter() -> None:
    method = started()
    batch = batches_of(method)[0]
    plain = lose(started(), batch).total.item()
    individual, common = method.components["mrna"].individual, method.components["methylation"].common
    with torch.no_grad():
        weight_of(individual).mul_(1e-3)
        mixed = torch.tensor([[1.0, 3.0], [0.2, -1.0]], dtype=torch.float64) @ weight_of(common)
        weight_of(common).copy_(mixed)
    assert lose(method, batch).total.item() == pytest.approx(plain, abs=2e-3)  # the ridge is in units of the variance


def test_frozen_encoders_get_nothing() -> None:
    """Neither gradients nor, in training mode, other running statistics."""
    method, frozen = started(), NAMES[:1]
    for name in NAMES[:2]:
        encoder: Any = method.model.encoders[name]
        encoder.backbone = nn.Sequential(encoder.backbone, nn.BatchNorm1d(encoder.output_size)).double()
        encoder.backbone.main_input_name, encoder.backbone.forward = "values", partial(_through, encoder.backbone)
        encoder.requires_grad_(name not in frozen)
    method.model.train()
    before = {name: tensor.clone() for name, tensor in method.model.encoders.state_dict().items()}
    optimizer = torch.optim.AdamW(method.model.parameters(), lr=0.1, weight_decay=0.1)
    for batch in batches_of(method)[:2]:
        lose(method, batch).total.backward()
        optimizer.step()
    changed = {
        name.split(".")[0] for name, t in method.model.encoders.state_dict().items() if not t.equal(before[name])
    }
    assert changed == set(NAMES[1:2])
    assert any("running_mean" in name for name in before)
    assert all(p.grad is not None for p in method.model.components.parameters())


def _through(layers: nn.Sequential, values: Tensor) -> Tensor:
    for layer in layers:
        values = layer(values)
    return values


def test_running_moments_are_the_average_that_the_next_step_goes_on_from() -> None:
    method = started(momentum=0.5)
    first, second = batches_of(method, 2)
    lose(method, first)
    saved = {name: tensor.clone() for name, tensor in method.heads.state_dict().items()}
    on = lose(method, second).total.item()
    again = started(momentum=0.5)
    again.heads.load_state_dict(saved)
    assert lose(again, second).total.item() == on != lose(started(momentum=0.5), second).total.item()
    assert not started(momentum=0.0).heads


def of_two(codes: dict[str, Tensor]) -> Canonical:
    """The closed form of the first two modalities' codes."""
    first, second = codes["mrna"], codes["methylation"]
    return canonical_of_rows(first, second, ridge=0.0)


def initialized(method: Mucmm, batches: list[Batch]) -> Mucmm:
    """The method after it has looked at these batches."""
    method.initialize(lambda _: iter(batches), World.single())
    return method


def test_the_closed_form_is_where_heads_start() -> None:
    batches = batches_of(started(), 20)
    method = initialized(started(), batches)
    output = outputs(method, batches)
    found = of_two(output.embeds)
    torch.testing.assert_close(of_two(output.shared_embeds).rho, found.rho[:2])
    for side, name in enumerate(method.modalities):
        code, rows = output.shared_embeds[name], output.embeds[name] - found.means[side]
        torch.testing.assert_close(code.abs(), (rows @ found.common(2)[side]).abs())
        individual = rows @ found.individual(2, (2, 2))[side]
        torch.testing.assert_close(output.unique_embeds[name].abs(), individual.abs())


@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize("modalities", [2, 3])
def test_no_start_is_better_than_the_closed_form(start: Start, modalities: int) -> None:
    """All batches at once: the terms of the sample that the start has seen."""
    batches = batches_of(started(modalities), 20)
    whole = replace(batches[0], inputs={m: {"values": torch.cat([b.inputs[m]["values"] for b in batches])}
                                       for m in batches[0].inputs})  # fmt: skip
    terms = lose(initialized(started(modalities, NARROW, start=start), batches), whole).terms
    if start is Start.closed_form and modalities == 2:
        assert max(terms[name].item() for name in ("own", "other")) < 1e-6
    best = lose(initialized(started(modalities, NARROW), batches), whole).terms
    assert best["common"] <= terms["common"] + 1e-12


def test_whitening_leaves_out_what_hardly_varies() -> None:
    method = started(model=NARROW, variance=0.9)
    batches = batches_of(method, 20)
    initialized(method, batches)
    part = method.components["mrna"]
    kept = int(part.whitening.any(0).sum())
    assert 3 <= kept < 4 and not weight_of(part.common)[:, kept:].any()
    x = (outputs(method, batches).embeds["mrna"] - part.center) @ part.whitening
    torch.testing.assert_close(torch.cov(x.T)[:kept, :kept], torch.eye(kept, dtype=torch.float64))


def test_codes_wider_than_what_varies_are_refused() -> None:
    method = started(variance=0.5)
    with pytest.raises(ValueError, match=r"2 common and 2 individual dimensions of 'mrna', and whitening keeps 1 of"):
        initialized(method, batches_of(method))
    assert initialized(started(variance=0.5, start=Start.orthogonal), batches_of(method))


@pytest.mark.parametrize("precision", Precision)
def test_the_first_pass_computes_as_training_will(precision: Precision) -> None:
    config = make_config("mucmm", 2, variance=1.0)
    method = make_method(replace(config, engine=replace(config.engine, precision=precision)))
    assert isinstance(method, Mucmm)
    found = set()

    def encode(model: Any, batch: Batch) -> Any:
        found.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        return type(method).encode(method, model, batch)

    with patch.object(method, "encode", encode):
        initialized(method, batches_of(method))
    assert found == {getattr(torch, precision.value)}


def once(batches: list[Batch], rank: int = 0, size: int = 1) -> Iterator[Once]:
    """Dealt to the ranks in turn, the last ones filled up with the very last sample."""
    rounds = -(-len(batches) // size)
    for number in range(rounds):
        place = number * size + rank
        batch = batches[min(place, len(batches) - 1)]
        yield batch, torch.full((len(batch),), place < len(batches))


def concluded(method: Mucmm, batches: list[Batch]) -> Mucmm:
    """The method after its last pass over these batches, on however many ranks there are."""
    world = World.current()
    method.conclude(method.model, once(batches, world.rank, world.size), world)
    return method


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("hidden", [None, 6])
def test_in_the_end_codes_are_white_and_canonical(modalities: int, hidden: int | None) -> None:
    method = started(modalities, ModelConfig(components=ComponentsConfig(2, 2, hidden=hidden)))
    batches = batches_of(method, 20)
    before = outputs(method, batches)
    output = outputs(concluded(method, batches), batches)
    for part in (output.shared_embeds, output.unique_embeds):
        for rows in part.values():
            torch.testing.assert_close(rows.mean(0), torch.zeros(2).double(), atol=1e-9, rtol=0)
            torch.testing.assert_close(torch.cov(rows.T), torch.eye(2).double(), atol=1e-8, rtol=0)
    common = list(output.shared_embeds.values())
    cross = torch.stack([torch.cov(torch.cat([a, b], dim=1).T)[:2, 2:] for a, b in combinations(common, 2)])
    rho = method.components["mrna"].rho
    torch.testing.assert_close(rho, cross.diagonal(dim1=1, dim2=2).mean(0))
    if modalities == 2:
        torch.testing.assert_close(rho, of_two(before.shared_embeds).rho)
        torch.testing.assert_close(cross[0], rho.diag(), atol=1e-8, rtol=0)
    explained = [torch.cov(torch.cat([output.embeds["mrna"], output.unique_embeds["mrna"]], dim=1).T)[:4, 4:]]
    strengths = explained[0].square().sum(0)
    assert strengths[0] > strengths[1]


def test_concluding_twice_is_concluding_once() -> None:
    method = started()
    batches = batches_of(method)
    first = {name: t.clone() for name, t in concluded(method, batches).model.named_buffers()}
    for name, buffer in concluded(method, batches).model.named_buffers():
        torch.testing.assert_close(buffer, first[name])


def test_a_code_that_lost_a_dimension_has_a_zero_in_its_place() -> None:
    method = started()
    with torch.no_grad():
        weight = weight_of(method.components["mrna"].common)
        weight[1] = weight[0]
    batches = batches_of(method)
    output = outputs(concluded(method, batches), batches)
    assert not output.shared_embeds["mrna"][:, 1].any() and output.shared_embeds["mrna"][:, 0].any()
    assert method.components["mrna"].rho[1] == 0


def test_a_code_that_is_zero_does_not_cost_the_run() -> None:
    method = started()
    with torch.no_grad():
        weight_of(method.components["mrna"].common).zero_()
        weight_of(method.components["methylation"].individual).zero_()
    batches = batches_of(method)
    output = outputs(concluded(method, batches), batches)
    assert not any(rows.any() for rows in output.shared_embeds.values())
    assert not method.components["mrna"].rho.any() and not output.unique_embeds["methylation"].any()
    assert output.unique_embeds["mrna"].any(0).all()


def test_common_codes_are_in_the_order_of_rho() -> None:
    """Whatever order the directions were found in; codes of all modalities stay with one another."""
    method, batches = started(3), batches_of(started(3), 20)
    expected = outputs(concluded(started(3), batches), batches).shared_embeds

    def reversed_(white: Blocks, width: int) -> list[Tensor]:
        return [d.flip(1) for d in shared_directions(white, width)]

    with patch.object(mucmm_closed_form, "shared_directions", reversed_):
        output = outputs(concluded(method, batches), batches)
    rho = method.components["mrna"].rho
    assert torch.equal(rho, rho.sort(descending=True).values)
    for name, rows in output.shared_embeds.items():
        torch.testing.assert_close(rows, expected[name])


def test_what_is_not_finite_is_said() -> None:
    method, batches = started(), batches_of(started())
    broken = [replace(b, inputs={m: {"values": v["values"] / 0} for m, v in b.inputs.items()}) for b in batches]
    with pytest.raises(ValueError, match="not finite before the first step: look at data and encoders"):
        initialized(method, broken)
    with pytest.raises(ValueError, match="training has diverged"):
        concluded(started(), broken)


def skewed() -> list[dict[str, Tensor]]:
    """After initialize and after conclude, on ranks whose decompositions give results of their own."""
    world, method = World.current(), started(model=NARROW)
    batches, found = batches_of(method), []

    def off(do: Any) -> Any:
        def moved(components: Any, *rest: Any, **options: Any) -> None:
            do(components, *rest, **options)
            for part in components.values():
                for buffer in part.buffers():
                    buffer.add_(world.rank)

        return moved

    with patch.object(mucmm, "start", off(mucmm.start)), patch.object(mucmm, "finish", off(mucmm.finish)):
        method.initialize(lambda _: iter(batches[world.rank :: world.size]), world)
        found.append({name: b.clone() for name, b in method.model.components.named_buffers()})
        concluded(method, batches)
    return [*found, {name: b.clone() for name, b in method.model.components.named_buffers()}]


def test_what_is_frozen_is_rank_0s_on_all_ranks(ranks: Ranks) -> None:
    first, second = ranks(2, skewed)
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(other[name], buffer) for name, buffer in one.items())


def both_ends(count: int) -> dict[str, Tensor]:
    """Buffers and heads after initialize and conclude on this rank's share of ``count`` batches."""
    world, method = World.current(), started(model=NARROW)
    batches = batches_of(method, count)
    method.initialize(lambda _: iter(batches[world.rank :: world.size]), world)
    return {name: tensor.clone() for name, tensor in concluded(method, batches).model.state_dict().items()}


def test_ranks_set_what_one_process_sets(ranks: Ranks) -> None:
    alone = both_ends(8)
    for size in (2, 4):
        first, *others = ranks(size, both_ends, 8)
        for name, tensor in alone.items():
            torch.testing.assert_close(first[name].abs(), tensor.abs(), rtol=1e-8, atol=1e-8)  # signs are free
            assert all(torch.equal(other[name], first[name]) for other in others)


def test_rows_that_fill_a_batch_up_do_not_count(ranks: Ranks) -> None:
    alone = concluded(started(), batches_of(started(), 3)).model.state_dict()
    for found in ranks(2, three_of_four):
        for name, tensor in alone.items():
            torch.testing.assert_close(found[name].abs(), tensor.abs(), rtol=1e-8, atol=1e-8)


def three_of_four() -> dict[str, Tensor]:
    return dict(concluded(started(), batches_of(started(), 3)).model.state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ridge": 0.0}, "method.ridge is 0.0: it must be above 0"),
        ({"gamma": -1.0}, "method.gamma is -1.0: it must be 0 or more"),
        ({"momentum": 1.0}, "method.momentum is 1.0: it must be at least 0 and below 1"),
        ({"variance": 0.0}, "method.variance is 0.0: it must be above 0 and at most 1"),
        ({"max_power": 3}, "method.max_power is 3: it must be 1 or 2"),
        ({"max_power": 2, "corr": Corr.soft}, "method.max_power=2 goes with method.corr=cca"),
        ({"among": Among.maxvar, "corr": Corr.soft}, "method.among=maxvar goes with method.corr=cca"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], message: str) -> None:
    assert any(message in found for found in MucmmConfig(**settings).problems()) and not MucmmConfig().problems()


def test_batches_that_codes_fill_are_refused_without_running_moments() -> None:
    config = make_config("mucmm", 2, momentum=0.0)
    assert not config.method.model_problems(config.model, config.data)
    config.data.global_batch = 4
    (found,) = config.method.model_problems(config.model, config.data)
    assert "any two codes of 2 dimensions correlate perfectly in so few samples; use more than 4" in found
    assert isinstance(config.method, MucmmConfig)
    config.method.momentum = 0.9
    assert not config.method.model_problems(config.model, config.data)


def test_one_modality_has_nothing_to_correlate_with() -> None:
    config = make_config("mucmm", 1)
    assert "data.modalities has 1 of them" in config.method.data_problems(config.data)[0]
