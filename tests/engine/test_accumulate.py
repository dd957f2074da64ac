"""The gate of micro-batches: in float64, every parameter's gradient is that of the whole batch in one go."""

from __future__ import annotations

import pytest
import torch

from mmpretrain.config.methods.names import MixLevel, MixScope
from mmpretrain.config.objective import Negatives
from mmpretrain.engine.accumulate import MicroBatches
from mmpretrain.methods.base import Features, Losses
from tests.engine import plain_steps
from tests.methods.toys import make_batch, make_config, make_method
from tests.rank_pool import Ranks

CASES = {
    "clip": (make_config("clip", 3, temperature=0.3), 0.0),
    "m3co": (make_config("m3col", 3, mix_level=MixLevel.input, mix_group=4, weight=0.7), 0.0),
    "m3co-embedding": (make_config("m3col", 2, mix_level=MixLevel.embedding, mix_group=4, weight=0.7), 0.0),
    "m3co-global": (
        make_config("m3col", 2, mix_level=MixLevel.embedding, mix_scope=MixScope.global_batch, weight=0.7),
        0.0,
    ),
    "soft": (make_config("m3col", 2, weight=0.7), 5.0),
    "clip-ring": (make_config("clip", 3, Negatives.ring, temperature=0.3), 0.0),
    "m3co-ring": (make_config("m3col", 3, Negatives.ring, mix_level=MixLevel.input, mix_group=4, weight=0.7), 0.0),
    "siglip": (make_config("siglip", 3, temperature=0.3, bias=-2.0), 0.0),
    "siglip-ring": (make_config("siglip", 3, Negatives.ring, temperature=0.3, bias=-2.0), 0.0),
    "supcon": (make_config("supcon", 3, temperature=0.3), 0.0),
    "supcon-ring": (make_config("supcon", 3, Negatives.ring, temperature=0.3), 0.0),
    "comm": (make_config("comm", 2, head_hidden=8, head_width=6, temperature=0.5), 0.0),
    "comm-missing": (make_config("comm", 3, optional=("mrna", "mirna"), head_hidden=8, head_width=6), 0.0),
    "cross-self": (make_config("cross_self", 3, hidden=8, width=6, temperature=0.2), 0.0),
    "factorcl": (make_config("factorcl", 2, critic_hidden=6, temperature=0.02), 0.0),
    "mucmm": (make_config("mucmm", 3, ridge=1e-2), 0.0),
}
HEADS = {
    "clip-ring": {"temperature.logit_scale"},
    "siglip": {"temperature.logit_scale", "bias.value"},
    "siglip-ring": {"temperature.logit_scale", "bias.value"},
    "factorcl": {"shared.network.0.weight", "unique_conditional.network.0.weight"},
    "supcon": {f"projection_mrna.{layer}.weight" for layer in ("hidden", "output")},
}


# Biases before a normalization and behind a shift-invariant loss have no gradient but rounding: to what it is compared.
FLOORS = dict.fromkeys(["comm", "comm-missing", "cross-self", "factorcl", "mucmm"], 1e-2)


def worst(ours: plain_steps.Grads, right: plain_steps.Grads, floor: float = 1e-12) -> float:
    """The largest difference of a gradient relative to that gradient's norm, or to ``floor`` where that is larger."""
    assert ours.keys() == right.keys()
    return max(((ours[name] - grad).norm() / grad.norm().clamp(min=floor)).item() for name, grad in right.items())


def check_gradients(ranks: Ranks, name: str, size: int) -> None:
    """Micro-batches on ``size`` ranks give loss and gradients of the whole graph."""
    loss, right = plain_steps.whole_graph(*CASES[name], 1)
    for count in (1, 2, 4):
        results = ranks(size, plain_steps.gradients, *CASES[name], count)
        assert sum(loss for loss, _ in results) / size == pytest.approx(loss, rel=1e-12)
        assert max(worst(grads, right, FLOORS.get(name, 1e-12)) for _, grads in results) < 1e-10


@pytest.mark.parametrize(
    ("name", "size"), [*((name, 2) for name in CASES), *((name, 4) for name in ("m3co", "m3co-ring", "siglip-ring"))]
)
def test_gradients_are_those_of_the_whole_batch(ranks: Ranks, name: str, size: int) -> None:
    check_gradients(ranks, name, size)


@pytest.mark.parametrize("name", HEADS)
def test_the_gate_sees_what_the_loss_itself_learns(name: str) -> None:
    """Temperature, bias and projections are among what is compared, with gradients that can be told from 0."""
    _, right = plain_steps.whole_graph(*CASES[name], 1)
    assert min(right[f"heads.{head}"].norm().item() for head in HEADS[name]) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_whole_batch_everywhere(ranks: Ranks, name: str, size: int) -> None:
    check_gradients(ranks, name, size)


@pytest.mark.parametrize("count", [1, 4])
def test_dropout_is_the_same_in_both_passes(ranks: Ranks, count: int) -> None:
    case = (*CASES["clip"], count, plain_steps.add_dropout)
    for (_, ours), (_, right) in zip(
        ranks(2, plain_steps.gradients, *case), ranks(2, plain_steps.whole_graph, *case), strict=True
    ):
        assert worst(ours, right) < 1e-10


def test_going_back_again_gives_the_same() -> None:
    once, twice = (plain_steps.gradients(*CASES["m3co"], 1, plain_steps.add_dropout, times=times) for times in (1, 2))
    assert worst(twice[1], once[1]) < 1e-12


@pytest.mark.parametrize("count", [1, 2])
def test_a_frozen_encoder_has_no_gradients_and_the_others_have_theirs(count: int) -> None:
    _, right = plain_steps.whole_graph(*CASES["clip"], 1)
    _, ours = plain_steps.gradients(*CASES["clip"], count, plain_steps.freeze_first)
    first = {name for name in right if name.startswith("model.encoders.mrna.")}
    assert first and worst(ours, {name: grad for name, grad in right.items() if name not in first}) < 1e-10


@pytest.mark.parametrize("count", [1, 2])
def test_a_step_that_trains_nothing_of_the_model_says_so(count: int) -> None:
    with pytest.raises(RuntimeError, match="no feature of this step depends on a trainable parameter"):
        plain_steps.gradients(*CASES["clip"], count, plain_steps.freeze_all)


def test_activations_in_memory_are_those_of_one_micro_batch() -> None:
    assert plain_steps.peak_bytes(*CASES["clip"], 4) == plain_steps.peak_bytes(*CASES["clip"], 1) / 4


def test_features_without_a_loss_get_zeros_so_that_all_ranks_go_back_alike() -> None:
    _, method, micro = plain_steps.start(*CASES["clip"], 2)
    first = method.modalities[0]
    micro.objective(lambda features: Losses({"norm": features.embeds[first].square().mean()}))
    micro.backward(lambda product, last: product.backward())
    used = {name for name, p in method.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert all(p.grad is not None for p in method.model.parameters())
    assert used and all(name.startswith(f"encoders.{first}.") for name in used)


def test_half_precision_features_reach_the_objective_in_float32() -> None:
    def objective(features: Features) -> Losses:
        assert {tensor.dtype for tensor in features.tensors} == {torch.float32}
        return Losses({"norm": torch.stack([tensor.square().mean() for tensor in features.tensors]).sum()})

    method = make_method(CASES["clip"][0], dtype=torch.bfloat16)
    batch = make_batch(CASES["clip"][0], dtype=torch.bfloat16)
    micro = MicroBatches(batch, 2, lambda number, part: method.encode(method.model, part))
    micro.objective(objective)
    micro.backward(lambda product, last: product.backward())
    assert all(p.grad is not None and p.grad.dtype == torch.bfloat16 for p in method.model.parameters())


def test_a_count_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"micro_batches=3 does not divide the local batch of 16"):
        plain_steps.start(*CASES["clip"], 3)
