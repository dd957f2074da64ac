"""FactorCL's factors apart: what is probed of a run, and that a probe's result is found again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments.factorcl_factors import Probes, accuracy, chosen, factors, label, searched
from experiments.information import ProbeSettings


def test_parts_of_a_run_are_what_their_names_say() -> None:
    first, second = np.full((3, 2), 1.0), np.full((3, 4), 2.0)
    found = factors({", unique": [first, second], ", shared": [10 * first, 10 * second]})
    assert {name: rows.shape[1] for name, rows in found.items()} == {"S": 6, "U1": 2, "U2": 4, "S+U": 12}
    assert found["U1"] is first and set(found["S"][0]) == {10.0, 20.0}
    assert factors({"": [first, second]})["encoders"].shape == (3, 6)


@pytest.mark.parametrize("probe", [accuracy, searched])
def test_a_label_that_can_be_read_is_read(probe: Callable[..., float]) -> None:
    draw = np.random.default_rng(0)
    latents = draw.normal(size=(400, 22))
    assert probe(latents[:300], latents[300:], label(latents[:300]), label(latents[300:])) > 0.9
    noise = draw.normal(size=(400, 5))
    assert probe(noise[:300], noise[300:], label(latents[:300]), label(latents[300:])) < 0.65


def test_a_result_is_kept_and_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ProbeSettings(epochs=(1, 2), batch=32, hidden=8, scaled=False)
    rows = np.random.default_rng(0).normal(size=(64, 3))
    first = Probes(tmp_path / "probes.json", settings).curve("a", (rows, rows), (rows, rows))
    assert len(first) == 2
    monkeypatch.setattr("experiments.factorcl_factors.information_curve", None)
    assert Probes(tmp_path / "probes.json", settings).curve("a", (rows, rows), (rows, rows)) == first


def test_variants_have_names_of_their_own_and_every_batch_of_the_critics() -> None:
    found = chosen(128)
    names = [variant.name for variant in found]
    assert len(set(names)) == len(names)
    batches = {token for v in found for token in v.tokens if token.startswith("method.critic_batch=")}
    assert batches == {"method.critic_batch=same", "method.critic_batch=previous"}
