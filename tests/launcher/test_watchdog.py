"""A rank that hangs is called so: which one, on which host, and where all of them stood."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mmpretrain.endings import Ending
from mmpretrain.run_folder import RunFolder
from tests.launcher.test_local_run import importable_toys, ranks_alive, run  # noqa: F401
from tests.launcher.toy import toy_plan

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("importable_toys")]


@pytest.mark.parametrize(
    ("settings", "hang_s", "said"),
    [
        ({"hang": 1}, 4, ("rank 1 (on ", "hangs for ", "after step 2", "toy.py:", "the other waits at ")),
        pytest.param({"stop": 1}, 4, ("rank 1 (on ", "stopped answering"), marks=pytest.mark.slow),
        pytest.param({"stop": 0}, 4, ("rank 0 (on ", "stopped answering"), marks=pytest.mark.slow),
        pytest.param({"hang": 1, "timeout_s": 5}, 60, ("rank 1 (on ", "hangs for "), marks=pytest.mark.slow),
        pytest.param({"absent": 1}, 4, ("hang",), marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_hangs_is_named_with_its_place(
    tmp_path: Path, settings: dict[str, int], hang_s: int, said: tuple[str, ...]
) -> None:
    """A sleep, a stopped process, a collective that times out first, and one that a rank leaves out."""
    plan = toy_plan(tmp_path / "toy", tokens=[f"engine.hang_s={hang_s}"])
    began = time.monotonic()
    code, out = run(plan, **settings)
    status = RunFolder(plan.run_folder).status()
    assert code is Ending.hung, out
    assert time.monotonic() - began < 90
    assert (status["state"], status["ending"]) == ("failed", "hung")
    for words in said:
        assert words in status["cause"], status
    assert "the same command starts over" in out
    stacks = sorted(path.name.partition("_")[2] for path in (plan.run_folder / "logs").glob("*_stacks.txt"))
    assert stacks == (["0_stacks.txt", "1_stacks.txt"] if "stop" not in settings else stacks)
    assert not ranks_alive(plan)
