"""The objective's section: which mode, and what it will hold."""

from __future__ import annotations

from typing import Any

import pytest

from mmpretrain.config.objective import MIB, Negatives, ObjectiveConfig, gathered_bytes, memory_note


def test_auto_gathers_while_features_and_their_gradients_fit() -> None:
    config = ObjectiveConfig(gather_mb=8)
    rows = 8 * MIB // (2 * 4 * 512)
    assert gathered_bytes(rows, 512) == 8 * MIB
    assert config.mode(rows, 512) is Negatives.gather
    assert config.mode(rows + 1, 512) is Negatives.ring


@pytest.mark.parametrize("mode", [Negatives.gather, Negatives.ring, Negatives.local])
def test_what_is_asked_for_stays(mode: Negatives) -> None:
    assert ObjectiveConfig(mode).mode(10**9, 512) is mode


@pytest.mark.parametrize(("key", "value"), [("tile", 0), ("keep_mb", -1), ("gather_mb", -1)])
def test_impossible_sizes_are_named(key: str, value: int) -> None:
    options: dict[str, Any] = {key: value}
    (problem,) = ObjectiveConfig(**options).problems()
    assert problem.startswith(f"objective.{key} is {value}")


def test_the_note_says_mode_and_memory() -> None:
    # 2 x 4 bytes x 65536 x 1024 gathered = 512 MiB, 64 MiB of tiles kept, 48 MiB of scratch.
    note = memory_note(ObjectiveConfig(), 65536, 8, 1024, 2)
    assert note.startswith("negatives gather (chosen by objective.negatives=auto, gather_mb=1024): about 624 MiB")
    assert note.endswith("one whole matrix of similarities would be 2 GiB")
    assert memory_note(ObjectiveConfig(gather_mb=100), 65536, 8, 1024, 2).startswith("negatives ring (chosen")
    assert memory_note(ObjectiveConfig(Negatives.local), 65536, 8, 1024, 2).startswith("negatives local: about")
    assert memory_note(ObjectiveConfig(), 1024, 1, 8, 1).startswith("negatives of one rank: about")


def test_the_note_says_that_learned_critics_always_gather() -> None:
    """2 x 4 bytes x 4096 x 3072 = 96 MiB, however many ranks."""
    for ranks in (2, 64):
        for mode in (Negatives.auto, Negatives.gather, Negatives.ring):
            note = memory_note(ObjectiveConfig(mode), 4096, ranks, 3072, 6, rings=False)
            assert note.startswith("negatives gather (columns of learned critics are always gathered")
            assert "objective.negatives=ring has no effect" in note and "about 96 MiB per rank" in note
    local = memory_note(ObjectiveConfig(Negatives.local), 4096, 4, 3072, 6, rings=False)
    assert local.startswith("negatives local: about 24 MiB")
    alone = memory_note(ObjectiveConfig(), 4096, 1, 3072, 6, rings=False)
    assert alone.startswith("negatives of one rank: about 96 MiB")
