"""The fusion under DeepSpeed: partitioned weights and half precision change nothing but rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mmpretrain.config.methods.base import ModelParts
from mmpretrain.config.methods.names import ClipConfig
from mmpretrain.data.batch import Batch
from mmpretrain.methods import clip
from mmpretrain.methods.base import Features
from tests.engine import runs
from tests.rank_pool import Ranks

TOKENS = ["method=clip", "model.embed_dim=null", "model.fusion.width=32", "model.fusion.heads=4"]


def train(tokens: list[str], lacking: bool) -> runs.Outcome:
    """Two steps of CLIP between what each modality alone becomes in a fusion, beside all together.

    lacking: every third sample lacks its caption.
    """

    def encode(self: clip.Clip, model: Any, batch: Batch) -> Features:
        inputs = batch.inputs
        if lacking:
            inputs = inputs | {"caption": inputs["caption"] | {"present": batch.positions % 3 > 0}}
        output = model(**inputs)
        fused = output.fused_embeds
        return Features.of(batch, {name: embed + fused for name, embed in output.embeds.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ClipConfig, "model_parts", lambda self, model, data: ModelParts(fusion=model.fusion.arguments()))
        patch.setattr(clip.Clip, "encode", encode)
        torch.manual_seed(0)
        return runs.outcome(runs.tiny_config(*TOKENS, *tokens), 3)


FORMS = [("model.fusion.layers=2", "fusion.converters."), ("model.fusion.form=linear", "fusion.alone.")]


@pytest.mark.parametrize(("form", "part"), FORMS)
@pytest.mark.parametrize("stage", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_partitioned(ranks: Ranks, stage: int, form: str, part: str) -> None:
    tokens = [form]
    right = ranks(1, train, [*tokens, "engine=zero0"], True)[0]
    ours = ranks(2, train, [*tokens, f"engine=zero{stage}"], True)[0]
    assert any(name.startswith(part) for name in right.weights)
    for run in (ours, right):
        # What is added to all keys drops out of a softmax, so Adam steps by the rounding of a gradient of 0.
        run.weights = {name: w for name, w in run.weights.items() if not name.endswith("attention.key_value.bias")}
    runs.check_equal(ours, right)


@pytest.mark.parametrize("stage", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_half_precision(ranks: Ranks, stage: int) -> None:
    right = ranks(1, train, ["engine=zero0"], False)[0]
    half = ranks(2, train, [f"engine=zero{stage}", "engine.precision=bfloat16"], False)[0]
    assert half.losses == pytest.approx(right.losses, abs=0.05) and half.losses != right.losses
