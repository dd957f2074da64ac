"""What the tests of the whole way share: a small run on the digits, and ways to look at it and to disturb it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.summary.demo import OPEN_RELEASE

TOKEN = "hf_" + "Canary" * 6
ROOT = Path(__file__).resolve().parent.parent
STEPS, CHECKPOINT_EVERY, BATCH = 26, 5, 128
# M3CoL with both of its phases inside the 2.3 epochs.
SMALL = [
    "method=m3col",
    "method.switch=0.5",
    "model.embed_dim=16",
    "model.classifier_hidden=16",
    *(f"model.encoders.{name}.config.num_hidden_layers=1" for name in ("left", "right", "caption")),
]

# Methods of which a small run is wanted beside M3CoL: their tokens. FactorCL takes two modalities.
OTHERS = {
    "comm": ["method=comm"],
    "factorcl": [
        "method=factorcl",
        "method.critic_hidden=32",
        "data.modalities.left=null",
        "model.encoders.left=null",
    ],
    "mucmm": [
        "method=mucmm",
        "method.variance=1.0",  # encoders that were never trained hardly vary
        "model.embed_dim=null",
        "model.components.common=3",
        "model.components.individual=4",
        *(f"model.encoders.{name}.freeze=true" for name in ("left", "right", "caption")),
    ],
}


def command_of(method: str, digits: Path, runs: Path, name: str, *tokens: str) -> list[str]:
    """As :func:`command`, for a method of OTHERS."""
    gone = [token.removesuffix("=null") + "." for token in OTHERS[method] if token.endswith("=null")]
    unwanted = ("method=", "method.", *gone)
    kept = [token for token in command(digits, runs, name) if not token.startswith(unwanted)]
    return [*kept, *OTHERS[method], *tokens]


def command(digits: Path, runs: Path, name: str, *tokens: str) -> list[str]:
    """The launcher's command for a small run on ``digits``."""
    return [
        sys.executable,
        str(ROOT / "launcher" / "submit.py"),
        "--cluster=local",
        "experiment=digits",
        f"data.path={digits}",
        f"model.encoders.caption.tokenizer={digits / 'tokenizer'}",
        f"run.root={runs}",
        f"run.name={name}",
        f"train.samples={STEPS * BATCH}",
        f"checkpoint.every_steps={CHECKPOINT_EVERY}",
        "tracking.tensorboard=off",  # its import would be a good part of a run this small, and so would drawing
        "tracking.pictures=false",
        *SMALL,
        *tokens,
    ]


def launch(arguments: list[str], timeout: float = 480) -> subprocess.CompletedProcess[str]:
    """Run to the end, away from the project's folder, as somebody who may write to the Hub."""
    known = os.environ | {"HF_TOKEN": TOKEN}
    return subprocess.run(arguments, cwd="/", env=known, capture_output=True, text=True, timeout=timeout)


def weights(run: RunFolder) -> str:
    """The digest of the released weights."""
    return hashlib.sha256((run.release / "model.safetensors").read_bytes()).hexdigest()


def keys_by_step(run: RunFolder) -> list[list[str]]:
    """What every step consumed, in order."""
    lines = list(read_lines(run.consumed))
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line["keys"] for line in lines]


def ranks_of(run: RunFolder) -> list[psutil.Process]:
    """The living rank processes of a local run, by their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if "submitit" in line and str(run.path) in line:
            found.append(process)
    return [p for p in found if not p.children()] or found


def kill_a_rank(
    run: RunFolder,
    after_step: int,
    choose: Callable[[list[psutil.Process]], psutil.Process],
    delay: float = 0.0,
    patience_s: float = 120,
) -> None:
    """SIGKILL one rank ``delay`` seconds after ``after_step`` is logged, which may take ``patience_s`` seconds."""
    end = time.monotonic() + patience_s
    while not any(line.get("step", 0) >= after_step for line in read_lines(run.metrics)):
        assert time.monotonic() < end, "the run never reached the step"
        time.sleep(0.02)
    time.sleep(delay)
    os.kill(choose(ranks_of(run)).pid, signal.SIGKILL)


def open_release(release: Path, elsewhere: Path) -> subprocess.CompletedProcess[str]:
    """Open a release by AutoModel in an interpreter that cannot import this package."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(elsewhere)}
    arguments = [sys.executable, "-I", "-c", OPEN_RELEASE, str(release)]
    return subprocess.run(arguments, cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120)
