"""The row side and the column side of a retrieval's weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpretrain.embedding.perplexity import RetrievalFigures, read_perplexity, read_top1_counts, top1_counts
from mmpretrain.embedding.soft_retrieval import soft_retrieve

QUERIES = 500


def test_a_hub_shows_in_the_counts_and_not_in_the_perplexity(tmp_path: Path) -> None:
    """First memory: every query has an item of its own. Second: one item lies amid all queries, the others far off."""
    own = torch.eye(QUERIES)
    hub = torch.cat([torch.full((1, QUERIES), 1.0), -torch.eye(QUERIES)[1:]])
    found = [soft_retrieve(own, memory, temperature=0.001) for memory in (own, hub)]
    figures = RetrievalFigures(tmp_path, [QUERIES, QUERIES])
    effective, nearest = (np.stack([getattr(f, name) for f in found], axis=1) for name in ("effective", "nearest"))
    figures.note(0, effective, nearest)
    figures.summarize(1)
    spread, counts = read_perplexity(tmp_path), read_top1_counts(tmp_path)
    assert spread is not None and spread["first"] == spread["second"] and spread["first"]["median"] == 1
    assert counts is not None
    assert (counts["first"]["distinct"], counts["second"]["distinct"]) == (QUERIES, 1)
    assert (counts["first"]["largest_share"], counts["second"]["largest_share"]) == (0.002, 1.0)
    assert counts["first"]["skewness"] == 0 and counts["second"]["skewness"] > 20
    assert not list(tmp_path.glob(".effective*"))


def test_the_skewness_is_that_of_the_counts_of_all_items() -> None:
    nearest = np.random.default_rng(0).geometric(0.3, size=300)
    found = top1_counts(nearest, memory=80)
    counts = np.bincount(nearest, minlength=80)
    third = ((counts - counts.mean()) ** 3).mean() / counts.std() ** 3
    assert found["skewness"] == pytest.approx(third, abs=1e-4)
    assert found["distinct"] == len(set(nearest.tolist())) and found["largest"] == np.bincount(nearest).max()
    # Drawn by chance, counts are Poisson's: 1 / sqrt(mean).
    draws = np.random.default_rng(0).integers(10_000, size=40_000)
    assert top1_counts(draws, 10_000)["skewness"] == pytest.approx(0.5, abs=0.05)


def test_what_an_earlier_version_began_is_finished_without_counts(tmp_path: Path) -> None:
    """It kept the effective numbers alone."""
    (tmp_path / ".effective-000000.json").write_text(json.dumps([[2.0, 3.0]]))
    figures = RetrievalFigures(tmp_path, [9, 9])
    figures.note(1, np.array([[4.0, 5.0]]), np.array([[0, 1]]))
    figures.summarize(2)
    found = read_perplexity(tmp_path)
    assert found is not None and found["first"]["mean"] == 3 and read_top1_counts(tmp_path) is None
