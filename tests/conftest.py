"""Fixtures that tests of every folder share."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The tests describe CPU processes; on a machine with GPUs they must not become something else.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TRITON_INTERPRET"] = "1"  # kernels for GPUs are read by an interpreter instead; triton looks when it loads
import torch

from shards.digits import build_digits
from tests.dealing import scheduler, sort_by_length
from tests.process_guard import guarded, mark_users_of_ranks
from tests.rank_pool import RankPool, Ranks


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whoever uses living ranks uses processes; several workers begin with what takes longest."""
    mark_users_of_ranks(items)
    if hasattr(config, "workerinput"):
        sort_by_length(items)


def pytest_collection_finish() -> None:
    """What exists now stays: the collector of garbage need not look through it again and again."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Which tests go to the same worker."""
    return scheduler(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Fixtures of a test that is not marked start no process."""
    with guarded(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Nor does the test. What ends with the session may run after any test, so tearing down is not looked at."""
    with guarded(item):
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The tensors of tests are so small that threads only wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    """``ranks(world_size, function, *args, timeout=240)``: ``function(*args)`` on 1, 2 or 4 living gloo ranks.

    Returns the results in the order of ranks. Raises RankError (an AssertionError) that names the rank which raised
    or hung. The processes start with the first call for a world size and end with the session.
    """
    pools: dict[int, RankPool] = {}
    files: dict[int, str] = {}  # whose tests used a pool last; within a file one call may count on another

    def run(world_size: int, function: Callable[..., Any], *args: Any, timeout: float = 240) -> list[Any]:
        file = os.environ.get("PYTEST_CURRENT_TEST", "").partition("::")[0]
        used = pools.get(world_size)
        if used and not (used.alive and (files[world_size] == file or not used.crowded)):
            pools.pop(world_size).close()
        files[world_size] = file
        if world_size not in pools:
            pools[world_size] = RankPool(world_size)
        return pools[world_size].run(function, args, timeout)

    yield run
    for pool in pools.values():
        pool.close()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as shards."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    build_digits(folder)
    return folder
