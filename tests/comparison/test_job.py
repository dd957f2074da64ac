"""What is wrong with the arguments is said before anything is opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmpretrain.comparison.job import EvaluateJob


@pytest.fixture
def job(models: Path) -> EvaluateJob:
    """One that is right."""
    return EvaluateJob(models={"clip": str(models / "clip")}, data=str(models / "data"), out="out")


def test_a_job_comes_through_as_text(job: EvaluateJob) -> None:
    changed = replace(job, metrics=["knn"], settings=["knn.k=3"], towers={"picture": ["image"]}, pair=[])
    assert job.problems() == [] == changed.problems()
    assert EvaluateJob.from_json(changed.to_json()).to_json() == changed.to_json()
    assert changed.evaluation().knn.k == 3 and changed.evaluation().split == "test"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"limit": 0}, "--limit is 0"),
        ({"workers": -1}, "--workers is -1"),
        ({"max_bad_fraction": 2.0}, "--max-bad-fraction is 2.0"),
        ({"pool": "max"}, "use one of mean, cls"),
        ({"metrics": ["retreival"]}, "did you mean retrieval?"),
        ({"pair": ["picture"]}, "write the names of two modalities"),
        ({"towers": {"picture": [""]}}, "write NAME or NAME=TOWER"),
        ({"templates": ["a photo"]}, "write {} once"),
        ({"classes": ["x", "y", "x"]}, "has 'x' twice"),
        ({"settings": ["knn.kk=3"]}, "kk"),
        ({"settings": ["knn.k=0"]}, "knn.k is 0"),
        ({"data": "nowhere"}, "nowhere/test/index.json is missing"),
        ({"split": "validation"}, "or --split test, which is there"),
    ],
)
def test_what_is_wrong_is_one_sentence(job: EvaluateJob, change: dict[str, Any], message: str) -> None:
    assert message in replace(job, **change).problems()[0]
