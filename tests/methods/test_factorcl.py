"""FactorCL: six terms against their dense form, what each player reaches, and what the estimates say and cannot say."""

from __future__ import annotations

import math
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.config.augment import AugmentConfig
from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.methods.base import Exchange
from mmpretrain.config.methods.names import (
    Condition,
    CriticBatch,
    CriticForm,
    CriticInit,
    FactorclConfig,
    LabelInput,
    Supervision,
)
from mmpretrain.config.root import Config
from mmpretrain.distributed.world import World
from mmpretrain.losses import critic_strips
from mmpretrain.losses.critic_networks import Critic, PairwiseCritic, SeparableCritic
from mmpretrain.losses.critics import nce
from mmpretrain.methods.base import Features, Losses, RefineOn
from mmpretrain.methods.factorcl import Factorcl
from tests.methods import dense_factorcl as dense
from tests.methods.parity import Outcome, run_step, worst_relative_error
from tests.methods.toys import CLASSES, make_batch, make_config, make_method, make_step
from tests.rank_pool import Ranks
from tests.submodules import linear_layers, submodule

ALONE = World.single()
FORMS = [
    {"form": Supervision.ssl},
    *({"form": Supervision.sup, "condition": c, "label_input": i} for c, i in product(Condition, LabelInput)),
]


def factorcl(**settings: Any) -> Config:
    """Two modalities, small critics whose scores count."""
    return make_config("factorcl", **{"critic_hidden": 6, "critic_width": 3, "temperature": 0.02} | settings)


def build(config: Config, dtype: torch.dtype = torch.float64) -> tuple[Factorcl, Features]:
    """The method, and the features of the whole toy batch."""
    method = make_method(config, dtype=dtype)
    assert isinstance(method, Factorcl)
    return method, method.encode(method.model, method.prepare(make_batch(config, dtype=dtype), make_step()))


def detached(features: Features, config: Config) -> Features:
    """As the engine gives them to ``refine``."""
    return features.with_tensors([tensor.detach() for tensor in features.tensors], make_batch(config))


@pytest.mark.parametrize("critic", CriticForm)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(value.value for value in form.values()))
def test_every_term_is_its_dense_form(form: dict[str, Any], critic: CriticForm) -> None:
    config = factorcl(critic=critic, doubly_counted=2.0, **form)
    method, features = build(config)
    losses, own = (ask(features, make_step(), ALONE) for ask in (method.objective, method.refine))
    expected = dense.factorcl_terms(method, config, method.prepare(make_batch(config), make_step()))
    found = losses.terms | {f"critics/{name}": term for name, term in own.terms.items()}
    assert found.keys() == expected.keys() and len(losses.terms) == 6
    for name, term in expected.items():
        assert found[name].item() == pytest.approx(term.item(), rel=1e-11), name
    assert losses.total.item() == pytest.approx(
        sum(term.item() * (2 if name.startswith("unique") else 1) for name, term in losses.terms.items())
    )


def test_bounds_of_shared_and_unique_information_are_told() -> None:
    method, features = build(factorcl(doubly_counted=3.0))
    losses = method.objective(features, make_step(), ALONE)
    terms = {name: term.item() for name, term in losses.terms.items()}
    told = {name: value.item() for name, value in losses.diagnostics.items()}
    unique = terms["unique"] + terms["unique_conditional"]
    norms = {name: told.pop(f"critic_norm/{name}") for name in terms}
    for name, critic in (method.lower | method.upper).items():
        weights = torch.cat([parameter.detach().flatten() for parameter in critic.parameters()])
        assert norms[name] == pytest.approx(weights.norm().item())
    assert told == pytest.approx(
        {
            "nats/pair_lower": -terms["shared"],
            "nats/pair_upper": terms["unique"],
            "nats/pair_given_condition_lower": -terms["unique_conditional"],
            "nats/pair_given_condition_upper": terms["shared_conditional"],
            "nats/shared": -terms["shared"] - terms["shared_conditional"],
            "nats/unique_mrna": -terms["task_mrna"] - unique,
            "nats/unique_methylation": -terms["task_methylation"] - unique,
        }
    )
    assert not any(value.requires_grad for value in losses.diagnostics.values())


def test_constant_critics_know_nothing() -> None:
    """Check 1."""
    method, features = build(factorcl(form=Supervision.sup))
    for critic in (*method.lower.values(), *method.upper.values()):
        nn.init.zeros_(linear_layers(critic)[-1].weight)
    losses = method.objective(features, make_step(), ALONE)
    assert [term.item() for term in losses.terms.values()] == pytest.approx([0] * 6, abs=1e-15)


def gradients_of(losses: Losses, modules: nn.Module) -> dict[str, bool]:
    """Whether a loss reaches each parameter."""
    modules.zero_grad()
    losses.total.backward(retain_graph=True)
    return {name: p.grad is not None and bool(p.grad.any()) for name, p in modules.named_parameters()}


@pytest.mark.parametrize("form", Supervision)
def test_each_loss_reaches_its_own_player(form: Supervision) -> None:
    """Check 6: the model and all heads learn through critics that are held fixed, which then learn without the others.

    Who holds the critics fixed and cuts the features off is the engine: tests/engine/test_critics.py.
    """
    config = factorcl(form=form)
    method, features = build(config)
    assert method.critics.keys() == {"shared_conditional", "unique"}
    method.critics.requires_grad_(False)
    players = nn.ModuleDict({"model": method.model, "heads": method.heads})
    reached = gradients_of(method.objective(features, make_step(), ALONE), players)
    method.critics.requires_grad_(True)
    critics = nn.ModuleDict({"heads": method.heads, "critics": method.critics})
    refined = gradients_of(method.refine(detached(features, config), make_step(), ALONE), critics)
    last_bias = "network.4.bias"  # it shifts all scores alike, so that its gradient is rounding or nothing
    assert all(found for name, found in reached.items() if not name.endswith(last_bias))
    assert all(found is name.startswith("critics") for name, found in refined.items() if not name.endswith(last_bias))


def one_row_each(config: Config, count: int) -> Outcome:
    """A step of this rank on one row of the first ``count``."""
    rank, size = World.current().rank, World.current().size
    return run_step(config, 0.0, part=(rank, 16) if size > 1 else (0, 16 // count))


@pytest.mark.parametrize("form", Supervision)
def test_one_row_per_rank(ranks: Ranks, form: Supervision) -> None:
    """Check 7 at its edge; more rows per rank are in test_parity.py."""
    config = factorcl(form=form)
    whole, outcomes = one_row_each(config, 4), ranks(4, one_row_each, config, 4)
    for name, value in whole.values.items():
        assert sum(outcome.values[name] for outcome in outcomes) / 4 == pytest.approx(value, rel=1e-11, abs=1e-14)
    assert worst_relative_error(outcomes[0].grads, whole.grads) < 1e-9


def test_a_label_that_all_share_conditions_on_nothing() -> None:
    """Check 8: the one-hot only moves the first layer's bias."""
    config = factorcl(form=Supervision.sup)
    method, features = build(config)
    assert features.labels is not None
    same = replace(features, labels=torch.full_like(features.labels, 1))
    conditional = method.objective(same, make_step(), ALONE).terms["unique_conditional"]
    a, b = (method._heads(features, name).unique_conditional for name in method.modalities)
    critic = method.lower["unique_conditional"]
    width = a.shape[1]
    plain = PairwiseCritic(width, width, 6).double()
    plain.load_state_dict(critic.state_dict() | _without_label(critic, width))
    expected = nce(plain, a, b, world=ALONE, temperature=0.02, sample_ids=features.sample_ids)
    assert conditional.item() == pytest.approx(expected.item(), rel=1e-12)


def _without_label(critic: Critic, width: int) -> dict[str, Tensor]:
    """The first layer with label 1 in its bias; its inputs are a, one-hot, b, one-hot."""
    first = linear_layers(critic)[0]
    a, label_a, b, label_b = first.weight.split([width, CLASSES, width, CLASSES], dim=1)
    bias = first.bias + label_a[:, 1] + label_b[:, 1]
    return {"network.0.weight": torch.hstack([a, b]), "network.0.bias": bias}


def learn(critic: Critic, a: Tensor, b: Tensor, steps: int) -> float:
    """I_NCE on the rows that the critic has learned from."""
    optimizer = torch.optim.Adam(critic.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nce(critic, a, b, world=ALONE).backward()
        optimizer.step()
    return -nce(critic, a, b, world=ALONE).item()


def test_a_condition_on_both_sides_is_found_again_where_nothing_is_shared() -> None:
    """Check 8: what is bounded is I(X1; X2 | Y) + H(Y), so that with a label of its own per sample it reaches log G."""
    torch.manual_seed(0)
    a, b, labels = torch.randn(16, 3), torch.randn(16, 3), torch.eye(16)
    conditional = learn(SeparableCritic(19, 19, 32, 16), torch.hstack([a, labels]), torch.hstack([b, labels]), 60)
    assert conditional == pytest.approx(math.log(16), abs=0.05)


def test_a_task_term_knows_no_more_than_the_label_holds() -> None:
    """Check 9: of a balanced binary label at most log 2, and it comes near where the label can be seen."""
    torch.manual_seed(0)
    labels = torch.arange(128) % 2
    seen = 4.0 * labels[:, None] + torch.randn(128, 2)
    found = learn(PairwiseCritic(2, 1, 16), seen, labels[:, None].float(), 60)
    assert 0.8 * math.log(2) < found <= math.log(2) + 0.01


@pytest.mark.parametrize("form", Supervision)
def test_split_critics_are_the_plain_ones_in_single_precision(form: Supervision) -> None:
    """Check 10."""
    config = factorcl(form=form, temperature=1.0, critic_hidden=64)
    method, features = build(config, torch.float32)
    for name, (a, b) in method._pairs(features).items():
        critic = (method.lower | method.upper)[name]
        naive = dense.scores(critic, a, b)
        torch.testing.assert_close(critic.scores(critic.rows(b), critic.columns(a)), naive, rtol=1e-5, atol=1e-6)


def test_one_optimizer_is_as_good_as_one_for_each_part() -> None:
    """Check 11: Adam knows nothing of the other parameters."""
    config = factorcl(form=Supervision.sup)
    together, apart = (build(config)[0] for _ in range(2))
    _train(together, config, [[*together.model.parameters(), *together.heads.parameters()]])
    parts = [*apart.model.encoders.values(), *apart.model.factors.values(), *apart.heads.values()]
    assert len(parts) == 8
    _train(apart, config, [list(part.parameters()) for part in parts])
    for one, other in zip(_theta(together), _theta(apart), strict=True):
        assert torch.equal(one, other)


def _theta(method: Factorcl) -> list[nn.Parameter]:
    return [*method.model.parameters(), *method.heads.parameters()]


def _train(method: Factorcl, config: Config, groups: list[list[nn.Parameter]]) -> None:
    optimizers = [torch.optim.Adam(group, lr=1e-3) for group in groups]
    before = deepcopy([p.detach() for p in _theta(method)])
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.zero_grad()
        features = method.encode(method.model, method.prepare(make_batch(config), make_step()))
        method.objective(features, make_step(), ALONE).total.backward()
        for optimizer in optimizers:
            optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, _theta(method), strict=True) if old.dim() == 2)


def test_the_second_modality_gets_its_unique_augmentation() -> None:
    config = factorcl()
    first, second = config.data.modalities.values()
    first.augment = second.augment = AugmentConfig(noise=1.0, noise_std=0.5)
    first.unique, second.unique = AugmentConfig(drop=1.0, drop_share=[1, 1]), AugmentConfig()
    method, batch = make_method(config), make_batch(config)
    prepared = method.prepare(batch, make_step())
    assert prepared.views.keys() == {"augmented"} and prepared.inputs is batch.inputs
    (x1, x2), (y1, y2) = (
        [view[name]["values"] for name in view] for view in (batch.inputs, prepared.views["augmented"])
    )
    assert torch.equal(x2, y2)
    assert 0.3 < (y1 - x1).std() < 0.7


@pytest.mark.parametrize("critic", CriticForm)
def test_settings_say_what_travels(critic: CriticForm) -> None:
    """The columns that the critics themselves make; twice as many ranks change nothing."""
    method, features = build(factorcl(critic=critic))
    critics, pairs = method.lower | method.upper, method._pairs(features)
    width = sum(critics[name].columns(a).shape[1] for name, (a, _) in pairs.items())
    held = critics["unique"].pair_width + critic_strips.SCORE_WIDTH
    expected = Exchange(width, len(critics), rings=False, strip_width=held)
    assert method.settings.exchange(method.model.embed_sizes) == expected


def test_a_view_that_is_the_sample_itself_is_refused() -> None:
    """X2' = X2 would make I(X2; X2) of a term."""
    config = factorcl()
    settings, (first, second) = config.method, config.data.modalities.values()
    assert isinstance(settings, FactorclConfig) and not settings.data_problems(config.data)
    second.unique = AugmentConfig()
    (problem,) = settings.data_problems(config.data)
    assert problem.startswith("data.modalities.methylation.unique changes nothing: method=factorcl would take")
    assert "set one of swap, drop, noise there, or method.form=sup" in problem
    first.augment = AugmentConfig()
    assert [p.split(" changes nothing")[0] for p in settings.data_problems(config.data)] == [
        "data.modalities.mrna.augment",
        "data.modalities.methylation.unique",
    ]
    assert not replace(settings, form=Supervision.sup).data_problems(config.data)
    # The plain inputs are augmented, so that a view without augmentation differs from them.
    first.train = second.train = AugmentConfig(noise=1.0)
    assert not settings.data_problems(config.data)


def test_views_that_nobody_makes_may_change_nothing() -> None:
    config = factorcl()
    first, second = config.data.modalities.values()
    first.unique = second.augment = AugmentConfig()
    second.unique = AugmentConfig(noise=1.0)
    assert not config.method.data_problems(config.data)


def test_a_unique_view_that_only_lost_its_crop_is_named() -> None:
    two = ["method=factorcl", "data=digits", "data.modalities.caption=null", "model.encoders.caption=null"]
    with pytest.raises(ConfigError, match=r"right\.unique changes nothing \(null: augment without its crop\)"):
        compose([*two, "data.modalities.right.augment={crop: [0.5, 1.0]}"])


def test_labels_need_no_views() -> None:
    config = factorcl(form=Supervision.sup)
    method, batch = make_method(config), make_batch(config)
    source = replace(batch, views={"source": batch.inputs})
    assert not method.prepare(source, make_step()).views
    assert method.encode(method.model, batch).views.keys() == {"plain_shared", "plain_unique"}


@pytest.mark.parametrize("critic", CriticForm)
def test_critics_begin_as_they_are_asked_to(critic: CriticForm) -> None:
    found = {}
    for init in CriticInit:
        method, features = build(factorcl(critic=critic, critic_init=init, form=Supervision.sup))
        losses = method.objective(features, make_step(), ALONE)
        found[init] = [term.item() for term in losses.terms.values()]
        losses.total.backward()
        assert all(any(p.grad.any() for p in c.parameters() if p.grad is not None) for c in method.lower.values())
    assert found[CriticInit.silent] == pytest.approx([0] * 6, abs=1e-15)
    assert all(abs(x) > 1e-9 and x != y for x, y in zip(found[CriticInit.torch], found[CriticInit.he], strict=True))


def test_settings_reach_what_they_name() -> None:
    method, _ = build(factorcl(critic_steps=3, critic_batch=CriticBatch.same, critic_layers=2, critic_hidden=9))
    assert method.refinement.times == 3 and method.refinement.on is RefineOn.same
    assert [layer.out_features for layer in linear_layers(method.lower["shared"])] == [9, 9, 9, 1]
    method, _ = build(factorcl(critic=CriticForm.separable, critic_hidden=9))
    separable = submodule(method.lower["shared"], "g", nn.Sequential)
    assert [layer.out_features for layer in linear_layers(separable)] == [9, 9, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"critic_hidden": 0}, "method.critic_hidden is 0: it must be above 0"),
        ({"temperature": -1.0}, "method.temperature is -1.0: it must be above 0"),
        ({"critic_steps": 0}, "method.critic_steps is 0: it must be above 0"),
        ({"critic_layers": -1}, "method.critic_layers is -1: it must be 0 or more"),
        ({"doubly_counted": -0.5}, "method.doubly_counted is -0.5: it must be 0 or more"),
        ({"condition": Condition.first}, "method.condition=first says what is done with labels"),
        ({"label_input": LabelInput.onehot}, "method.label_input=onehot says what is done with labels"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    (problem,) = FactorclConfig(**settings).problems()
    assert problem.startswith(message)
    assert not FactorclConfig().problems()


def test_other_than_two_modalities_or_no_labels_are_config_errors() -> None:
    with pytest.raises(
        ConfigError, match=r"exactly two modalities.* has 3 \(left, right, caption\): take .*caption=null"
    ):
        compose(["method=factorcl", "data=digits"])
    two = ["method=factorcl", "data=digits", "data.modalities.caption=null", "model.encoders.caption=null"]
    assert compose(two).method.augments
    with pytest.raises(ConfigError, match="learns from labels, but data"):
        compose([*two, "method.form=sup", "data.classes=null"])


PEAK = """
import sys, torch
from mmpretrain.distributed.world import World
from mmpretrain.losses.critic_networks import PairwiseCritic
from mmpretrain.losses.critics import nce
torch.set_num_threads(1)
a, b = torch.randn(2, int(sys.argv[1]), 128).requires_grad_()
nce(PairwiseCritic(128, 128, 512), a, b, world=World.single()).backward()
# Not getrusage, whose maximum begins with that of the process which started this one.
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_mib(batch: int) -> float:
    """Peak resident memory of a fresh process with one term of one critic of the paper's size, forward and backward."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(batch)], cwd=root, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


@pytest.mark.processes
@pytest.mark.slow
def test_a_large_batch_fits_into_memory() -> None:
    """All pairs of 1024 samples have 4 GiB of hidden units; most of what is counted here is torch itself."""
    assert peak_mib(1024) < 600
