"""The parts of `make gpu`: what each runs, for how long it may, and how one is run in a process of its own.

A part is a module with ``lines(device, small)``, which yields one dictionary after another:

    {"check": name, "wrong": None or what is wrong}     # something that must hold
    {"table": name, ...}                                # a row of figures, in the order of its columns

small: sizes that a CPU manages in seconds, to see that everything runs; the figures then say nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Line = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """title: in the report. module: what is run. seconds: how long it may take. checks: whether it checks something,
    so that it must not be cut."""

    title: str
    module: str
    seconds: int
    checks: bool = True


# Together a little under eight minutes; imports are inside.
PARTS = (
    Part("Objectives and waits", "tests.gpu.objectives", 75),
    Part("Losses and kernels", "tests.gpu.losses", 75),
    Part("CUDA graphs", "tests.gpu.graphs", 25),
    Part("Steps over NCCL", "tests.gpu.steps", 90),
    Part("Losses beside others'", "benchmarks.gpu", 95, checks=False),
    Part("Whole training steps", "benchmarks.gpu_training", 105, checks=False),
)


@dataclass
class Outcome:
    """What a part said. cut: whether its time was over before it was. error: why else it did not end well, or ''."""

    part: Part
    lines: list[Line]
    cut: bool = False
    error: str = ""

    @property
    def wrong(self) -> list[str]:
        """What makes `make gpu` fail, one sentence each."""
        found = [f"{line['check']}: {line['wrong']}" for line in self.lines if line.get("wrong")]
        found += [f"{self.part.title}: {self.error}"] if self.error else []
        if self.cut and self.part.checks:
            found.append(f"{self.part.title}: cut after its {self.part.seconds} s, so not everything was checked")
        return found


def run(part: Part, seconds: float, device: str, *, small: bool) -> Outcome:
    """Run a part in a new process, for at most so many seconds; what it had said by then counts."""
    command = [sys.executable, "-m", "tests.gpu.parts", part.module, device, *(["--small"] if small else [])]
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder, "out"), Path(folder, "errors")
        with out.open("w") as stdout, errors.open("w") as stderr:
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr, start_new_session=True)
            try:
                code, cut = process.wait(seconds), False
            except subprocess.TimeoutExpired:
                code, cut = 0, True
            finally:
                _end(process)
        last = next((line for line in reversed(errors.read_text().splitlines()) if line.strip()), "nothing was said")
        return Outcome(part, _read(out.read_text()), cut, f"ended with code {code}: {last[:300]}" if code else "")


def _end(process: subprocess.Popen[bytes]) -> None:
    """And whatever it has started: loaders, compilers."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read(text: str) -> list[Line]:
    """Lines of JSON; libraries print between them, and a part that was cut may have half a line."""
    found = []
    for line in text.splitlines():
        try:
            read = json.loads(line)
        except ValueError:
            continue
        if isinstance(read, dict) and ("check" in read or "table" in read):
            found.append(read)
    return found


def main() -> None:
    """Run one part here, and print its lines as they come."""
    parser = argparse.ArgumentParser(description="One part of make gpu.")
    parser.add_argument("module", choices=[part.module for part in PARTS])
    parser.add_argument("device")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    if options.small:
        torch.set_num_threads(1)
    lines: Iterator[Line] = importlib.import_module(options.module).lines(torch.device(options.device), options.small)
    for line in lines:
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
