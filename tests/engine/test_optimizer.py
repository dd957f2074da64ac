"""Parameter groups and optimizers: every option changes something."""

from __future__ import annotations

import torch
from torch import nn

from mmpretrain.config.engine import OptimConfig, OptimizerName
from mmpretrain.config.model import EncoderConfig
from mmpretrain.engine.optimizer import build_optimizer, parameter_groups, scale_problems


def module() -> nn.Module:
    """Two encoders: a linear layer with a layer norm, and a linear layer."""
    encoder = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    return nn.ModuleDict({"encoders": nn.ModuleDict({"image": encoder, "text": nn.Linear(4, 4)})})


def projected() -> nn.Module:
    """A projection beside an encoder."""
    parts = {name: nn.ModuleDict({"text": nn.Linear(4, 4)}) for name in ("encoders", "projections")}
    return nn.ModuleDict(parts)


def decays(config: OptimConfig, **encoders: EncoderConfig) -> dict[str, tuple[float, float]]:
    """Parameter -> its factor of the learning rate and its weight decay."""
    target = module()
    names = {id(p): name for name, p in target.named_parameters()}
    groups = parameter_groups(target, config, encoders)
    return {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}


def test_biases_and_norms_are_not_decayed() -> None:
    found = decays(OptimConfig(weight_decay=0.1))
    assert found["encoders.image.0.weight"] == (1.0, 0.1)
    assert found["encoders.image.0.bias"] == (1.0, 0.0)
    assert found["encoders.image.1.weight"] == (1.0, 0.0)


def test_decay_all() -> None:
    assert {decay for _, decay in decays(OptimConfig(weight_decay=0.1, decay_all=True)).values()} == {0.1}


def test_a_temperature_is_never_decayed() -> None:
    heads = nn.ParameterDict({"logit_scale": nn.Parameter(torch.zeros(1))})
    assert parameter_groups(heads, OptimConfig(decay_all=True, weight_decay=0.1), {})[0]["weight_decay"] == 0.0


def test_lr_scale_by_encoder() -> None:
    found = decays(OptimConfig(), text=EncoderConfig(lr_scale=0.1))
    assert found["encoders.text.weight"][0] == 0.1
    assert found["encoders.image.0.weight"][0] == 1.0


def test_a_projection_may_have_a_factor_of_its_own() -> None:
    target = projected()
    scales = []
    for own in (None, 5.0):
        groups = parameter_groups(target, OptimConfig(), {"text": EncoderConfig(lr_scale=0.1, projection_lr_scale=own)})
        by_parameter = {id(p): g["lr_scale"] for g in groups for p in g["params"]}
        scales.append([by_parameter[id(p)] for _, p in sorted(target.named_parameters())])
    assert scales == [[0.1] * 4, [0.1, 0.1, 5.0, 5.0]]


def test_frozen_parameters_are_left_out() -> None:
    target = module()
    target.get_submodule("encoders.image").requires_grad_(False)
    assert sum(len(g["params"]) for g in parameter_groups(target, OptimConfig(), {})) == 2


def test_adam_couples_the_decay_and_adamw_does_not() -> None:
    ends = {}
    for name in OptimizerName:
        weight = nn.Parameter(torch.ones(2, 2))
        config = OptimConfig(name=name, lr=0.1, weight_decay=0.5)
        optimizer = build_optimizer([{"params": [weight], "weight_decay": 0.5}], config)
        weight.grad = torch.zeros(2, 2)
        optimizer.step()
        ends[name] = weight[0, 0].item()
    assert round(ends[OptimizerName.adamw], 6) == 0.95  # 1 - lr * decay; a zero gradient stays zero
    assert round(ends[OptimizerName.adam], 6) == 0.9  # decay enters the gradient, whose scale Adam removes


def test_the_fused_form_takes_the_steps_of_the_plain_one() -> None:
    for name, plain in ((OptimizerName.adamw, torch.optim.AdamW), (OptimizerName.adam, torch.optim.Adam)):
        start = torch.randn(37, 5, generator=torch.Generator().manual_seed(0))
        ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
        config = OptimConfig(name=name, lr=0.01, weight_decay=0.1)
        fused = build_optimizer([{"params": [ours], "weight_decay": 0.1}], config)
        reference = plain([theirs], lr=0.01, weight_decay=0.1)
        for step in range(5):
            ours.grad = torch.randn(37, 5, generator=torch.Generator().manual_seed(step))
            theirs.grad = ours.grad.clone()
            fused.step()
            reference.step()
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_state_of_the_plain_form_goes_on_to_the_last_digit() -> None:
    ends = []
    for resumed in (False, True):
        weight = nn.Parameter(torch.linspace(-1, 1, 37))
        optimizer: torch.optim.Optimizer = torch.optim.AdamW([weight], lr=0.1)  # as version 0.1 built it
        for step in range(4):
            if resumed and step == 2:
                state = optimizer.state_dict()
                optimizer = build_optimizer([{"params": [weight]}], OptimConfig(lr=0.1))
                optimizer.load_state_dict(state)
            weight.grad = torch.randn(37, generator=torch.Generator().manual_seed(step))
            optimizer.step()
        ends.append(weight.detach().clone())
    assert torch.equal(*ends)


def parted() -> nn.Module:
    """An encoder, a classifier, and a frozen part."""
    parts = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("classifier", "fusion")})
    parts["encoders"] = nn.ModuleDict({"text": nn.Linear(4, 4)})
    parts["fusion"].requires_grad_(False)
    return parts


def test_a_part_and_a_head_may_have_a_factor_of_their_own() -> None:
    config = OptimConfig(lr=0.1, lr_scales={"classifier": 2.0, "unimodal_text": 0.5})
    heads = nn.ModuleDict({"unimodal_text": nn.Linear(4, 4), "unimodal_image": nn.Linear(4, 4)})
    found: dict[str, tuple[float, float]] = {}
    for target in (parted(), heads):
        names = {id(p): name.partition(".")[0] for name, p in target.named_parameters()}
        for group in parameter_groups(target, config, {"text": EncoderConfig(lr_scale=0.1)}):
            found |= {names[id(p)]: (group["lr_scale"], group["lr"]) for p in group["params"]}
    assert found["classifier"] == (2.0, 0.2) and found["encoders"][0] == 0.1
    assert found["unimodal_text"] == (0.5, 0.05) and found["unimodal_image"] == (1.0, 0.1)


def test_a_factor_of_a_part_that_does_not_learn_is_refused() -> None:
    assert scale_problems((parted(),), OptimConfig(lr_scales={"classifier": 2.0})) == []
    for part in ("fusion", "unimodal_text"):
        (problem,) = scale_problems((parted(),), OptimConfig(lr_scales={part: 2.0}))
        assert f"no {part!r} that learns, only classifier" in problem
