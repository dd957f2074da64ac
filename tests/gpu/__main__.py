"""The checks of `make gpu`, one after another; without a CUDA device one sentence of why not."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time

METHODS = ("clip", "siglip", "supcon", "cross_self", "m3col", "comm", "mucmm", "factorcl")
SHORT = ["experiment=digits", "data.global_batch=128", "train.samples=512", "evaluation.final=[]", "engine.hang_s=240"]


def run_steps(method: str, stage: int, folder: str) -> str | None:
    """Four steps of the digits at a stage of ZeRO, over NCCL; the end of the output where that fails."""
    command = [
        *(sys.executable, "launcher/submit.py", "--cluster=local", f"method={method}", "engine=gpu"),
        *(f"engine.zero={stage}", f"run.name={method}-{stage}", f"run.root={folder}", *SHORT),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return None if done.returncode == 0 else (done.stdout + done.stderr)[-400:]


def main() -> int:
    """Print a line of JSON per check; 1 if any fails."""
    import torch

    if not torch.cuda.is_available():
        print(json.dumps({"skipped": "make gpu needs a CUDA device, and torch sees none here"}))
        return 0
    from tests.gpu.objectives import check

    start, failed = time.monotonic(), False

    def told(name: str, wrong: object) -> None:
        nonlocal failed
        failed = failed or bool(wrong)
        print(json.dumps({"check": name, "wrong": wrong or None, "s": round(time.monotonic() - start)}), flush=True)

    told("objectives against the CPU's, without waits", check(torch.device("cuda", 0)))
    with tempfile.TemporaryDirectory() as folder:
        for stage in (1, 3):
            for method in METHODS:
                told(f"{method} at ZeRO {stage}", run_steps(method, stage, folder))
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu", "--quick"], timeout=240, check=False)
    told("benchmarks.gpu", done.returncode)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
