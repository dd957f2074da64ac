"""What a contrastive loss holds between forward and backward, and at its peak: features, never the whole matrix."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from mmpretrain.config.objective import MIB, Negatives, ObjectiveConfig
from mmpretrain.distributed.exchange import RowBlock, Visit, exchange
from mmpretrain.distributed.world import World
from mmpretrain.losses import sigmoid_sweep
from mmpretrain.losses.contrastive import Diagonal, Labels, Mixup, Pair, Soft, contrastive
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from mmpretrain.losses.targets import Targets
from mmpretrain.losses.tiled import backward, forward
from tests.rank_pool import Ranks

WIDTH = 8
KINDS = ("diagonal", "nt_xent", "mixup", "labels", "soft")


@pytest.fixture(autouse=True)
def nothing_older() -> None:
    """What was there before the test is not looked through: it can be millions of objects."""
    gc.freeze()


def make_pair(kind: str, rows: int) -> Pair:
    """Random sides that ask for gradients, with targets of this kind."""
    query, key = torch.randn(2, rows, WIDTH, generator=torch.Generator().manual_seed(0))
    query, key = query.requires_grad_(), key.requires_grad_()
    half = torch.full((rows,), 0.5)
    targets: dict[str, Targets] = {
        "mixup": Mixup(half, half, torch.arange(rows).roll(1)),
        "labels": Labels(torch.arange(rows) % 10),
        "soft": Soft(key),
    }
    return Pair(query, key, targets.get(kind, Diagonal()), same_side=kind == "nt_xent")


def held(kind: str, rows: int, settings: ObjectiveConfig) -> int:
    """Bytes that exist on this rank because a loss waits for its backward pass, saved by autograd or otherwise."""
    pair = make_pair(kind, rows)
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        saved.update(storages([tensor]))
        return tensor

    before = storages(tensors_alive())
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        (result,) = contrastive([pair], scale=torch.ones(1) * 9, world=World.current(), settings=settings)
    after = storages(tensors_alive()) | saved
    assert result.loss.requires_grad and saved
    return sum(size for pointer, size in after.items() if pointer not in before)


def tensors_alive() -> list[Tensor]:
    """All tensors that Python knows of."""
    return [thing for thing in gc.get_objects() if type(thing) in (Tensor, torch.nn.Parameter)]


def storages(tensors: list[Tensor]) -> dict[int, int]:
    """Address -> bytes, each memory once."""
    real = [t.untyped_storage() for t in tensors if t.device.type == "cpu" and t.layout is torch.strided]
    return {memory.data_ptr(): memory.nbytes() for memory in real if memory.nbytes()}


def again(mode: Negatives = Negatives.gather, tile: int = 64) -> ObjectiveConfig:
    """Settings with which the backward pass computes every tile again."""
    return ObjectiveConfig(mode, tile=tile, keep_mb=0)


@pytest.mark.parametrize("kind", KINDS)
def test_grows_with_the_rows_and_not_with_their_square(kind: str) -> None:
    small, large = held(kind, 256, again()), held(kind, 1024, again())
    assert large <= 4.2 * small
    assert large < 1024 * 1024 * 4 / 8


@pytest.mark.parametrize("kind", KINDS)
def test_does_not_depend_on_the_tiles(kind: str) -> None:
    assert held(kind, 512, again(tile=16)) == pytest.approx(held(kind, 512, again(tile=512)), rel=0.01)


@pytest.mark.parametrize("kind", ["nt_xent", "soft"])
def test_in_a_ring_it_does_not_depend_on_the_number_of_ranks(ranks: Ranks, kind: str) -> None:
    rows = 128
    in_ring = {size: max(ranks(size, held, kind, rows, again(Negatives.ring))) for size in (2, 4)}
    gathered = max(ranks(4, held, kind, rows, again(Negatives.gather)))
    assert in_ring[4] == pytest.approx(in_ring[2], rel=0.02)
    # The keys of the other three ranks are what gathering adds.
    assert gathered - in_ring[4] >= 2 * rows * WIDTH * 4


@pytest.mark.parametrize("kind", KINDS)
def test_kept_tiles_stay_inside_their_budget(kind: str) -> None:
    rows = 1024
    kept, bare = (held(kind, rows, ObjectiveConfig(tile=64, keep_mb=budget)) for budget in (2, 0))
    assert kept - bare <= 2 * MIB
    if kind != "soft":
        assert kept - bare > 1.9 * MIB
        assert held(kind, rows, ObjectiveConfig(tile=64, keep_mb=64)) - bare >= rows * rows * 4


def test_without_gradients_nothing_is_held() -> None:
    pair = make_pair("diagonal", 512)
    before = storages(tensors_alive())
    with torch.no_grad():
        (result,) = contrastive([pair], scale=9.0, world=World.single(), settings=ObjectiveConfig())
    assert result.loss > 0
    new = {pointer: size for pointer, size in storages(tensors_alive()).items() if pointer not in before}
    assert sum(new.values()) < 10_000


def at_visits(kind: str, rows: int, settings: ObjectiveConfig) -> int:
    """Bytes that exist on this rank at most while blocks of keys visit it, in the forward and the backward pass."""
    before, most = storages(tensors_alive()), 0
    pair = make_pair(kind, rows)
    scale, bias = torch.ones(1) * 9, torch.ones(1) * -9

    def watched(payload: Sequence[Tensor], width: int, visit: Visit, **options: Any) -> Tensor:
        def see(block: RowBlock) -> None:
            nonlocal most
            visit(block)
            new = {pointer: size for pointer, size in storages(tensors_alive()).items() if pointer not in before}
            most = max(most, sum(new.values()))

        return exchange(payload, width, see, **options)

    with ExitStack() as stack:
        for sweep in (forward, backward, sigmoid_sweep):
            stack.enter_context(mock.patch.object(sweep, "exchange", watched))
        options: dict[str, Any] = {"world": World.current(), "settings": settings, "metrics": False}
        if kind == "sigmoid":
            (result,) = sigmoid_contrastive([pair], scale=scale, bias=bias, **options)
        else:
            (result,) = contrastive([pair], scale=scale, **options)
        result.loss.backward()
    return most


@pytest.mark.parametrize("kind", ["diagonal", "sigmoid"])
def test_blocks_on_their_way_do_not_add_up_with_the_ranks(ranks: Ranks, kind: str) -> None:
    """Two ranks never have a third block under way; from three on it is the same."""
    rows = 256
    block = 2 * rows * WIDTH * 4  # keys and their gradients
    small = 40 * rows  # what else travels, per row
    ring, gathered = (
        {size: max(ranks(size, at_visits, kind, rows, again(mode, tile=16))) for size in (2, 4)}
        for mode in (Negatives.ring, Negatives.gather)
    )
    assert ring[4] - ring[2] <= block + small
    assert gathered[4] - gathered[2] >= 2 * block


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["diagonal", "sigmoid"])
def test_blocks_on_their_way_are_the_same_on_any_more_ranks(ranks: Ranks, kind: str) -> None:
    four, six = (max(ranks(size, at_visits, kind, 256, again(Negatives.ring, tile=16))) for size in (4, 6))
    assert four == six


def peak_growth(form: str, rows: int) -> float:
    """MiB by which one step raises this process's peak, after a small step that loads what is needed."""
    step(form, 64)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak()
    step(form, rows)
    return peak() - before


def step(form: str, rows: int) -> None:
    """Forward and backward, by whole matrices (``dense``) or by tiles."""
    if form == "dense":
        pair = make_pair("diagonal", rows)
        logits = 9 * torch.nn.functional.normalize(pair.query) @ torch.nn.functional.normalize(pair.key).T
        torch.nn.functional.cross_entropy(logits, torch.arange(rows)).backward()
        return
    pair = make_pair(form, rows)
    settings = ObjectiveConfig(tile=512, keep_mb=0)
    contrastive([pair], scale=9.0, world=World.single(), settings=settings)[0].loss.backward()


def peak() -> float:
    """The most memory that this process ever had, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def peak_in_a_fresh_process(form: str, rows: int) -> float:
    """``peak_growth`` of this file in an interpreter of its own, in MiB."""
    code = f"import torch; torch.set_num_threads(1); import {__name__} as t; print(t.peak_growth({form!r}, {rows}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return float(done.stdout)


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_the_peak_of_a_step_is_far_below_one_matrix() -> None:
    rows = 6144
    matrix = rows * rows * 4 / MIB
    assert peak_in_a_fresh_process("dense", rows) > 2 * matrix
    assert peak_in_a_fresh_process("diagonal", rows) < matrix / 5


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_of_every_kind(kind: str) -> None:
    rows = 6144
    assert peak_in_a_fresh_process(kind, rows) < rows * rows * 4 / MIB / 5
