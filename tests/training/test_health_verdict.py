"""What follows from what ranks saw: pretended GPUs, nodes and networks."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from mmpretrain.config.health import HealthConfig
from mmpretrain.training.health_verdict import (
    Link,
    Seen,
    judge_clocks,
    judge_links,
    judge_ranks,
    rates,
    silent,
)

GIB = 2**30
VERSIONS = {"torch": "2.13.0", "NCCL": "2.27"}
SETTINGS = HealthConfig()


def ranks(nodes: int = 3, per_node: int = 2) -> list[Seen]:
    """Healthy ranks with a GPU each, on node1, node2, and so on."""
    return [
        Seen(rank, f"node{1 + rank // per_node}", "H200", f"GPU-{rank}", 139 * GIB, 140 * GIB, True, VERSIONS)
        for rank in range(nodes * per_node)
    ]


def other(index: int, **changes: Any) -> list[Seen]:
    """The same, with one rank that is different."""
    return [replace(rank, **changes) if rank.rank == index else rank for rank in ranks()]


def network(slow: dict[tuple[int, int], float] | None = None, among: int = 6) -> list[Link]:
    """All links at 1000 MB/s but those in ``slow``, by (source, target)."""
    return [Link(*pair, (slow or {}).get(pair, 1000.0)) for pair in permutations(range(among), 2)]


def around(rank: int, rate: float, among: int = 6) -> dict[tuple[int, int], float]:
    """All links of one rank."""
    return {pair: rate for pair in permutations(range(among), 2) if rank in pair}


def test_healthy_ranks_have_no_problems() -> None:
    verdict = judge_ranks(ranks(), SETTINGS)
    verdict.add(judge_links(network(), ranks(), SETTINGS))
    verdict.add(judge_clocks([100.0] * 6, ranks()))
    assert verdict.to_json() == {"problems": [], "warnings": [], "nodes": []}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"right": False}, "rank 3 on node2: its H200 multiplies wrongly"),
        ({"free": 60 * GIB}, "rank 3 on node2: 60.0 of 140.0 GiB of its H200 are free, another process holds the rest"),
        (
            {"versions": VERSIONS | {"torch": "2.12.0"}},
            "torch is 2.13.0 on node1, node2, node3 and 2.12.0 on node2",
        ),
    ],
    ids=["arithmetic", "memory", "versions"],
)
def test_a_node_with_a_bad_rank_is_named(changes: dict[str, Any], said: str) -> None:
    verdict = judge_ranks(other(3, **changes), SETTINGS)
    assert verdict.nodes == ["node2"] and len(verdict.problems) == 1
    assert verdict.problems[0].startswith(said)


def test_how_much_memory_must_be_free_is_a_setting() -> None:
    assert not judge_ranks(other(3, free=60 * GIB), HealthConfig(least_free_memory=0.4)).problems


def test_the_memory_of_a_machine_without_gpus_is_its_users_business() -> None:
    assert not judge_ranks(other(3, identity=None, free=0), SETTINGS).problems


def test_ranks_on_the_same_gpu_are_named_and_no_node_is_left_out() -> None:
    """The next node would bind its tasks in the same way."""
    verdict = judge_ranks(other(3, identity="GPU-2"), SETTINGS)
    assert verdict.nodes == []
    assert "rank 2 on node2, rank 3 on node2 have the same GPU (GPU-2)" in verdict.problems[0]


def test_a_node_with_other_code_is_named() -> None:
    """Only the first rank of each node looks."""
    seen = [replace(rank, code="new" if rank.rank == 4 else "old") for rank in ranks() if rank.rank % 2 == 0]
    verdict = judge_ranks(seen, SETTINGS)
    assert (
        verdict.nodes == ["node3"]
        and "the code of the run is old on node1, node2 and new on node3" in (verdict.problems[0])
    )


def test_when_half_of_the_nodes_differ_nobody_can_tell_which_are_wrong() -> None:
    seen = [replace(rank, versions={"torch": rank.node}) for rank in ranks(nodes=2)]
    verdict = judge_ranks(seen, SETTINGS)
    assert verdict.problems and verdict.nodes == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shared_mb": 64.0}, "node2 has 64 MB free in /dev/shm"),
        ({"cache_gb": 0.5}, "node2 has 0.50 GB for the shards of URLs"),
        ({"device": "A100"}, "devices of several kinds: H200 (5 ranks), A100 (1 ranks)"),
    ],
)
def test_what_only_slows_down_is_a_warning(changes: dict[str, Any], said: str) -> None:
    verdict = judge_ranks(other(3, **changes), SETTINGS)
    assert not verdict.problems and said in verdict.warnings[0]


def test_a_clock_that_is_off_is_a_warning() -> None:
    verdict = judge_clocks([100, 100, 130, 130, 101, 100], ranks())
    assert len(verdict.warnings) == 1 and "the clock of node2 is +30 s off" in verdict.warnings[0]


def test_a_rank_whose_links_are_all_slow_is_to_blame() -> None:
    """The others have slow links, too: those to it."""
    verdict = judge_links(network(around(3, 5.0)), ranks(), HealthConfig(least_mb_per_s=100))
    assert verdict.nodes == ["node2"]
    assert "node2: 5 MB/s at worst" in verdict.problems[0] and "least_mb_per_s is 100" in verdict.problems[0]


def test_without_a_limit_slow_links_are_a_warning() -> None:
    verdict = judge_links(network(around(3, 5.0)), ranks(), SETTINGS)
    assert not verdict.problems and "1e+03 MB/s is usual" in verdict.warnings[0]


def test_between_two_nodes_nobody_can_tell_which_one_is_slow() -> None:
    verdict = judge_links(network(around(0, 5.0, among=2), among=2), ranks(2, 1), HealthConfig(least_mb_per_s=100))
    assert verdict.problems and verdict.nodes == []


def test_a_slow_network_between_good_nodes_is_seen_beside_their_fast_insides() -> None:
    slow = {(a, b): 5.0 for a, b in permutations(range(6), 2) if a // 2 != b // 2}
    verdict = judge_links(network(slow), ranks(), HealthConfig(least_mb_per_s=100))
    assert verdict.problems and verdict.nodes == []


@pytest.mark.parametrize("wrong", [{(0, 4), (4, 2)}, {pair for pair in permutations(range(6), 2) if 4 in pair}])
def test_wrong_bits_are_a_problem_of_the_node_that_all_wrong_links_touch(wrong: set[tuple[int, int]]) -> None:
    links = [
        replace(link, problem="what arrived is not what was sent") if (link.source, link.target) in wrong else link
        for link in network()
    ]
    verdict = judge_links(links, ranks(), SETTINGS)
    assert verdict.nodes == ["node3"] and "rank 4 (node3)" in verdict.problems[0]


def test_a_rank_that_says_nothing_is_named() -> None:
    verdict = silent([0, 1, 2, 4, 5], ranks(), 60)
    assert verdict.nodes == ["node2"] and "rank 3 on node2 did not finish" in verdict.problems[0]
    assert silent([0], ranks(), 60).nodes == [], "when all nodes hang, it is not one of them"


def test_rates_of_a_single_rank_are_none() -> None:
    assert rates([]) is None
    assert rates(network(around(3, 5.0))) == {"min": 5.0, "median": 1000.0}


def test_a_network_that_is_slow_everywhere_is_judged_at_once_among_many_ranks() -> None:
    """Rank 0 judges while all others wait for it."""
    seen = ranks(64, 8)
    slow = [Link((rank - distance) % 512, rank, 5.0 + rank) for rank in range(512) for distance in range(1, 10)]
    began = time.process_time()
    verdict = judge_links(slow, seen, HealthConfig(least_mb_per_s=1000.0))
    assert "health.least_mb_per_s is 1000" in verdict.problems[0] and verdict.nodes == []
    assert time.process_time() - began < 2
