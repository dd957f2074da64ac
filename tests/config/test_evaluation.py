"""Which splits an evaluation reads, and what it asks of the dataset before training starts."""

from __future__ import annotations

from pathlib import Path

from launcher.checks import check_data
from launcher.resources import Purpose
from mmpretrain.config.compose import compose
from mmpretrain.config.evaluation import EvaluationConfig, Metric
from shards.latents import build_latents


def test_the_probes_split_is_read_only_if_something_probes() -> None:
    assert EvaluationConfig(final=[Metric.retrieval], probe_split="probe").splits == ["test"]
    assert EvaluationConfig(final=[Metric.factors], probe_split="probe").splits == ["test", "probe"]
    assert EvaluationConfig(final=[], during=[Metric.linear_probe]).splits == ["test", "train"]


def test_what_the_dataset_lacks_is_found_before_training(tmp_path: Path) -> None:
    build_latents(tmp_path / "latents", samples=50)
    tokens = ["experiment=latents", "method=clip", f"data.path={tmp_path / 'latents'}"]
    assert check_data(compose(tokens), Purpose.run).problems == ()
    (missing,) = check_data(compose([*tokens, "evaluation.probe_split=probe"]), Purpose.run).problems
    assert "latents/probe" in missing
    info = tmp_path / "latents" / "dataset.json"
    info.write_text(info.read_text().replace('"factors"', '"other"'))
    (problem,) = check_data(compose(tokens), Purpose.run).problems
    assert "names no factors in its dataset.json" in problem
