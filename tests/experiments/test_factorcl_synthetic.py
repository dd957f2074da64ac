"""FactorCL's synthetic experiment: both probes stand in tables of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import factorcl_synthetic
from experiments.factorcl_synthetic import PLAIN, SEARCHED, SyntheticSetting, accuracies, table, variants
from shards.latents import LABELS


def test_both_probes_have_a_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scores = {f"factors/first+second/{label}/{PLAIN}": 0.5 for label in LABELS}
    scores |= {f"factors/first+second/{label}/{SEARCHED}": 0.75 for label in LABELS}
    monkeypatch.setattr(SyntheticSetting, "runs", lambda *_: [tmp_path])
    monkeypatch.setattr(factorcl_synthetic, "evaluation", lambda _: scores)
    setting = SyntheticSetting(tmp_path, tmp_path, 1000, ["all"], 1)
    clip = variants(8)[0]
    text = table({probe: accuracies(setting, clip, probe) for probe in (PLAIN, SEARCHED)}, [], 1)
    assert text.count("| CLIP | " + " | ".join(["50.0"] * len(LABELS)) + " |") == 1
    assert text.count("| CLIP | " + " | ".join(["75.0"] * len(LABELS)) + " |") == 1
