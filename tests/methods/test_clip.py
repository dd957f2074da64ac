"""CLIP as a method: heads, temperature, and that it learns."""

from __future__ import annotations

import pytest
import torch

from mmpretrain.distributed.world import World
from mmpretrain.methods.clip import Clip
from tests.methods.toys import make_batch, make_config, make_method, make_step


def test_two_modalities_are_plain_clip() -> None:
    config = make_config("clip", temperature=0.5)
    method, batch = make_method(config), make_batch(config)
    features = method.encode(method.model, batch)
    a, b = (torch.nn.functional.normalize(e, dim=1) for e in features.embeds.values())
    logits = 2 * a @ b.T
    same = batch.sample_ids[:, None] == batch.sample_ids
    logits = logits.masked_fill(same & ~torch.eye(len(a), dtype=torch.bool), -torch.inf)
    targets = torch.arange(len(a))
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(logits, targets) + cross_entropy(logits.T, targets)) / 2
    losses = method.objective(features, make_step(), World.single())
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-7)
    assert losses.terms.keys() == {"contrastive"}
    assert losses.diagnostics.keys() == {"accuracy/mrna-methylation", "scale"}
    assert not any(value.requires_grad for value in losses.diagnostics.values())


def test_learns_to_match_and_holds_its_temperature() -> None:
    config = make_config("clip", 3, temperature=0.2, max_scale=8.0)
    method, batch = make_method(config, dtype=torch.float32), make_batch(config, dtype=torch.float32)
    assert isinstance(method, Clip)
    optimizer = torch.optim.Adam([*method.model.parameters(), *method.heads.parameters()], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        losses = method.objective(method.encode(method.model, batch), make_step(), World.single())
        losses.total.backward()
        optimizer.step()
        method.clamp_()
        assert method.temperature().item() <= 8.0 + 1e-5
    assert all(value == 1 for name, value in losses.diagnostics.items() if name.startswith("accuracy"))
    assert method.temperature().item() == pytest.approx(8.0, rel=1e-5)


def test_temperature_is_a_head_and_not_part_of_the_model() -> None:
    method = make_method(make_config("clip"), dtype=torch.float32)
    assert [n for n, _ in method.heads.named_parameters()] == ["temperature.logit_scale"]
    assert all(p.dtype == torch.float32 for p in method.heads.parameters())
    assert not any("logit_scale" in name for name, _ in method.model.named_parameters())
