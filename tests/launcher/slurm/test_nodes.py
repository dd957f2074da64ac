"""GPUs of the partition in use, from sinfo's own forms."""

from __future__ import annotations

import pytest

from launcher.slurm.nodes import GpuError, Gpus, Node, choose_gpus, gpus_of, has_features


def node(name: str, resources: str, state: str = "idle", features: str = "") -> Node:
    """A node as sinfo tells of it."""
    return Node.read(f"{name}|{state}|64|500000|{resources}|{features or '(null)'}")


def nodes(*groups: tuple[int, str]) -> list[Node]:
    """So many nodes with such resources each."""
    return [node(f"n{group}-{at}", text) for group, (count, text) in enumerate(groups) for at in range(count)]


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        ("gpu:4", {"": 4}),
        ("gpu:a100:4", {"a100": 4}),
        ("gpu:a100:no_consume:4", {"a100": 4}),
        ("gpu:no_consume:2", {"": 2}),
        ("gpu:4(S:0-1)", {"": 4}),
        ("gpu:a100:4(S:0,1)", {"a100": 4}),
        ("gpu:tesla:2,mps:200", {"tesla": 2}),
        ("gpu:a100:2(S:0),gpu:1g.5gb:7(S:1),shard:8", {"a100": 2, "1g.5gb": 7}),
        ("gpu:a100:2(S:0),gpu:a100:2(S:1)", {"a100": 4}),
        ("gpu:1080:8", {"1080": 8}),
        ("gpu", {"": 1}),
        ("gpu:a100", {"a100": 1}),
        ("gres/nvme:2,bandwidth:lustre:no_consume:4G", {}),
        ("gpu:0", {}),
        ("(null)", {}),
    ],
)
def test_every_form_of_resources_is_counted(resources: str, gpus: dict[str, int]) -> None:
    assert gpus_of(resources) == gpus


@pytest.mark.parametrize(
    ("state", "usable"),
    [
        *((state, True) for state in ("idle", "mixed", "allocated", "idle~", "mixed#", "planned", "idle+")),
        *((state, False) for state in ("down", "down*", "drained", "draining@", "idle*", "unknown", "fail", "inval")),
    ],
)
def test_sleeping_nodes_can_be_had_and_silent_ones_cannot(state: str, usable: bool) -> None:
    assert node("n1", "gpu:4", state).usable is usable


def test_the_number_is_that_of_most_nodes_and_one_type_is_taken() -> None:
    found = nodes((12, "gpu:a100:4(S:0-1)"), (3, "gpu:v100:8"), (2, "gpu:a100:2"), (1, "gpu:1g.5gb:7"))
    chosen = choose_gpus(found, 4, "partition gpu")
    assert (chosen.count, chosen.kind) == (4, "a100")
    assert chosen.note == (
        "4 x a100 per node, as partition gpu says (12 nodes); 2 others have fewer;"
        " not used there: 7 x 1g.5gb on 1 node, 8 x v100 on 3 nodes"
    )
    assert choose_gpus(found, 3, "p", "v100").count == 8
    assert choose_gpus(found, 1, "p", "1g.5gb") == Gpus(7, "1g.5gb", "7 x 1g.5gb per node, as p says (1 node)" + (
        "; not used there: 2 x a100 on 2 nodes, 4 x a100 on 12 nodes, 8 x v100 on 3 nodes"
    ).replace("2 x a100 on 2 nodes, 4 x a100 on 12 nodes", "4 x a100 on 12 nodes, 2 x a100 on 2 nodes"))  # fmt: skip


def test_a_cluster_of_one_kind_needs_no_type() -> None:
    assert choose_gpus(nodes((2, "gpu:a100:4")), 2, "partition low") == Gpus(
        4, None, "4 x a100 per node, as partition low says (2 nodes)"
    )
    assert choose_gpus(nodes((1, "gpu:1")), 1, "p").note == "1 GPU per node, as p says (1 node)"
    assert choose_gpus(nodes((3, "(null)")), 1, "p") == Gpus()


def test_no_more_is_asked_for_than_so_many_nodes_have() -> None:
    found = nodes((3, "gpu:a100:8"), (2, "gpu:a100:4"))
    assert choose_gpus(found, 3, "p").count == 8
    assert choose_gpus(found, 5, "p").count == 4
    # A type that too few nodes have is no choice for more.
    assert choose_gpus([*nodes((2, "gpu:h100:8"), (1, "gpu:h200:8")), *nodes((1, "gpu:h200:8"))], 2, "p").kind == "h200"


def test_nodes_that_are_down_do_not_decide() -> None:
    found = [*nodes((2, "gpu:a100:4")), *(node(f"d{at}", "gpu:a100:8", "down*") for at in range(5))]
    assert choose_gpus(found, 2, "p").count == 4
    # But a cluster that sleeps is no cluster of CPUs.
    assert choose_gpus(found[2:], 2, "p").count == 8


@pytest.mark.parametrize(
    ("kind", "count", "text", "resources"),
    [
        (None, None, "p has slices of GPUs alone (7 x 1g.5gb on 2 nodes)", "gpu:1g.5gb:7"),
        ("h100", None, "p has no GPUs of type h100: its nodes have 4 x a100 on 2 nodes", "gpu:a100:4"),
        (None, 8, "8 x a100 on each of 2 nodes: p has 4 x a100 on 2 nodes; ask for fewer", "gpu:a100:4"),
        (None, 2, "p has no whole GPUs: its nodes have no GPUs", "(null)"),
    ],
)
def test_what_no_node_has_is_refused(kind: str | None, count: int | None, text: str, resources: str) -> None:
    with pytest.raises(GpuError) as caught:
        choose_gpus(nodes((2, resources)), 2, "p", kind, count)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("constraint", "fits"),
    [(None, True), ("a100", True), ("a100&ib", True), ("a100&eth", False), ("v100|ib", True), ("[a|b]*2", True)],
)
def test_constraints_of_names_choose_among_the_nodes(constraint: str | None, fits: bool) -> None:
    assert has_features(node("n1", "gpu:4", features="a100,ib"), constraint) is fits
