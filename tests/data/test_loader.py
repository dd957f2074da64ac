"""Loader processes: order, memory that nobody overwrites, deaths that are named, and nothing left behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from mmpretrain.data import loader
from mmpretrain.data.loader import LoaderError, Watch, load
from mmpretrain.data.slots import Laid, Slots, TooLargeError, lay

pytestmark = pytest.mark.processes

DEADLINE_S = 10.0


def row(number: int) -> tuple[int]:
    """What a batch is made of."""
    return (number,)


def make(number: int) -> dict[str, Tensor]:
    """A batch that says its number, 300 kB large."""
    return {"pixels": torch.full((3, 100_000), number, dtype=torch.uint8), "ids": torch.tensor(number)}


def loaded(make: Callable[..., Any] = make, count: int = 20, workers: int = 2, **options: Any) -> Iterator[Any]:
    """The batches 0 to ``count``."""
    return load(make, row, range(count), workers, **options)


def processes() -> set[int]:
    """The children of this process. Not from its threads' folders: one that ends meanwhile takes its folder along."""
    return {child.pid for child in psutil.Process().children()}


@pytest.fixture(autouse=True)
def earlier() -> Iterator[set[int]]:
    """Children that this process has from elsewhere. No test leaves one more, or memory, or an open socket."""
    before = processes()
    yield before
    gc.collect()
    assert processes() <= before
    assert not slots_open() and not any(socket.fileno() >= 0 for socket in loader._sockets)


def slots_open() -> list[str]:
    """The descriptors of batches' memory."""
    files = Path("/proc/self/fd")
    return [name for name in os.listdir(files) if "memfd:mmpretrain-batch" in _target(files / name)]


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # the one through which the folder was read
        return ""


def wait_until(true: Callable[[], bool]) -> None:
    """Fails if it takes longer than the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def running(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_however_long_each_takes(workers: int) -> None:
    def uneven(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return number

    assert list(loaded(uneven, workers=workers)) == list(range(20))


def test_several_processes_work_at_a_time() -> None:
    """Four that wait for one another: one after the other, the first would wait in vain."""
    together = multiprocessing.get_context("fork").Barrier(4, timeout=60)

    def meet(number: int) -> int:
        together.wait()
        return number

    assert list(loaded(meet, count=16, workers=4)) == list(range(16))


def test_tensors_of_any_type_and_shape_arrive() -> None:
    """Twice the same one, parts of others, and what is no plain tensor, too."""
    types = [torch.uint8, torch.bool, torch.bfloat16, torch.float64, torch.int64, torch.complex64]
    content: list[Any] = [torch.ones(shape).to(kind) for kind in types for shape in [(), (0,), (0, 3), (2, 3)]]
    whole = torch.arange(24).reshape(4, 6)
    content += [content[3], whole.T, whole[1:3, ::2], torch.ones(1).expand(3)[:1], torch.nn.Parameter(torch.ones(2))]
    (arrived,) = load(lambda _: [*content, np.arange(3), "é", None], row, [0], 1)
    for expected, found in zip(content, arrived, strict=False):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert torch.equal(found, expected)
    assert arrived[-3].tolist() == [0, 1, 2] and arrived[-2:] == ["é", None]


def test_what_is_kept_is_never_written_over() -> None:
    kept = list(loaded(count=60))
    assert all(batch["pixels"].eq(number).all() and batch["ids"] == number for number, batch in enumerate(kept))


@pytest.mark.parametrize(
    "part",
    [
        lambda t: t[1, 5:7],
        lambda t: t.numpy()[0],
        lambda t: memoryview(t.numpy().reshape(-1))[2:9],
        lambda t: t.view(torch.int32).T.detach(),
    ],
)
def test_any_part_of_a_batch_keeps_it(part: Callable[[Tensor], Any]) -> None:
    """Also while the rest of the batch is gone, and after the loader has ended."""
    kept, expected = [], []
    for batch in loaded(lambda n: torch.full((3, 4096), n, dtype=torch.uint8)):
        kept.append(part(batch))
        expected.append(bytes(np.asarray(kept[-1])))
        del batch
    assert [bytes(np.asarray(found)) for found in kept] == expected
    assert len(set(expected)) == 20


def test_memory_is_used_again_and_writable() -> None:
    places = set()
    for batch in loaded(count=40):
        places.add(batch["pixels"].data_ptr())
        batch["pixels"] += 1
        del batch
    assert len(places) <= 6


def test_no_memory_has_a_name(earlier: set[int]) -> None:
    """Of what was there before, nothing is said; files without a name are called memfd and /dev/zero, both deleted."""

    def named(process: int | str) -> set[str]:
        maps = Path(f"/proc/{process}/maps").read_text().splitlines()
        return {line.split(maxsplit=5)[5] for line in maps if "/dev/shm" in line}

    before = named("self")
    batches = loaded()
    kept = [next(batches) for _ in range(3)]
    assert named("self") <= before and all(named(process) <= before for process in processes() - earlier)
    assert "memfd:mmpretrain-batch (deleted)" in Path("/proc/self/maps").read_text()
    del kept


def test_a_kept_tensor_is_pickled_without_its_batch() -> None:
    (batch,) = loaded(lambda n: {"large": torch.zeros(100_000), "small": torch.ones(1)}, count=1)
    assert len(pickle.dumps(batch["small"])) < 2000


def test_batches_ahead_are_bounded_in_bytes(tmp_path: Path) -> None:
    """made: one line per batch that was made; nothing is made beyond what fits."""
    made = tmp_path / "made"
    made.touch()

    def counted(number: int) -> dict[str, Tensor]:
        with made.open("a") as log:
            log.write(f"{number}\n")
        return make(number)

    batches = loaded(counted, workers=2, limit=1_000_000)
    for number in range(10):
        assert next(batches)["ids"] == number
        time.sleep(0.02)
        assert len(made.read_text().split()) <= number + 1 + 3
    assert [batch["ids"].item() for batch in batches] == list(range(10, 20))


def test_batches_larger_than_those_before_still_come() -> None:
    sizes = [10, 10, 90_000, 10, 80_000, 95_000, 20, 99_000, 1, 2]
    batches = load(lambda n: torch.zeros(sizes[n], dtype=torch.uint8), row, range(10), 3, limit=100_000)
    assert [len(batch) for batch in batches] == sizes


def test_a_large_batch_does_not_stay_in_memory_as_its_slot() -> None:
    slots = Slots(4, most=1000)
    for size in (100_000, 500):
        slot = slots.take()
        batch = slots.lend(slot, lay(slot.file, torch.arange(size, dtype=torch.int32), 1 << 20))
        assert batch.tolist() == list(range(size))
        del batch
        assert os.fstat(slot.file).st_size <= 1000


def test_work_for_processes_that_are_all_dead_says_of_what_they_died() -> None:
    crew = loader._Crew(make, 1, None)
    ((_, process),) = crew._processes.values()
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    try:
        crew.send(0, 1 << 20, Slots(1).take())
        with pytest.raises(LoaderError, match="was ended by SIGKILL"):
            list(crew.answers(block=True))
    finally:
        crew.close()


def test_a_batch_that_can_never_fit_is_an_error() -> None:
    with pytest.raises(LoaderError, match=r"batch 0 takes 0\.300. MB, but data\.prefetch_mb=0\.2: raise it"):
        next(loaded(limit=200_000))


def test_slots_refuse_what_is_too_large_without_writing() -> None:
    slots = Slots(1)
    slot = slots.take()
    with pytest.raises(TooLargeError):
        lay(slot.file, make(1), 1000)
    assert os.fstat(slot.file).st_size == 0
    laid = lay(slot.file, make(7), 1_000_000)
    assert isinstance(laid, Laid) and slots.lend(slot, laid)["ids"] == 7


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "was ended by SIGKILL (so ends a process when memory is short"),
        (lambda: os.kill(os.getpid(), signal.SIGUSR1), "was ended by SIGUSR1"),
        (lambda: os._exit(3), "ended by itself with exit code 3"),
    ],
)
def test_a_dead_process_is_named_with_its_sample(end: Callable[[], None], said: str) -> None:
    place: list[np.ndarray] = []

    def reads(number: int) -> int:
        place[0][0] = 100 + number
        if number == 5:
            end()
        return number

    watch = Watch(place.append, lambda ordinal: f"sample {ordinal}")
    batches = loaded(reads, watch=watch)
    started = time.monotonic()
    with pytest.raises(LoaderError) as caught:
        for _ in batches:
            pass
    assert time.monotonic() - started < DEADLINE_S
    assert said in str(caught.value) and str(caught.value).startswith("loader process ")
    assert str(caught.value).endswith(", at sample 105")


def test_a_death_is_noticed_while_batches_lie_ready(earlier: set[int]) -> None:
    batches = loaded(count=1000, workers=2)
    next(batches)
    victim = min(processes() - earlier)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(LoaderError, match=rf"process id {victim}\) was ended by SIGKILL"):
        for _ in range(100):
            next(batches)
            time.sleep(0.01)


class Demanding(Exception):
    """Cannot be made from its message alone."""

    def __init__(self, name: str, number: int) -> None:
        super().__init__(f"{name} has {number}")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (KeyError("colour"), KeyError, "colour"),
        (FileNotFoundError(2, "No such file", "x.tar"), FileNotFoundError, "x.tar"),
        (Demanding("shard", 3), LoaderError, "Demanding: shard has 3"),
    ],
)
def test_an_exception_arrives_in_its_turn(error: Exception, kind: type[Exception], message: str) -> None:
    def fails(number: int) -> int:
        if number == 7:
            raise error
        return number

    batches, seen = loaded(fails, workers=3), []
    with pytest.raises(kind, match=message) as caught:
        for number in batches:
            seen.append(number)
    assert seen == list(range(7))
    assert "in fails" in f"{caught.value} {caught.value.__cause__}", "the traceback of the process"


def test_breaking_off_ends_the_processes_at_once() -> None:
    def slow(number: int) -> int:
        time.sleep(60 * (number > 0))
        return number

    batches = loaded(slow)
    assert next(batches) == 0
    started = time.monotonic()
    batches.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 5


def test_a_loader_within_another_ends_by_itself(earlier: set[int]) -> None:
    """Each process must not keep the other loader's sockets open."""
    outer = loaded()
    assert next(outer)["ids"] == 0
    inner = loaded()
    assert next(inner)["ids"] == 0
    del outer
    wait_until(lambda: len(processes() - earlier) == 2)
    assert [batch["ids"].item() for batch in inner] == list(range(1, 20))


@pytest.mark.parametrize("busy", [False, True])
def test_processes_end_with_the_one_that_they_work_for(busy: bool) -> None:
    """Killed, it cannot tell them; some are busy, others wait for work."""

    def slow(number: int) -> int:
        time.sleep(60 * (busy and number > 0))
        return number

    read, write = os.pipe()
    main = os.fork()
    if main == 0:
        try:
            batches = loaded(slow, count=100)
            next(batches)
            os.write(write, " ".join(map(str, processes())).encode())
            time.sleep(60)
        finally:
            os._exit(1)
    workers = [int(p) for p in os.read(read, 1000).split()]
    assert len(workers) == 2 and all(map(running, workers))
    os.kill(main, signal.SIGKILL)
    os.waitpid(main, 0)
    wait_until(lambda: not any(map(running, workers)))
    os.close(read)
    os.close(write)


def test_it_works_while_this_process_has_many_threads() -> None:
    end, threads = threading.Event(), []
    for _ in range(40):
        threads.append(threading.Thread(target=end.wait))
        threads[-1].start()
    torch.ones(500, 500) @ torch.ones(500, 500)
    try:
        assert [b["ids"].item() for b in loaded(lambda n: make(n) | {"x": torch.ones(300, 300) @ torch.ones(300, 300)})]
    finally:
        end.set()
        for thread in threads:
            thread.join()


def test_processes_compute_with_one_thread_and_ignore_what_slurm_sends() -> None:
    def facts(_: int) -> tuple[int, list[Any]]:
        numbers = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT)
        return torch.get_num_threads(), [signal.getsignal(number) for number in numbers]

    assert list(loaded(facts, count=2)) == [(1, [signal.SIG_IGN] * 3)] * 2


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(loaded(count=3))
    assert torch.equal(torch.get_rng_state(), before)
