"""What a training step of every method costs beside one of CLIP: same encoders, same batch, one process.

    mmpretrain shards build digits
    python -m benchmarks.methods [--quick] [--rounds 3] [--method comm --method factorcl]

The encoders are two vision transformers of 6 layers, 192 wide, on the digits' halves (9 tokens); the settings are each
method's defaults, views and critics included. In every round each method is a new process of one thread; a reading is
the median of its steps' processor time, of the engine alone (no reading of data), and the ratio that of medians over
the rounds. The last line is JSON.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

from benchmarks.measure import finish, show
from mmpretrain.config.methods.names import METHODS

REFERENCE = "clip"
WITHOUT = {"cmcr": "trains projectors on stored embeddings, no encoders"}
SIZE = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3, "num_hidden_layers": 6}
TOKENS = [
    "experiment=digits",
    "data.modalities.caption=null",
    "model.encoders.caption=null",
    *(f"model.encoders.{half}.config.{key}={value}" for half in ("left", "right") for key, value in SIZE.items()),
]


def measure(method: str, steps: int) -> float:
    """Median seconds of processor time of ``steps`` optimizer steps, in this process."""
    import torch

    from mmpretrain.assembly.build import build_processor
    from mmpretrain.config.compose import compose
    from mmpretrain.data.step import Step
    from mmpretrain.data.stream import Stream
    from mmpretrain.engine.engine import Engine
    from mmpretrain.methods.build import build_method

    torch.set_num_threads(1)
    config = compose([*TOKENS, f"method={method}"])
    config.method.bind(config.data.global_batch)
    engine = Engine(config, build_method(config))
    batch = next(iter(Stream(config.data, "train", 0, 0, 1, build_processor(config)).batches(0, 1)))
    seconds = []
    for index in range(steps + 2):
        start = time.process_time()
        engine.step(batch, Step(index, index / 10, 10.0, seed=0))
        seconds.append(time.process_time() - start)
    engine.close()
    return statistics.median(seconds[2:])  # the first ones allocate


def measure_alone(method: str, steps: int) -> float:
    """:func:`measure` in a new process."""
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    command = [sys.executable, "-m", "benchmarks.methods", "--one", method, "--steps", str(steps)]
    environment = {**os.environ, **alone, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{method} failed:\n{done.stderr[-3000:]}")
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Alternate the methods, and print medians and their ratios to CLIP's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of few steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--method", action="append", choices=sorted(set(METHODS) - set(WITHOUT)), help="only these")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=15, help="per reading")
    options = parser.parse_args()
    if options.one:
        print(measure(options.one, options.steps))
        return
    rounds, steps = (1, 5) if options.quick else (options.rounds, options.steps)
    chosen = options.method or [name for name in METHODS if name not in WITHOUT]
    readings: dict[str, list[float]] = {name: [] for name in dict.fromkeys([REFERENCE, *chosen])}
    for _ in range(rounds):
        for name, found in readings.items():
            found.append(measure_alone(name, steps))
    medians = {name: statistics.median(found) for name, found in readings.items()}
    ratios = {name: seconds / medians[REFERENCE] for name, seconds in medians.items()}
    rows = [[name, f"{medians[name]:.3f}", f"{ratios[name]:.2f}"] for name in medians]
    show("one step, batch 128, two ViT encoders", ["method", "CPU s (median)", "times CLIP"], rows)
    finish({"cpu_seconds": medians, "times_clip": ratios, "rounds": rounds, "steps": steps})


if __name__ == "__main__":
    main()
