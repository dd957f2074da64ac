"""When the searched probe of factors runs, and the score that it cannot give."""

from __future__ import annotations

import pytest

from mmpretrain.config.compose import compose
from mmpretrain.config.evaluation import BestConfig, EvaluationConfig, FactorsConfig, Search


@pytest.mark.parametrize(("search", "watched"), [("never", "never"), ("final", "never"), ("always", "always")])
def test_while_training_it_runs_only_if_always_wanted(search: str, watched: str) -> None:
    assert FactorsConfig(Search(search)).while_training.search is Search(watched)


@pytest.mark.parametrize("search", Search)
def test_a_checkpoint_is_chosen_by_it_only_if_it_runs_while_training(search: Search) -> None:
    best = BestConfig(score="factors/fused/shape/searched_balanced_accuracy", split="validation")
    found = EvaluationConfig(every_steps=1, best=best, factors=FactorsConfig(search)).problems()
    assert ["set it to always" in problem for problem in found] == ([] if search is Search.always else [True])


@pytest.mark.parametrize("experiment", ["latents", "planted"])
def test_experiments_that_read_factors_do_so_by_both_probes(experiment: str) -> None:
    assert compose([f"experiment={experiment}", "method=clip"]).evaluation.factors.search is Search.final
