"""Which sizes a run has had, and whether its state can be divided anew."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mmpretrain.config.compose import compose
from mmpretrain.config.engine import EngineConfig
from mmpretrain.engine.checkpoint_layout import Layout, layout_of, not_divisible, sizes_so_far, written_layout

OLD = {"step": 40, "world_size": 2, "config": {"engine": {"zero": 1, "precision": "float32", "timeout_s": 5}}}


def test_a_checkpoint_of_an_earlier_version_tells_its_layout_by_its_config() -> None:
    assert written_layout(OLD) == Layout(2, 1, "float32") == layout_of(EngineConfig(), 2)
    assert written_layout({"step": 40, "world_size": 2}) is None


def test_what_is_written_down_is_read_again() -> None:
    deepspeed = "engine.deepspeed.zero_optimization.reduce_bucket_size=9"
    layout = layout_of(compose(["method=clip", "engine.zero=2", deepspeed]).engine, 3)
    assert written_layout({"layout": layout.facts()}) == layout
    assert layout != layout_of(compose(["method=clip", "engine.zero=2"]).engine, 3)


@pytest.mark.parametrize(
    "zero", [{"zero_hpz_partition_size": 2}, {"offload_param": {"device": "nvme"}}, {"elastic_checkpoint": True}]
)
def test_state_in_a_form_of_its_own_cannot_be_divided(zero: dict[str, Any]) -> None:
    layout = Layout(2, 1, "float32", {"deepspeed": {"zero_optimization": zero}})
    assert str(next(iter(zero))) in str(not_divisible(layout))
    assert not_divisible(Layout(2, 3, "float32", {"deepspeed": {"zero_optimization": {"stage": 3}}})) is None


def test_sizes_are_told_from_the_first_start_on() -> None:
    two = Layout(2, 1, "float32")
    three = replace(two, ranks=3, zero=3)
    first = sizes_so_far(None, two)
    assert first == [{"step": 0, "ranks": 2, "zero": 1, "precision": "float32"}]
    at_40 = {**OLD, "sizes": first}
    assert sizes_so_far(at_40, two) == first == sizes_so_far(OLD, two)
    later = sizes_so_far(at_40, three)
    assert later == [*first, {"step": 40, "ranks": 3, "zero": 3, "precision": "float32"}] == sizes_so_far(OLD, three)
    assert sizes_so_far({**OLD, "sizes": later}, two) == first, "three ranks made no step that was kept"
    assert len(sizes_so_far({**OLD, "step": 80, "sizes": later}, two)) == 3
