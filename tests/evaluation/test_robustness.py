"""Robustness: a modality that says all, one that says nothing, and a fusion that is really run without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmpretrain.config.evaluation import Metric
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.evaluate import evaluate
from tests.evaluation.made_up import embeddings


def one_sided(seed: int) -> Embeddings:
    """``left`` knows the class, ``right`` is noise."""
    made = embeddings(noise=0.05, seed=seed)
    noise = np.random.default_rng(seed + 50).normal(size=made.embeds["right"].shape).astype(np.float32)
    return replace(made, embeds={"left": made.embeds["left"], "right": noise})


def scores_of(make: object = one_sided, fused: bool = False) -> dict[str, float]:
    def embed(split: str, without: str | None = None) -> Embeddings:
        made = one_sided(1 if split == "train" else 2)
        if not fused:
            return made
        sides = [rows if name != without else np.zeros_like(rows) for name, rows in made.embeds.items()]
        asked.append((split, without))
        return replace(made, fused=np.hstack(sides))

    asked: list[tuple[str, str | None]] = []
    found = evaluate([Metric.robustness], embed, World.single(), embed_without=embed)
    assert not fused or (("test", "left") in asked and ("test", "right") in asked)
    return {name.removeprefix("robustness/"): value for name, value in found.items()}


def test_what_says_nothing_can_go_and_what_says_all_cannot() -> None:
    found = scores_of()
    assert found["left+right/probe"] == 1.0 and found["left+right/probe/chance"] == 0.25
    for kind in ("probe", "knn"):
        assert found[f"left+right/{kind}/without/right"] == 1.0 and found[f"left+right/{kind}/kept/right"] == 1.0
        assert found[f"left+right/{kind}/without/left"] < 0.5
        kept = (found[f"left+right/{kind}/without/left"] - 0.25) / (found[f"left+right/{kind}"] - 0.25)
        assert found[f"left+right/{kind}/kept/left"] == pytest.approx(kept)


def test_a_fusion_is_run_without_the_modality_and_looks_for_the_whole_sample() -> None:
    found = scores_of(fused=True)
    assert found["fused/probe/without/right"] == 1.0 and found["fused/probe/without/left"] < 0.5
    assert found["fused/recall@1/without/left"] == 1.0  # the noise is each sample's own
    assert found["fused/recall@1/without/right/chance"] == 1 / 80


def test_a_fusion_that_cannot_be_run_without_a_modality_is_refused() -> None:
    def embed(split: str) -> Embeddings:
        made = one_sided(1)
        return replace(made, fused=made.embeds["left"])

    with pytest.raises(ValueError, match="has a fusion and cannot be run without a modality"):
        evaluate([Metric.robustness], embed, World.single())


def test_only_samples_with_all_modalities_are_asked() -> None:
    there = np.arange(80) % 4 > 0

    def embed(split: str) -> Embeddings:
        return replace(one_sided(1 if split == "train" else 2), present={"right": there})

    found = evaluate([Metric.robustness], embed, World.single())
    alone = evaluate([Metric.robustness], lambda split: replace(embed(split).only(there), present={}), World.single())
    assert found == alone
