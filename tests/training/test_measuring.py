"""What is measured while training and what after it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmpretrain.config.compose import compose
from mmpretrain.config.evaluation import EvaluationConfig, Search
from mmpretrain.distributed.world import World
from mmpretrain.training import measuring
from mmpretrain.training.measuring import Measuring

TOKENS = ["method=comm", "experiment=trifeatures", "evaluation.during=[factors]", "evaluation.every_steps=1"]


@pytest.mark.parametrize(
    ("search", "during"), [(Search.never, Search.never), (Search.final, Search.never), (Search.always, Search.always)]
)
def test_factors_are_searched_while_training_only_where_that_is_wanted(
    search: Search, during: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Search] = []

    def measure(
        _metrics: Any, _embed: Any, _world: Any, settings: EvaluationConfig, *_: Any, **__: Any
    ) -> dict[str, Any]:
        asked.append(settings.factors.search)
        return {}

    monkeypatch.setattr(measuring, "measure", measure)
    monkeypatch.setattr(Measuring, "embed", lambda *_, **__: None)
    config = compose([*TOKENS, f"data.path={tmp_path}", f"evaluation.factors.search={search}"])
    nothing: Any = SimpleNamespace(world=World.single())
    found = Measuring(config, nothing, nothing, nothing, texts=[])
    found.while_training()
    found.final()
    assert asked == [during, search]
