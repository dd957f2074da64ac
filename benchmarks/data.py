"""Samples per second of our loader beside open_clip's, webdataset's and litdata's, and beside bare decoding.

    python -m benchmarks.data [--quick] [--python /path/to/another/bin/python]

10,000 made-up photos (benchmarks/photos.py) with captions, from the page cache into batches of 224 x 224 pixels, with
random crops of 0.9 to 1.0 of the area: normalized float32 in the main process, as open_clip hands them over, and uint8,
as a device of ours gets them; beside that whole pictures of 256 pixels, which a device can cut. Every measurement is a
fresh process of one thread, beside its loader processes; the contestants take turns. ``--python``: of an environment
with torch, open_clip_torch, webdataset and litdata; what it lacks is left out. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.measure import MIB, finish, show
from benchmarks.photos import write_photos

OURS = ("ours", "ours_uint8", "ours_whole", "ours_raw", "decode_limit")
OTHERS = ("open_clip", "webdataset", "litdata", "webdataset_raw")
HERE = Path(__file__).resolve().parent
RATIOS = {
    "vs_open_clip": ("ours", "open_clip"),
    "uint8_vs_open_clip": ("ours_uint8", "open_clip"),
    "vs_webdataset": ("ours", "webdataset"),
    "vs_litdata": ("ours", "litdata"),
    "vs_decode_limit": ("ours_uint8", "decode_limit"),
    "whole_vs_decode_limit": ("ours_whole", "decode_limit"),
    "raw_vs_webdataset": ("ours_raw", "webdataset_raw"),
}

Reading = dict[str, float]  # samples_per_s, per_cpu_s, peak_mib


def measure(name: str, python: str, folder: Path, workers: int, samples: int, batch: int) -> Reading | None:
    """One pass in a fresh process; None if it cannot run there."""
    script = ["-m", "benchmarks.data_ours"] if name in OURS else [str(HERE / "data_others.py")]
    command = [
        sys.executable if name in OURS else python,
        *script,
        name,
        str(folder),
        str(workers),
        str(samples),
        str(batch),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(
        command, cwd=HERE.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, _memory(process.pid))
        time.sleep(0.2)
    out, errors = process.communicate()
    if process.returncode:
        print(
            f"  {name} is left out: {(errors.strip().splitlines() or ['no reason'])[-1]}", file=sys.stderr, flush=True
        )
        return None
    found = json.loads(out.strip().splitlines()[-1])
    return {
        "samples_per_s": found["samples"] / found["seconds"],
        "per_cpu_s": found["samples"] / found["cpu_seconds"],
        "peak_mib": peak / MIB,
    }


def _memory(number: int) -> int:
    """Bytes of a process and its children, shared ones once."""
    total = 0
    try:
        process = psutil.Process(number)
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_full_info().pss
    except psutil.Error:  # it has ended meanwhile
        pass
    return total


def table(
    folder: Path, python: str, worker_counts: list[int], samples: int, batch: int, repeats: int
) -> dict[str, Any]:
    """Workers -> contestant -> medians, and the ratios."""
    readings: dict[tuple[int, str], list[Reading]] = defaultdict(list)
    for _ in range(repeats):
        for workers in worker_counts:
            for name in (*OURS, *OTHERS):
                if (name != "decode_limit" or workers) and (
                    found := measure(name, python, folder, workers, samples, batch)
                ):
                    readings[workers, name].append(found)
    result: dict[str, Any] = {}
    for workers in worker_counts:
        medians = {
            name: {key: statistics.median(reading[key] for reading in several) for key in several[0]}
            for (count, name), several in readings.items()
            if count == workers
        }
        rows = [
            [name, f"{m['samples_per_s']:,.0f}", f"{m['per_cpu_s']:,.0f}", f"{m['peak_mib']:,.0f}"]
            for name, m in medians.items()
        ]
        show(
            f"{samples} samples, {workers} loader processes",
            ["loader", "samples/s", "samples per CPU s", "peak MiB"],
            rows,
        )
        result[str(workers)] = {"medians": medians, **_ratios(medians)}
    return result


def _ratios(medians: dict[str, Reading]) -> dict[str, dict[str, float]]:
    return {
        key: {
            part: round(medians[a][part] / medians[b][part], 2) for part in ("samples_per_s", "per_cpu_s", "peak_mib")
        }
        for key, (a, b) in RATIOS.items()
        if a in medians and b in medians
    }


def main() -> None:
    """Make the photos, let all take turns, print tables and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer photos, 2 loader processes only")
    parser.add_argument("--python", default=sys.executable, help="of the environment with the others' loaders")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--samples", type=int, help="of 256 pixels, in place of 9984 (quick: 1536)")
    options = parser.parse_args()
    small, large = (1536, 384) if options.quick else (9984, 1536)
    repeats = 1 if options.quick else options.repeats
    sets = (("256 px", options.samples or small, (256, 256), 256), ("1024 px", large, (768, 1024), 64))
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="photos-") as place:
        for name, count, sides, batch in sets:
            folder = Path(place) / name
            write_photos(folder, count, *sides)
            workers = [2] if options.quick or name != "256 px" else [0, 1, 2]
            result[name] = table(folder, options.python, workers, count, batch, repeats)
    finish({"repeats": repeats, **result})


if __name__ == "__main__":
    main()
