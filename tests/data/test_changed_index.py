"""Shards that are others than those of a checkpoint: accepted by name alone, and then a stream like any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.data.changed_index import ChangedIndex, changed_index
from mmpretrain.data.index import Index
from tests.data.small_dataset import stream, write_split


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Two shards."""
    return write_split(tmp_path_factory.mktemp("before") / "train", (6, 6))


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """A third one was added."""
    return write_split(tmp_path_factory.mktemp("after") / "train", (6, 6, 6))


def test_the_same_shards_are_no_change(before: Index) -> None:
    assert changed_index(before, before.fingerprint, None) is None
    assert changed_index(before, None, None) is None, "a checkpoint that names none"


@pytest.mark.parametrize("accept", [None, "0123456789ab", "before"])
def test_what_nobody_named_is_not_accepted(before: Index, after: Index, accept: str | None) -> None:
    accept = before.fingerprint[:12] if accept == "before" else accept
    found = changed_index(after, before.fingerprint, accept)
    assert found == ChangedIndex(before.fingerprint, after.fingerprint, 18, accepted=False)
    token, value = found.token.split("=")
    assert token == "data.accept_index"
    accepted = changed_index(after, before.fingerprint, value)
    assert accepted is not None and accepted.accepted
    assert "position 27" in accepted.words(27) and "epoch 1.5 of 18 samples" in accepted.words(27)
    assert accepted.facts(9) == {"step": 9, "before": before.fingerprint, "now": after.fingerprint}


def test_the_stream_then_is_that_of_the_new_shards_at_any_number_of_ranks(after: Index) -> None:
    """From the position on, as if it had always been so: nothing else is known of the shards from before."""
    path = Path(after.folder).parent
    whole = [batch.sample_ids.tolist() for batch in stream(path).batches(0, 6)]
    again = [batch.sample_ids.tolist() for batch in stream(path).batches(3, 6)]
    assert again == whole[3:]
    halves = [stream(path, rank, 2).batches(3, 6) for rank in (0, 1)]
    for batch, *parts in zip(again, *halves, strict=True):
        assert sorted(batch) == sorted(i for part in parts for i in part.sample_ids.tolist())
