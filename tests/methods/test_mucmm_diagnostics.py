"""When MUCMM's correlations are told, and that the default form needs no decomposition of its own for them."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch

from mmpretrain.config.methods.names import Among, Corr
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.losses.correlation import correlations, whiten
from mmpretrain.methods import mucmm
from mmpretrain.methods.mucmm import COMMON, Blocks, Mucmm, moments
from tests.methods.test_mucmm import batches_of, started


def told_at(method: Mucmm, index: int) -> set[str]:
    """Names of the correlations among the diagnostics of step ``index``."""
    features = method.encode(method.model, batches_of(method, 1)[0])
    losses = method.objective(features, Step(index, 0.0, 1.0, 0), World.single())
    return {name for name in losses.diagnostics if name.startswith("correlation/")}


def test_the_default_form_reads_correlations_off_its_loss() -> None:
    method = started(momentum=0.0)
    method.log_every_steps = 10
    with patch.object(mucmm, "mean_correlation", side_effect=AssertionError):
        assert told_at(method, 0) == told_at(method, 9) == {"correlation/mrna-methylation"}
    features = method.encode(method.model, batches_of(method, 1)[0])
    rows = torch.cat([features.views[kind][name] if kind in features.views else features.embeds[name]
                      for kind, name in method.widths], dim=1)  # fmt: skip
    found = moments(rows, world=World.single())
    cross = whiten(Blocks(found.covariance, method.widths).only(list(method.codes)), method.settings.ridge)
    right = correlations(cross.of((COMMON, "mrna"), (COMMON, "methylation"))).mean()
    said = method.losses(found).diagnostics["correlation/mrna-methylation"]
    torch.testing.assert_close(said, right, atol=1e-4, rtol=0)


@pytest.mark.parametrize("settings", [{"max_power": 2}, {"among": Among.maxvar}])
def test_other_forms_decompose_on_logged_steps_alone(settings: dict[str, Any]) -> None:
    method = started(**settings)
    method.log_every_steps, method.total_steps = 10, 15
    assert not told_at(method, 0) and not told_at(method, 8)
    assert told_at(method, 9) == told_at(method, 14) == {"correlation/mrna-methylation"}


def test_plain_correlations_are_always_told() -> None:
    method = started(corr=Corr.soft)
    method.log_every_steps = 10
    assert told_at(method, 0) == {"correlation/mrna-methylation"}
